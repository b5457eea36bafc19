"""Anthropic Messages: usage on the body; in a stream the input on `message_start`, totals on `message_delta`."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import (
    OUTPUT_TOKENS_PER_EVENT,
    UNREADABLE,
    Reading,
    decode_body,
    kind_of,
    merge_latest,
)
from metering.extract.costs import reported_cost
from metering.extract.counts import text_or_none
from metering.extract.shape_anthropic import ordinary_buckets, read_anthropic
from metering.extract.shapes import read_usage
from pricing.usage import Usage

_TERMINAL = frozenset({"message_stop", "error"})


_NO_REGION = "not_available"  # of models that do not say where they ran


class _Body(msgspec.Struct):
    model: Any = None
    usage: Any = None
    result: Any = None  # what became of one request of a batch


class _Event(msgspec.Struct):
    type: Any = None
    message: Any = None
    usage: Any = None
    delta: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class AnthropicMessages:
    """A message, whole or streamed, or one line of a batch's results."""

    name = "anthropic_messages"
    version = 2
    extractor = "anthropic_messages/2"
    native_errors: Literal["openai", "anthropic"] | None = "anthropic"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Body, body)
        if fields is None:
            return reading.nothing()
        if fields.result is None and type(fields.usage) is dict:
            buckets = ordinary_buckets(fields.usage)
            if buckets is not None:
                return _plain(reading, buckets, fields.usage, fields.model)
        message = fields.result.get("message") if isinstance(fields.result, dict) else None
        if fields.usage is None and isinstance(message, dict):
            return usage_of_message(reading, message.get("usage"), message.get("model"), batch=True)
        return usage_of_message(reading, fields.usage, fields.model)

    def open_stream(self, facts: RequestFacts, provider: str) -> "MessagesStream":
        return MessagesStream(Reading(self.extractor, facts, provider))


def usage_of_message(
    reading: Reading, usage: Any, model: Any, *, final: bool = True, batch: bool = False, **more: Any
) -> Usage:
    """The usage that a message says, with the circumstances that its price depends on."""
    if type(usage) is not dict and not isinstance(
        usage, Mapping
    ):  # the abstract check alone takes a third of a µs
        return reading.nothing(
            model, raw=usage, consistency="ok" if usage is None else "inconsistent", **more
        )
    counted = (
        read_anthropic(usage)
        if "input_tokens" in usage and "total_tokens" not in usage
        else read_usage(usage)
    )
    return reading.reported(
        counted,
        usage,
        model,
        source="reported" if final else "reported_partial",
        service_tier=usage.get("service_tier"),
        speed=usage.get("speed"),
        region=_region_of(usage),
        batch=batch,
        reported_cost=reported_cost(usage),
        **more,
    )


def _plain(reading: Reading, buckets: dict[str, Any], usage: Mapping[str, Any], model: Any) -> Usage:
    return reading.plain(
        buckets, usage, model, usage.get("service_tier"), speed=usage.get("speed"), region=_region_of(usage)
    )


def _region_of(usage: Mapping[str, Any]) -> Any:
    region = usage.get("inference_geo")
    return None if region == _NO_REGION else region


class MessagesStream:
    """Totals are cumulative and may repeat the input side, later and larger: the latest value of each field holds."""

    interesting: tuple[bytes, ...] = (b"message_", b'"error"')
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset(
        {
            b"event: content_block_delta",
            b"event: content_block_start",
            b"event: content_block_stop",
            b"event: ping",
        }
    )

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._usage: Mapping[str, Any] | None = None
        self._model: str | None = None
        self._began = False  # an answer has been seen, not just an error or noise
        self._final = False  # the message came to its end, so its totals are the final ones
        self._error: str | None = None

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            decoded = _decode_event(data)
        except UNREADABLE:
            return False
        kind = kind_of(event, decoded.type)
        if kind == "message_start" and isinstance(decoded.message, dict):
            self._began = True
            self._model = text_or_none(decoded.message.get("model"))
            self._take(decoded.message.get("usage"))
        elif kind == "message_delta":
            self._take(decoded.usage)
            if (
                isinstance(decoded.usage, dict)
                and isinstance(decoded.delta, dict)
                and decoded.delta.get("stop_reason")
            ):
                self._final = True
        elif kind == "error":
            self._error = _name_of(decoded.error)
        return kind in _TERMINAL

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return kind_of(event, _decode_event(data).type) in _TERMINAL
        except UNREADABLE:
            return False

    def _take(self, usage: Any) -> None:
        if isinstance(usage, dict):
            self._usage = merge_latest(self._usage, usage)

    def usage(self, events_seen: int, complete: bool) -> Usage:
        more: dict[str, Any] = {"metadata": {"stream_error": self._error}} if self._error else {}
        if self._usage is None:
            return self._reading.estimated(self._model, events_seen if self._began else 0, more=more)
        usage = self._usage
        if not self._final:
            # The count of message_start is a placeholder: the output so far is what has been delivered.
            reported = usage.get("output_tokens")
            delivered = events_seen * OUTPUT_TOKENS_PER_EVENT
            if not isinstance(reported, int) or reported < delivered:
                counted = {**usage, "output_tokens": delivered}
                return msgspec.structs.replace(
                    usage_of_message(self._reading, counted, self._model, final=False, **more), raw=usage
                )
        return usage_of_message(self._reading, usage, self._model, final=self._final, **more)


def _name_of(error: Any) -> str:
    return text_or_none(error.get("type") if isinstance(error, dict) else None) or "error"
