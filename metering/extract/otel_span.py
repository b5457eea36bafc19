"""OpenTelemetry's GenAI spans, as a way to hand in usage that somebody else measured.

The conventions say that the input counts cached tokens and the output reasoning. Sources differ: the numbers decide where
they can, then a profile of the source, then the conventions.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body
from metering.extract.counts import UNKNOWN_TTL, Counted, Counters, put, text_or_none
from metering.problem import Native
from pricing.usage import UnknownSide, Usage

# By what is counted, the names that it has and had, the current one first.
_INPUT = (
    "gen_ai.usage.input_tokens",
    "gen_ai.usage.prompt_tokens",
    "llm.usage.prompt_tokens",
    "llm.token_count.prompt",
)
_OUTPUT = (
    "gen_ai.usage.output_tokens",
    "gen_ai.usage.completion_tokens",
    "llm.usage.completion_tokens",
    "llm.token_count.completion",
)
_TOTAL = ("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total")
_CACHE_READ = (
    "gen_ai.usage.cache_read.input_tokens",
    "gen_ai.usage.cache_read_input_tokens",
    "gen_ai.usage.input_tokens.cached",
    "gen_ai.usage.details.cache_read_tokens",
    "llm.usage.cache_read_input_tokens",
    "llm.token_count.prompt_details.cache_read",
)
_CACHE_WRITE = (
    "gen_ai.usage.cache_creation.input_tokens",
    "gen_ai.usage.cache_creation_input_tokens",
    "gen_ai.usage.input_tokens.cache_write",
    "gen_ai.usage.details.cache_write_tokens",
    "llm.usage.cache_creation_input_tokens",
    "llm.token_count.prompt_details.cache_write",
)
_REASONING = (
    "gen_ai.usage.reasoning.output_tokens",
    "gen_ai.usage.reasoning_tokens",
    "gen_ai.usage.output_tokens.reasoning",
    "gen_ai.usage.details.reasoning_tokens",
    "llm.usage.reasoning_tokens",
    "llm.token_count.completion_details.reasoning",
)
_COUNTERS = (*_INPUT, *_OUTPUT, *_TOTAL, *_CACHE_READ, *_CACHE_WRITE, *_REASONING)
_MODEL_SERVED = ("gen_ai.response.model", "llm.response.model")
_MODEL_ASKED = ("gen_ai.request.model", "llm.request.model", "llm.model_name")
_PROVIDER = ("gen_ai.provider.name", "gen_ai.system", "llm.provider")
_TIER = ("openai.response.service_tier", "gen_ai.openai.response.service_tier")
_SLUGS = {
    "aws.bedrock": "bedrock",
    "aws_bedrock": "bedrock",
    "azure.ai.openai": "azure",
    "azure.ai.inference": "azure",
    "az.ai.openai": "azure",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "gemini": "google",
    "vertex_ai": "google",
    "mistral_ai": "mistral",
    "x_ai": "xai",
}


class SpanProfile(msgspec.Struct, frozen=True):
    """Where a source differs from the conventions, and the numbers of a span do not show it."""

    cache_beside: bool = False  # its input does not count cached tokens
    reasoning_beside: bool = False  # its output does not count reasoning


CONVENTIONS = SpanProfile()
# By the name of the instrumentation scope, or the provider whose own counters a source is likely to have passed on. The
# latter is asked only where the cache cannot be inside, being larger than the input.
PROFILES: dict[str, SpanProfile] = {}
_CACHE_BESIDE_AT = frozenset({"anthropic", "bedrock"})


class OtelSpan:
    """One span as JSON: OTLP's, an SDK's, or its attributes alone."""

    name = "otel_span"
    version = 1
    extractor = "otel_span/1"
    native_errors: Native | None = None
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        span = decode_body(_decode, dict, body)
        if not isinstance(span, dict):
            return Reading(self.extractor, facts, provider).nothing()
        return otel_span(span, facts=facts, provider=provider)

    def open_stream(self, facts: RequestFacts, provider: str) -> "SpanStream":
        return SpanStream(facts, provider)


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def otel_span(
    span: Mapping[str, Any],
    *,
    facts: RequestFacts | None = None,
    provider: str = "",
    profiles: Mapping[str, SpanProfile] = PROFILES,
) -> Usage:
    """The usage that a span tells. `profiles` by instrumentation scope; `provider` where the span names none. Never raises."""
    attributes = _attributes_of(span)
    said = _text(attributes, _PROVIDER).lower()
    slug = _SLUGS.get(said, said) or provider
    facts = facts or RequestFacts()
    asked = _text(attributes, _MODEL_ASKED) or facts.model
    reading = Reading(OtelSpan.extractor, msgspec.structs.replace(facts, model=asked), slug)
    model = _text(attributes, _MODEL_SERVED) or None
    raw = {name: attributes[name] for name in _COUNTERS if name in attributes}
    if not raw:
        return reading.nothing(model)
    counted = _read(raw, profiles.get(_scope_of(span), CONVENTIONS), slug)
    return reading.reported(counted, raw, model, service_tier=_text(attributes, _TIER))


def _read(raw: Mapping[str, Any], profile: SpanProfile, provider: str) -> Counted:
    counters = Counters()
    tokens_in, tokens_out = counters.read(raw, *_INPUT), counters.read(raw, *_OUTPUT)
    cached, written = counters.read(raw, *_CACHE_READ) or 0, counters.read(raw, *_CACHE_WRITE) or 0
    reasoning = counters.read(raw, *_REASONING) or 0
    total = counters.read(raw, *_TOTAL)
    cache = cached + written
    if tokens_in is not None and tokens_out is not None and total is not None:
        profile = _by_total(counters, total - tokens_in - tokens_out, cache, reasoning)
    elif profile is not CONVENTIONS:
        counters.repair("provider_profile")
    if (
        tokens_in is not None
        and cache > tokens_in
        and not profile.cache_beside
        and provider in _CACHE_BESIDE_AT
    ):
        profile = SpanProfile(cache_beside=True, reasoning_beside=profile.reasoning_beside)
        counters.repair("provider_profile")

    buckets: dict[str, int] = {}
    unknown: tuple[UnknownSide, ...] = ()
    if tokens_in is None:
        unknown = ("input",)
    else:
        _put_input(buckets, counters, tokens_in + cache * profile.cache_beside, cached, written)
    if tokens_out is None:
        unknown = (*unknown, "output")
    else:
        _put_output(buckets, counters, tokens_out + reasoning * profile.reasoning_beside, reasoning)
    return counters.counted(buckets, unknown)


def _by_total(counters: Counters, beside: int, cache: int, reasoning: int) -> SpanProfile:
    """What stands beside the headline counters, told by what the total counts beyond them."""
    if beside == 0:
        return CONVENTIONS
    for cache_beside, reasoning_beside in ((False, True), (True, False), (True, True)):
        if beside == cache * cache_beside + reasoning * reasoning_beside:
            if cache_beside:
                counters.repair("cache_additive")
            if reasoning_beside:
                counters.repair("reasoning_additive")
            return SpanProfile(cache_beside, reasoning_beside)
    counters.flaw("total_unexplained")
    return CONVENTIONS


def _put_input(buckets: dict[str, int], counters: Counters, whole: int, cached: int, written: int) -> None:
    if cached + written > whole:
        counters.flaw("cache_exceeds_input")
    cached = min(cached, whole)
    written = min(written, whole - cached)
    if whole > cached + written or not whole:
        buckets["in_uncached"] = whole - cached - written
    put(buckets, "in_cache_read", cached)
    put(buckets, UNKNOWN_TTL, written)


def _put_output(buckets: dict[str, int], counters: Counters, whole: int, reasoning: int) -> None:
    if reasoning > whole:
        counters.flaw("reasoning_exceeds_output")
    reasoning = min(reasoning, whole)
    if whole > reasoning or not whole:
        buckets["out_visible"] = whole - reasoning
    put(buckets, "out_reasoning", reasoning)


def _attributes_of(span: Mapping[str, Any]) -> Mapping[str, Any]:
    """Attributes by name, however they are written: as an object, as OTLP's list, or lying open."""
    attributes = span.get("attributes")
    if isinstance(attributes, list):
        return {
            item["key"]: _value_of(item.get("value"))
            for item in attributes
            if isinstance(item, dict) and isinstance(item.get("key"), str)
        }
    return attributes if isinstance(attributes, dict) else span


