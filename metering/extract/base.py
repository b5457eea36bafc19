"""What every wire format offers to the tap and the middleware, and the few lines that all formats share."""

import json
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Protocol, TypeVar

import msgspec

from metering.estimate import RequestFacts
from metering.extract.counts import Counted, text_or_none
from metering.extract.tiers import normal_tier, normal_word
from metering.problem import Native
from pricing.usage import Source, UnknownSide, Usage

UNREADABLE = (msgspec.MsgspecError, ValueError, RecursionError)
OUTPUT_TOKENS_PER_EVENT = 1  # what providers send in practice; used only where they did not say

T = TypeVar("T")
_ORDINARY = (None, False)  # tier, and whether it is a batch
_NOTHING_MORE: Mapping[str, Any] = {}


class StreamReader(Protocol):
    """Reads the events of one stream. It sees every event that holds one of its markers or `[DONE]`, and the first one.

    A marker is a byte string that each event worth decoding contains; it may occur in others as well.
    """

    interesting: tuple[bytes, ...]
    boring: tuple[bytes, ...]  # forms of the first marker that carry nothing, such as `"usage":null`
    quiet: frozenset[bytes]  # first lines of events that never matter, such as `event: ping`

    def on_event(self, event: bytes, data: bytes) -> bool:
        """Takes one event in. True when it is the terminal one of its format. May see the same event twice. Never raises."""

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        """The same question about an event, without taking it in. Never raises."""

    def usage(self, events_seen: int, complete: bool) -> Usage:
        """What is known once the stream is over, or broken off (`complete` False). `events_seen` counts data lines."""


class WireFormat(Protocol):
    """One provider protocol: how to read an answer in it, whole or streamed."""

    name: str
    version: int
    extractor: str  # "name/version", as it is kept on every event
    has_output: bool  # False where no answer has output tokens

    @property
    def native_errors(self) -> Native | None:
        """Whose error object our refusals carry there."""

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        """The usage of a whole body; source `none` where it holds none. Never raises, whatever it is handed."""

    def open_stream(self, facts: RequestFacts, provider: str) -> StreamReader: ...


