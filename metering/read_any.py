"""Usage out of any bytes that somebody kept: a body, a recorded stream in any framing, WebSocket messages, a span.

For people and their tools: `rate_response` is made of it. A metered call knows its route and goes by `open_tap`.
"""

from collections.abc import Iterable

import msgspec

from metering.estimate import RequestFacts
from metering.extract import WireFormat, usage_from_mapping, wire_format
from metering.extract.delivered import estimated_from_text, is_error
from metering.extract.detect import detect, detect_by_content
from metering.extract.document import top_of
from metering.tap import usage_of_messages
from metering.tap.array import ArrayFraming
from metering.tap.aws import AwsFraming, has_prelude
from metering.tap.base import BLANK
from metering.tap.events import EventTap
from metering.tap.frames import FrameTap, Framing
from metering.tap.lines import LineFraming
from metering.tap.opening import AWS_TYPE, EVENT_FIELDS, EVENT_TYPE, LINE_TYPES
from pricing.usage import Usage

MAPPING = "mapping"  # in place of a wire format: a usage object that lies open
_OVER_WEBSOCKET = frozenset({"openai_realtime", "openai_live", "gemini_live"})


class UnreadableAnswer(ValueError):
    """These bytes are no answer in any form that we know; the message says what was expected."""


class ReadAnswer(msgspec.Struct, frozen=True):
    """What was found, and as what it was read."""

    wire_format: str  # a name of `metering.extract`, "mapping", or "" where nothing tells it
    framing: str  # "json", "sse", "ndjson", "json_array", "aws_event_stream" or "websocket"
    usage: Usage


def read_any(
    data: bytes, *, provider: str = "", model: str | None = None, content_type: str = ""
) -> ReadAnswer:
    """The usage in `data`. Raises `UnreadableAnswer` where it is nothing that could hold any.

    `provider` (a slug) decides where the content is ambiguous. `model` is the one that was asked for, where the answer does
    not name it. `content_type` is believed only where the bytes do not tell their framing.
    """
    facts = RequestFacts(model=model)
    framing = _framing_of(data, content_type)
    if framing == "json":
        return _read_document(data, facts, provider)
    frames = _frames_of(data, framing)
    fmt = _format_of(frames, provider)
    if fmt is None:
        raise UnreadableAnswer(f"none of the {len(frames)} parts of this {framing} is a JSON object")
    if fmt.name in _OVER_WEBSOCKET:
        usage = usage_of_messages(fmt, [data for _, data in frames], facts=facts, provider=provider)
        return ReadAnswer(fmt.name, "websocket", usage)
    tap = _tap_for(framing, fmt, facts, provider)
    tap.feed(data)
    return ReadAnswer(fmt.name, framing, tap.finish(complete=True))


def _framing_of(data: bytes, content_type: str) -> str:
    text = data.lstrip(BLANK)
    kind = content_type.partition(";")[0].strip().lower()
    if not text:
        raise UnreadableAnswer("the answer is empty")
    if has_prelude(data) or kind == AWS_TYPE:
        return "aws_event_stream"
    if text.startswith(b"["):
        return "json_array"
    if text.startswith(b"{"):
        return "json" if top_of(text) is not None else _lines_or_error(text)
    if text.startswith(EVENT_FIELDS) or kind == EVENT_TYPE:
        return "sse"
    if kind in LINE_TYPES:
        return "ndjson"
    raise UnreadableAnswer(
        "this is neither a JSON document, nor one per line, nor server-sent events, nor an AWS event stream"
    )


def _lines_or_error(text: bytes) -> str:
    if top_of(text[: text.find(b"\n") + 1]) is None:
        raise UnreadableAnswer("this begins like JSON and is neither one document nor one per line")
    return "ndjson"


def _read_document(data: bytes, facts: RequestFacts, provider: str) -> ReadAnswer:
    text = data.lstrip(BLANK)
    document = top_of(text) or {}
    name = detect_by_content(document, provider)
    if name is None:
        usage = usage_from_mapping(document, facts, provider)
        if usage.source != "none":
            return ReadAnswer(MAPPING, "json", usage)
        name = detect(document, provider)
    if name is None:
        return ReadAnswer("", "json", usage_from_mapping(document, facts, provider))
    usage = wire_format(name).read_body(text, facts, provider)
    if usage.source == "none" and not is_error(b"", text):
        usage = estimated_from_text(usage, text, facts)
    return ReadAnswer(name, "json", usage)


class _Frames:
    """Collects the data of every event, as a reader that never has enough."""

    interesting: tuple[bytes, ...] = (b"",)
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self) -> None:
        self.found: list[tuple[bytes, bytes]] = []  # name and data

    def on_event(self, event: bytes, data: bytes) -> bool:
        self.found.append((event, data))
        return False

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        return Usage(buckets={}, source="none")


def _frames_of(data: bytes, framing: str) -> list[tuple[bytes, bytes]]:
    frames = _Frames()
    tap = EventTap(frames) if framing == "sse" else FrameTap(_framing(framing), frames)
    tap.feed(data)
    tap.finish(complete=True)
    return frames.found


def _framing(name: str) -> Framing:
    if name == "ndjson":
        return LineFraming()
    return ArrayFraming() if name == "json_array" else AwsFraming()


def _tap_for(framing: str, fmt: WireFormat, facts: RequestFacts, provider: str) -> EventTap | FrameTap:
    reader = fmt.open_stream(facts, provider)
    return EventTap(reader) if framing == "sse" else FrameTap(_framing(framing), reader)


def _format_of(frames: Iterable[tuple[bytes, bytes]], provider: str) -> WireFormat | None:
    """By the first frame that tells; else by the provider, and without one as the execute format reads anything."""
    seen = None
    for event, data in frames:
        document = top_of(data)
        if document is None:
            continue
        name = detect_by_content(document, provider, event)
        if name is not None:
            return wire_format(name)
        seen = document
    if seen is None:
        return None
    return wire_format(detect(seen, provider) or "execute")