def _value_of(value: Any) -> Any:
    """OTLP's JSON names the type of a value, and writes integers of 64 bits as text."""
    if not isinstance(value, dict):
        return value
    number = value.get("intValue")
    if isinstance(number, str):
        return int(number) if number.isascii() and number.isdigit() and len(number) < 20 else number
    return next((value[name] for name in ("intValue", "doubleValue", "stringValue") if name in value), None)


def _text(attributes: Mapping[str, Any], names: tuple[str, ...]) -> str:
    return next((text for name in names if (text := text_or_none(attributes.get(name)))), "")


def _scope_of(span: Mapping[str, Any]) -> str:
    for name in ("scope", "instrumentation_scope", "instrumentationScope"):
        scope = span.get(name)
        if isinstance(scope, dict):
            return text_or_none(scope.get("name")) or ""
    return text_or_none(_attributes_of(span).get("otel.scope.name")) or ""


class SpanStream:
    """Spans are no stream; where they come as one, the last that tells anything holds."""

    interesting: tuple[bytes, ...] = (b"gen_ai.", b"llm.")
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, facts: RequestFacts, provider: str) -> None:
        self._facts, self._provider = facts, provider
        self._usage = Reading(OtelSpan.extractor, facts, provider).nothing()

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            usage = otel_span(_decode(data), facts=self._facts, provider=self._provider)
        except UNREADABLE:
            return False
        if usage.source != "none":
            self._usage = usage
        return False

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        return self._usage
