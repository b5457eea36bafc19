"""OpenAI Chat Completions: usage on the body; in a stream on the last chunk before `[DONE]`, when it was asked for.

Most other providers and gateways speak it as well. What they add is read here (`x_groq`, `usage_breakdown`) or in
`metering.extract.shape_openai`; how they count differently is told by arithmetic, else by `metering.extract.profiles`.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, is_done, merge_latest
from metering.extract.costs import reported_cost
from metering.extract.counts import Counted, text_or_none
from metering.extract.parts import with_breakdown
from metering.extract.shape_openai import ordinary_buckets, read_openai
from metering.extract.shapes import read_usage
from pricing.usage import Usage


class Body(msgspec.Struct):
    model: Any = None
    service_tier: Any = None
    usage: Any = None
    usage_breakdown: Any = None
    x_groq: Any = None


class _Chunk(msgspec.Struct):
    model: Any = None
    service_tier: Any = None
    usage: Any = None
    usage_breakdown: Any = None
    choices: Any = None
    x_groq: Any = None


decode_fields = msgspec.json.Decoder(Body).decode  # raises what UNREADABLE names
_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class OpenAIChat:
    name = "openai_chat"
    version = 2
    extractor = "openai_chat/2"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        return usage_of_body(Reading(self.extractor, facts, provider), body)

    def open_stream(self, facts: RequestFacts, provider: str) -> "ChatStream":
        return ChatStream(Reading(self.extractor, facts, provider))


def usage_of_body(reading: Reading, body: bytes) -> Usage:
    """The usage of a body that carries `model`, `service_tier` and `usage` at its top."""
    fields = decode_body(decode_fields, Body, body)
    if fields is None:
        return reading.nothing()
    usage, breakdown = fields.usage, fields.usage_breakdown
    if fields.x_groq is not None:
        usage, breakdown = _usage_and_breakdown(fields)
    if breakdown is None and type(usage) is dict:
        plain = plain_usage(reading, usage, fields.model, fields.service_tier)
        if plain is not None:
            return plain
    return usage_of_fields(reading, usage, fields.model, fields.service_tier, breakdown=breakdown, text=body)


def plain_usage(reading: Reading, usage: dict[str, Any], model: Any, service_tier: Any) -> Usage | None:
    """The usage of an object that holds nothing but counters of tokens, which add up; None for any other.

    Such an object says neither a tier nor a cost, so that none of it has to be looked for.
    """
    named = model if type(model) is str else None
    buckets = ordinary_buckets(usage, reading.provider, named or reading.facts.model or "")
    return None if buckets is None else reading.plain(buckets, usage, named, service_tier or None)


def usage_of_fields(
    reading: Reading,
    usage: Any,
    model: Any,
    service_tier: Any,
    *,
    final: bool = True,
    breakdown: Any = None,
    text: bytes = b"",
    cost: Decimal | None = None,
    **more: Any,
) -> Usage:
    """The usage that an object says, with the tier that was really used (which the answer says, not the request).

    `breakdown` says what each of several models used. `text` is the JSON that held the usage; where it is gone, `cost`
    is what the provider reported in it.
    """
    if type(usage) is not dict and not isinstance(
        usage, Mapping
    ):  # the abstract check alone takes a third of a µs
        return reading.nothing(
            model,
            raw=usage,
            consistency="ok" if usage is None else "inconsistent",
            service_tier=service_tier,
            **more,
        )
    read = read_openai if "prompt_tokens" in usage else read_usage
    counted = read(usage, reading.provider, text_or_none(model) or reading.facts.model or "")
    raw: Mapping[str, Any] = usage
    if breakdown is not None:
        counted, raw = with_breakdown(counted, breakdown, reading.provider, usage)
    return usage_of_counted(
        reading, counted, usage, raw, model, service_tier, final=final, text=text, cost=cost, **more
    )


def usage_of_counted(
    reading: Reading,
    counted: Counted,
    usage: Mapping[str, Any],
    raw: Any,
    model: Any,
    service_tier: Any,
    *,
    final: bool = True,
    text: bytes = b"",
    cost: Decimal | None = None,
    **more: Any,
) -> Usage:
    """The usage where its object has been counted already: with the tier, the cost and whose key paid."""
    if cost is None:
        cost = reported_cost(usage, text)
    return reading.reported(
        counted,
        raw,
        model,
        source="reported" if final else "reported_partial",
        service_tier=text_or_none(service_tier) or _tier_of(usage),
        byok=usage.get("is_byok") is True,
        reported_cost=cost if cost or final else None,  # an interim chunk says 0 for not yet
        **more,
    )


def _tier_of(usage: Mapping[str, Any]) -> Any:
    """Mistral says it in the usage; Google's OpenAI-compatible endpoint in a corner of it."""
    tier = usage.get("service_tier")
    if tier is None and "extra_properties" in usage:
        google = usage["extra_properties"]
        google = google.get("google") if isinstance(google, dict) else None
        tier = google.get("traffic_type") if isinstance(google, dict) else None
    return tier


def _usage_and_breakdown(fields: Body | _Chunk) -> tuple[Any, Any]:
    """Groq has a place of its own for both, which it uses in streams whether usage was asked for or not."""
    usage, breakdown, groq = fields.usage, fields.usage_breakdown, fields.x_groq
    if isinstance(groq, dict):
        usage = groq.get("usage") if usage is None else usage
        breakdown = groq.get("usage_breakdown") if breakdown is None else breakdown
    return usage, breakdown


class ChatStream:
    """Some servers send running totals on every chunk, some only at the end: the latest value of each field holds."""

    interesting: tuple[bytes, ...] = (b'"usage"',)
    boring: tuple[bytes, ...] = (b'"usage":null', b'"usage": null')
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._usage: Mapping[str, Any] | None = None
        self._breakdown: Any = None
        self._cost: Decimal | None = None
        self._model: str | None = None
        self._service_tier: str | None = None
        self._began = False  # an answer has been seen, not just an error or noise
        self._final = False

    def on_event(self, event: bytes, data: bytes) -> bool:
        if is_done(data):
            self._final = True
            return True
        try:
            chunk = _decode_chunk(data)
        except UNREADABLE:
            return False
        self._began = self._began or isinstance(chunk.choices, list)
        self._model = text_or_none(chunk.model) or self._model
        self._service_tier = text_or_none(chunk.service_tier) or self._service_tier
        usage, breakdown = _usage_and_breakdown(chunk)
        if isinstance(usage, dict):
            self._usage = merge_latest(self._usage, usage)
            self._final = self._final or chunk.choices == []
            cost = reported_cost(usage, data)
            self._cost = self._cost if cost is None else cost
        self._breakdown = self._breakdown if breakdown is None else breakdown
        return False

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        return is_done(data)

    def usage(self, events_seen: int, complete: bool) -> Usage:
        if self._usage is None:
            seen = events_seen if self._began else 0
            return self._reading.estimated(self._model, seen, more={"service_tier": self._service_tier})
        final = self._final or complete
        return usage_of_fields(
            self._reading, self._usage, self._model, self._service_tier,
            final=final, breakdown=self._breakdown, cost=self._cost,
        )  # fmt: skip