class Reading:
    """The circumstances that every usage of one call shares."""

    __slots__ = ("extractor", "facts", "provider")

    def __init__(self, extractor: str, facts: RequestFacts, provider: str) -> None:
        self.extractor, self.facts, self.provider = extractor, facts, provider

    def reported(
        self,
        counted: Counted,
        raw: Any,
        model: Any,
        *,
        source: Source = "reported",
        service_tier: Any = None,
        speed: Any = None,
        region: Any = None,
        batch: bool = False,
        byok: bool = False,
        reported_cost: Decimal | None = None,
        **more: Any,
    ) -> Usage:
        """The usage that a provider reported. Where it holds no counter at all, it is none, with the evidence kept.

        Tier, speed and region are taken as the response says them and brought into the form in which rates name them.
        """
        served = text_or_none(model)
        if not counted.known:
            source = "none"
        elif counted.unknown_sides:
            source = "reported_partial"
        tier, is_batch = (None, False) if service_tier is None else normal_tier(service_tier)
        known = source != "none"
        return Usage(
            buckets=counted.buckets if known else {},
            provider=self.provider_of(served),
            model_requested=self.facts.model,
            model_served=served,
            parts=counted.parts if known else (),
            service_tier=tier,
            speed=None if speed is None else normal_word(speed),
            region=None if region is None else normal_word(region),
            batch=batch or is_batch,
            byok=byok,
            source=source,
            consistency=counted.consistency,
            rules=counted.rules or _rule_of(counted.consistency),
            raw=raw,
            extractor=self.extractor,
            unknown_sides=counted.unknown_sides,
            reported_cost=reported_cost,
            **more,
        )

    def plain(
        self,
        buckets: dict[str, Any],
        raw: Any,
        model: Any,
        service_tier: Any,
        *,
        source: Source = "reported",
        speed: Any = None,
        region: Any = None,
        batch: bool = False,
    ) -> Usage:
        """`reported` for what nothing is noted of: both sides are told, by one model, in the ordinary way.

        This is nearly every answer, so its fields go by position, which costs a fifth of going by name.
        """
        served = model if model and type(model) is str else None
        tier, is_batch = _ORDINARY if service_tier is None else normal_tier(service_tier)
        if speed is not None:
            speed = normal_word(speed)
        if region is not None:
            region = normal_word(region)
        return Usage(
            buckets, provider_of(self.provider, served or self.facts.model), self.facts.model, served, (), tier, speed, region,
            batch or is_batch, False, source, "ok", (), (), raw, self.extractor,
        )  # fmt: skip

    def nothing(
        self,
        model: Any = None,
        *,
        raw: Any = None,
        consistency: str = "ok",
        service_tier: Any = None,
        batch: bool = False,
        **more: Any,
    ) -> Usage:
        """No usage was found. That is unknown, and never zero."""
        served = text_or_none(model)
        tier, is_batch = normal_tier(service_tier)
        return Usage(
            buckets={}, provider=self.provider_of(served), model_requested=self.facts.model, model_served=served,
            service_tier=tier, batch=batch or is_batch, source="none", consistency=consistency, raw=raw, extractor=self.extractor,
            **more,
        )  # fmt: skip

    def estimated(self, model: Any, events_seen: int, *, more: Mapping[str, Any] = _NOTHING_MORE) -> Usage:
        """A stream that never said what it used: the request's own estimate, and one output token per event."""
        nothing = self.nothing(model, **more)
        if not events_seen:
            return nothing
        buckets = {"out_visible": events_seen * OUTPUT_TOKENS_PER_EVENT}
        unknown: tuple[UnknownSide, ...] = ("input",)
        if self.facts.readable:
            buckets["in_uncached"], unknown = self.facts.tokens_input_estimate, ()
        return msgspec.structs.replace(nothing, buckets=buckets, source="estimated", unknown_sides=unknown)

    def provider_of(self, served: str | None) -> str:
        """The route's provider, but for the built-in models, which answer on every provider's route."""
        return provider_of(self.provider, served or self.facts.model)


def provider_of(provider: str, model: str | None) -> str:
    """Who serves `model` on a route of `provider`: the built-in models answer on every provider's route."""
    return "demo" if model and model[:5] == "demo-" else provider


def _rule_of(consistency: str) -> tuple[str, ...]:
    """The rule that a summary names, where the reader of a shape notes nothing else."""
    return (consistency.removeprefix("repaired:"),) if consistency.startswith("repaired:") else ()


def decode_body(decode: Callable[[bytes], T], shape: type[T], body: bytes) -> T | None:
    """The fields that `shape` names, or None where the body is no such JSON.

    The strict decoder is quick; the lenient second try takes what other JSON writers produce (NaN, lone surrogates, a
    byte order mark), which clients read without complaint and which must not cost us the usage beside it.
    """
    try:
        return decode(body)
    except UNREADABLE:
        pass
    try:
        return msgspec.convert(json.loads(body), shape)
    except UNREADABLE:
        return None


def is_done(data: bytes) -> bool:
    """Whether this is the `[DONE]` of OpenAI-like streams. No JSON document begins like it."""
    return data.lstrip().startswith(b"[DONE]")


def kind_of(event: bytes, named: Any) -> str:
    """The type of an event: what its data says, else its name on the wire."""
    return named if isinstance(named, str) else event.decode("latin-1")


def merge_latest(latest: Mapping[str, Any] | None, update: Mapping[str, Any]) -> Mapping[str, Any]:
    """Streamed usage is cumulative: for each field the latest value that is not null holds. Nothing is ever added."""
    if latest is None:
        return update
    merged = dict(latest)
    for key, value in update.items():
        if value is None:
            merged.setdefault(key, None)
        elif isinstance(value, dict) and isinstance(merged.get(key), dict):
            merged[key] = merge_latest(merged[key], value)
        else:
            merged[key] = value
    return merged
