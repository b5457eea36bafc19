"""Bedrock Converse: usage on the body; in a stream on its metadata, the last frame. The model stands in the path only."""

from collections.abc import Mapping
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body
from metering.extract.counts import put
from metering.extract.shape_bedrock import (
    guardrail_units,
    invoked_model,
    model_and_region,
    read_converse,
    tier_of,
)
from metering.problem import Native
from pricing.usage import Usage


class _Answer(msgspec.Struct, rename="camel"):
    """A body, or the metadata of a stream."""

    usage: Any = None
    service_tier: Any = None
    performance_config: Any = None
    trace: Any = None


class _Event(_Answer, rename="camel"):
    metadata: Any = None  # some adapters name the event inside its payload


_decode = msgspec.json.Decoder(_Answer).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class BedrockConverse:
    name = "bedrock_converse"
    version = 1
    extractor = "bedrock_converse/1"
    native_errors: Native | None = None
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        answer = decode_body(_decode, _Answer, body)
        return reading.nothing() if answer is None else _usage(reading, answer)

    def open_stream(self, facts: RequestFacts, provider: str) -> "ConverseStream":
        return ConverseStream(Reading(self.extractor, facts, provider))


def _usage(reading: Reading, answer: _Answer) -> Usage:
    usage, trace = answer.usage, answer.trace
    model, region = model_and_region(invoked_model(trace) or reading.facts.model)
    if not isinstance(usage, Mapping):
        return reading.nothing(model, raw=usage, consistency="ok" if usage is None else "inconsistent")
    counted = read_converse(usage)
    raw = usage
    units = guardrail_units(trace)
    if units and counted.known:
        put(counted.buckets, "guardrail_unit", units)
        raw = {**usage, "guardrail": trace["guardrail"]}
    performance = answer.performance_config
    return reading.reported(
        counted, raw, model, service_tier=tier_of(model, answer.service_tier), region=region,
        speed=performance.get("latency") if isinstance(performance, dict) else None,
    )  # fmt: skip


class ConverseStream:
    """Nothing is told before the metadata, which ends the stream."""

    interesting: tuple[bytes, ...] = (b'"usage"', b'"metadata"')
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._answer = _Answer()
        self._began = False  # an answer has been seen, not just an error or noise

    def on_event(self, event: bytes, data: bytes) -> bool:
        answer = _read_event(data)
        if answer is None:
            return False
        self._began = True
        if answer.usage is None:
            return False
        self._answer = answer
        return True

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        answer = _read_event(data)
        return answer is not None and answer.usage is not None

    def usage(self, events_seen: int, complete: bool) -> Usage:
        if self._answer.usage is None:
            model, region = model_and_region(self._reading.facts.model)
            return self._reading.estimated(model, events_seen if self._began else 0, more={"region": region})
        return _usage(self._reading, self._answer)


def _read_event(data: bytes) -> _Answer | None:
    try:
        event = _decode_event(data)
        return msgspec.convert(event.metadata, _Answer) if isinstance(event.metadata, dict) else event
    except UNREADABLE:
        return None
