"""Cohere v2 chat: billed units on the body; in a stream on the delta of its last event. No answer names its model."""

from collections.abc import Mapping
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, is_done, kind_of
from metering.extract.shape_cohere import read_cohere
from metering.problem import Native
from pricing.usage import Usage

_END = "message-end"


class _Body(msgspec.Struct):
    usage: Any = None


class _Event(msgspec.Struct):
    type: Any = None
    delta: Any = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class CohereChat:
    name = "cohere_chat"
    version = 1
    extractor = "cohere_chat/1"
    native_errors: Native | None = None
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Body, body)
        return reading.nothing() if fields is None else _usage(reading, fields.usage)

    def open_stream(self, facts: RequestFacts, provider: str) -> "ChatStream":
        return ChatStream(Reading(self.extractor, facts, provider))


def _usage(reading: Reading, usage: Any) -> Usage:
    if not isinstance(usage, Mapping):
        return reading.nothing(raw=usage, consistency="ok" if usage is None else "inconsistent")
    return reading.reported(read_cohere(usage), usage, None)


class ChatStream:
    """Usage comes with the event that ends the message, and never before."""

    interesting: tuple[bytes, ...] = (b"message-", b'"usage"')
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset(
        {
            b"event: content-delta",
            b"event: content-start",
            b"event: content-end",
            b"event: tool-plan-delta",
            b"event: tool-call-delta",
        }
    )

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._usage: Any = None
        self._began = False  # an answer has been seen, not just an error or noise

    def on_event(self, event: bytes, data: bytes) -> bool:
        if is_done(data):
            return True
        try:
            decoded = _decode_event(data)
        except UNREADABLE:
            return False
        kind = kind_of(event, decoded.type)
        self._began = self._began or kind.startswith(("message-", "content-", "tool-"))
        if isinstance(decoded.delta, dict) and isinstance(decoded.delta.get("usage"), dict):
            self._usage = decoded.delta["usage"]
        return kind == _END

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return is_done(data) or kind_of(event, _decode_event(data).type) == _END
        except UNREADABLE:
            return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        if self._usage is None:
            return self._reading.estimated(None, events_seen if self._began else 0)
        return _usage(self._reading, self._usage)
