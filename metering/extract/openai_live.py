"""OpenAI Live: the messages of one WebSocket. Its seconds are cumulative for the whole session: the last figure holds.

Work that the session delegates to a model of the Responses API, or to Decisions, is told in events of its own and billed at
that model. Read with `metering.tap.usage_of_messages`.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading
from metering.extract.counts import Counted, Counters, text_or_none
from metering.extract.exact import as_written, digits_of
from metering.extract.parts import counted_parts
from metering.extract.response_tools import with_tools
from metering.extract.shape_openai import read_openai
from metering.extract.tally import Tally
from metering.extract.tool_units import read_seconds
from pricing.usage import Quantity, Usage, UsagePart

_ENDS_OF_A_RESPONSE = frozenset({"response.completed", "response.incomplete", "response.failed"})
_FIELDS = digits_of("seconds")


class _Message(msgspec.Struct):
    type: Any = None
    session: Any = None
    usage: Any = None
    event: Any = None


_decode = msgspec.json.Decoder(_Message).decode


class OpenAILive:
    name = "openai_live"
    version = 1
    extractor = "openai_live/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        """The usage that a single message says."""
        stream = self.open_stream(facts, provider)
        stream.on_event(b"", body)
        return stream.usage(1, complete=True)

    def open_stream(self, facts: RequestFacts, provider: str) -> "LiveStream":
        return LiveStream(Reading(self.extractor, facts, provider))


class LiveStream:
    """Ends with `session.closed`, which repeats the final figure, or where the connection ends."""

    interesting: tuple[bytes, ...] = (
        b"session.usage.updated", b"session.closed", b"session.started", b"session.updated", b'"response.event"',
        b'"decision.event"',
    )  # fmt: skip
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._model: str | None = None
        self._seconds: Quantity | None = None
        self._raw: Any = None
        self._counters = Counters()
        self._delegated = Tally()
        self._closed = False

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            message = _decode(data)
        except UNREADABLE:
            return False
        inner = message.event if isinstance(message.event, dict) else {}
        if message.type == "response.event":
            self._add_response(inner, data)
        elif message.type == "decision.event":
            self._add_decision(inner)
        else:
            self._note_session(message, data)
        return self.is_terminal(event, data)

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return bool(_decode(data).type == "session.closed")
        except UNREADABLE:
            return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        told = self._seconds is not None
        if not told and self._delegated.empty:
            return self._reading.nothing(self._model, raw=self._raw, consistency=self._counters.consistency)
        delegated = self._delegated.counted()
        counters = Counters()
        counters.rules, counters.flawed = self._counters.rules, self._counters.flawed
        counters.take(delegated)
        session = UsagePart({"audio_second": self._seconds} if self._seconds is not None else {})
        counted = counted_parts(counters, [session, *delegated.parts])
        counted.unknown_sides = delegated.unknown_sides
        return self._reading.reported(
            counted,
            {"session": self._raw, "reports": self._delegated.reports},
            self._model,
            source="reported" if told and (self._closed or complete) else "reported_partial",
        )

    def _note_session(self, message: _Message, data: bytes) -> None:
        self._closed = self._closed or message.type == "session.closed"
        if isinstance(message.session, dict):
            self._model = text_or_none(message.session.get("model")) or self._model
        usage = message.usage
        if not isinstance(usage, dict) or usage.get("seconds") is None:
            return
        self._raw = usage
        value = usage["seconds"]
        exact = as_written(value, _FIELDS, data) if type(value) is float else value
        seconds = read_seconds(self._counters, {"seconds": exact}, "seconds")
        self._seconds = self._seconds if seconds is None else seconds

    def _add_response(self, event: Mapping[str, Any], data: bytes) -> None:
        response = event.get("response")
        if text_or_none(event.get("type")) in _ENDS_OF_A_RESPONSE and isinstance(response, dict):
            self._add(response, "response", data)

    def _add_decision(self, event: Mapping[str, Any]) -> None:
        decision = event.get("decision")
        if isinstance(decision, dict):
            self._add(decision, "decision", b"")

    def _add(self, answer: Mapping[str, Any], kind: str, text: bytes) -> None:
        usage = answer.get("usage")
        if not isinstance(usage, dict):
            return
        model = text_or_none(answer.get("model")) or f"delegated_{kind}"
        counted: Counted = read_openai(usage, self._reading.provider, model)
        counted, raw = with_tools(counted, usage, answer.get("tool_usage"), text)
        key = text_or_none(answer.get("id")) or ""
        for part in counted.parts or (UsagePart(counted.buckets),):
            own = Counted(dict(part.buckets), counted.consistency, counted.unknown_sides, counted.rules)
            self._delegated.add(
                own,
                part.model or model,
                part.kind or kind,
                key=key and f"{key}/{part.kind}/{part.model}",
                raw=raw,
            )
