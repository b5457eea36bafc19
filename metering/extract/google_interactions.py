"""Google's Interactions API: Gemini's counters under other names, in a stream on several events as running totals."""

from collections.abc import Mapping
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, is_done, kind_of, merge_latest
from metering.extract.counts import text_or_none
from metering.extract.gemini_generate import model_of
from metering.extract.shape_interactions import read_interactions
from metering.problem import Native
from pricing.usage import Usage

_TERMINAL = frozenset(
    {
        "interaction.completed",
        "interaction.complete",
        "interaction.cancelled",
        "interaction.canceled",
        "interaction.failed",
        "error",
    }
)


class _Interaction(msgspec.Struct):
    model: Any = None
    agent: Any = None
    service_tier: Any = None
    usage: Any = None


class _Event(msgspec.Struct):
    event_type: Any = None
    interaction: Any = None
    usage: Any = None
    metadata: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Interaction).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class GoogleInteractions:
    name = "google_interactions"
    version = 1
    extractor = "google_interactions/1"
    native_errors: Native | None = "google"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Interaction, body)
        if fields is None:
            return reading.nothing()
        return _usage(reading, fields.usage, fields.model or fields.agent, fields.service_tier)

    def open_stream(self, facts: RequestFacts, provider: str) -> "InteractionsStream":
        return InteractionsStream(Reading(self.extractor, facts, provider))


def _usage(reading: Reading, usage: Any, model: Any, tier: Any, *, final: bool = True, **more: Any) -> Usage:
    served = model_of(model)
    if not isinstance(usage, Mapping):
        return reading.nothing(
            served,
            raw=usage,
            consistency="ok" if usage is None else "inconsistent",
            service_tier=tier,
            **more,
        )
    return reading.reported(
        read_interactions(usage),
        usage,
        served,
        source="reported" if final else "reported_partial",
        service_tier=tier,
        **more,
    )


class InteractionsStream:
    """Totals stand on the interaction, on the event or in its metadata; the latest value of each field holds."""

    interesting: tuple[bytes, ...] = (
        b"usage",
        b'"interaction"',
        b'"error"',
        b"interaction.c",
        b"interaction.f",
    )
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._usage: Mapping[str, Any] | None = None
        self._model: Any = None
        self._tier: Any = None
        self._began = False  # an answer has been seen, not just an error or noise
        self._ended = False
        self._error: str | None = None

    def on_event(self, event: bytes, data: bytes) -> bool:
        if is_done(data):
            return True
        try:
            decoded = _decode_event(data)
        except UNREADABLE:
            return False
        kind = kind_of(event, decoded.event_type)
        self._began = self._began or kind.startswith(("interaction.", "step.", "content."))
        if isinstance(decoded.interaction, dict):
            said = decoded.interaction
            self._model = said.get("model") or said.get("agent") or self._model
            self._tier = said.get("service_tier") or self._tier
            self._take(said.get("usage"))
        self._take(decoded.usage)
        if isinstance(decoded.metadata, dict):
            self._take(decoded.metadata.get("total_usage"))
        if kind == "error":
            self._error = _name_of(decoded.error)
        self._ended = self._ended or (kind in _TERMINAL and kind != "error")
        return kind in _TERMINAL

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        if is_done(data):
            return True
        try:
            return kind_of(event, _decode_event(data).event_type) in _TERMINAL
        except UNREADABLE:
            return False

    def _take(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._usage = merge_latest(self._usage, usage)

    def usage(self, events_seen: int, complete: bool) -> Usage:
        more: dict[str, Any] = {"metadata": {"stream_error": self._error}} if self._error else {}
        if self._usage is None:
            more["service_tier"] = self._tier
            return self._reading.estimated(
                model_of(self._model), events_seen if self._began else 0, more=more
            )
        final = self._ended or (complete and not self._error)
        return _usage(self._reading, self._usage, self._model, self._tier, final=final, **more)


def _name_of(error: Any) -> str:
    return text_or_none(error.get("code") if isinstance(error, dict) else None) or "error"
