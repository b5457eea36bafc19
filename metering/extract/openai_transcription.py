"""OpenAI transcription and translation of speech, and Mistral's: billed by tokens or by the second of audio.

No answer names its model: it is the requested one. Where only the duration of the audio is told (`verbose_json`), that is
what is billed.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, kind_of
from metering.extract.counts import Counted, Counters, text_or_none
from metering.extract.exact import as_written, digits_of
from metering.extract.openai_chat import usage_of_counted
from metering.extract.shape_openai import read_openai
from metering.extract.tool_units import read_seconds
from pricing.usage import Usage

DURATION_COUNTED = "duration_counted"  # the audio's own, since no usage says it

_TERMINAL = frozenset({"transcript.text.done", "transcription.done", "error"})
_FIELDS = digits_of("seconds", "duration", "prompt_audio_seconds")


class _Body(msgspec.Struct):
    type: Any = None
    model: Any = None
    usage: Any = None
    duration: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class OpenAITranscription:
    name = "openai_transcription"
    version = 1
    extractor = "openai_transcription/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Body, body)
        return reading.nothing() if fields is None else _usage(reading, fields, body)

    def open_stream(self, facts: RequestFacts, provider: str) -> "TranscriptionStream":
        return TranscriptionStream(Reading(self.extractor, facts, provider))


def count_audio(usage: Mapping[str, Any], text: bytes, provider: str = "", model: str = "") -> Counted:
    """Buckets of a transcription's usage object, its seconds digit by digit as they stand in the JSON `text`."""
    exact = {
        name: as_written(value, _FIELDS, text)
        for name, value in usage.items()
        if type(value) is float and name in ("seconds", "prompt_audio_seconds")
    }
    return read_openai({**usage, **exact} if exact else usage, provider, model)


def _usage(reading: Reading, fields: _Body, text: bytes) -> Usage:
    counters = Counters()
    usage = counters.group({"usage": fields.usage}, "usage")
    if usage:
        model = text_or_none(fields.model) or reading.facts.model or ""
        counted = count_audio(usage, text, reading.provider, model)
        return usage_of_counted(reading, counted, usage, usage, fields.model, None, text=text)
    value = fields.duration
    exact = as_written(value, _FIELDS, text) if type(value) is float else value
    seconds = read_seconds(counters, {"duration": exact}, "duration")
    if seconds is None:
        return reading.nothing(fields.model, raw=fields.usage, consistency=counters.consistency)
    counters.repair(DURATION_COUNTED)
    counted = counters.counted({"audio_second": seconds})
    return usage_of_counted(reading, counted, usage, {"duration": value}, fields.model, None)


class TranscriptionStream:
    """The last event says what was used, and repeats the text."""

    interesting: tuple[bytes, ...] = (b"transcript.text.done", b"transcription.done", b'"error"')
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset({b"event: transcript.text.delta", b"event: transcription.text.delta"})

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._fields = _Body()
        self._text = b""
        self._began = False  # text has been seen, not just an error or noise

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            fields = _decode(data)
        except UNREADABLE:
            return False
        kind = kind_of(event, fields.type)
        self._began = self._began or kind.startswith("transcri")
        if kind in _TERMINAL and kind != "error":
            self._fields, self._text = fields, data
        return kind in _TERMINAL

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return kind_of(event, _decode(data).type) in _TERMINAL
        except UNREADABLE:
            return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        if self._fields.usage is None:
            return self._reading.estimated(None, events_seen if self._began else 0)
        return _usage(self._reading, self._fields, self._text)
