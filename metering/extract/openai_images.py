"""OpenAI Images, whole and streamed: tokens of an image model, and of the text model that writes vector images.

Models that are billed by the image report no usage; their images are counted. No answer names its model: it is the
requested one.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, kind_of
from metering.extract.counts import Counters, text_or_none
from metering.extract.openai_chat import usage_of_counted
from metering.extract.parts import counted_parts
from metering.extract.response_tools import svg_part
from metering.extract.shape_openai import read_openai
from pricing.usage import Usage, UsagePart

IMAGES_COUNTED = "images_counted"  # since no counter says it

_TERMINAL = frozenset({"image_generation.completed", "image_edit.completed", "error"})


class _Body(msgspec.Struct):
    type: Any = None
    model: Any = None
    usage: Any = None
    svg_usage: Any = None


class _Image(msgspec.Struct):
    """One image, of which nothing is built."""


class _Images(msgspec.Struct):
    data: list[_Image]


_decode = msgspec.json.Decoder(_Body).decode
_decode_images = msgspec.json.Decoder(_Images).decode


class OpenAIImages:
    name = "openai_images"
    version = 1
    extractor = "openai_images/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Body, body)
        return reading.nothing() if fields is None else _usage(reading, fields, body)

    def open_stream(self, facts: RequestFacts, provider: str) -> "ImagesStream":
        return ImagesStream(Reading(self.extractor, facts, provider))


def _usage(reading: Reading, fields: _Body, text: bytes) -> Usage:
    counters = Counters()
    usage = counters.group({"usage": fields.usage}, "usage")
    model = text_or_none(fields.model) or reading.facts.model or ""
    counted = read_openai(usage, reading.provider, model, written_as="image")
    counters.take(counted)
    svg = svg_part(counters, fields.svg_usage)
    raw: Mapping[str, Any] | None = usage or None
    if svg is not None:
        counted = counted_parts(counters, [UsagePart(counted.buckets), svg])
        raw = {**usage, "svg_usage": fields.svg_usage}
    elif not counted.known:
        images = _count_images(text)
        if not images:
            return reading.nothing(fields.model, raw=fields.usage, consistency=counters.consistency)
        counters.repair(IMAGES_COUNTED)
        counted = counters.counted({"image": images})
        raw = {**usage, "images": images}
    return usage_of_counted(reading, counted, usage, raw, fields.model, None, text=text)


def _count_images(text: bytes) -> int:
    try:
        return len(_decode_images(text).data)
    except UNREADABLE:
        return 0


class ImagesStream:
    """The event that completes the image says what it used; the partial images before it say nothing."""

    interesting: tuple[bytes, ...] = (b"image_generation.completed", b"image_edit.completed", b'"error"')
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset(
        {b"event: image_generation.partial_image", b"event: image_edit.partial_image"}
    )

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._fields = _Body()
        self._text = b""

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            fields = _decode(data)
        except UNREADABLE:
            return False
        kind = kind_of(event, fields.type)
        if kind in _TERMINAL and kind != "error":
            self._fields, self._text = fields, data
        return kind in _TERMINAL

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return kind_of(event, _decode(data).type) in _TERMINAL
        except UNREADABLE:
            return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        return _usage(self._reading, self._fields, self._text)
