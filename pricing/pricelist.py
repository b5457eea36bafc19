"""The rate card: every rate of every price book, compiled for look-up, immutable and swapped whole.

Compiling does all that does not depend on the call: a model's rates are cut into intervals without a change, and in each
one every bucket already knows the rate that prices it, fall-backs included. A call is then two look-ups and a bisection.
"""

import re
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple, Self

import msgspec

from pricing.money import EXACT
from pricing.units import IN_UNCACHED, OUT_VISIBLE, TOKEN_BUCKETS, Side, rate_candidates, side_of

# In an alias: stands for the date of a snapshot, 20250929 or 2025-09-29.
DATE = "{date}"
_DATED = re.compile(
    r"(?<=[-@])20\d\d(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]))$"
)

Aliases = Mapping[tuple[str, str], str]  # (provider, alias) -> model


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """The price of one bucket of one model in [effective_from, effective_to), in one price book."""

    id: int
    book: str
    provider: str
    model: str
    bucket: str
    price: Decimal  # of `per` of them: 2.50 per 1,000,000 tokens
    per: int
    currency: str
    effective_from: datetime
    effective_to: datetime | None = None  # None: until further notice
    input_above: int = 0  # holds only for calls that read more tokens than this; then for all their tokens

    @property
    def unit_price(self) -> Decimal:
        """Price of a single one, exact."""
        return EXACT.divide(self.price, Decimal(self.per))


class BucketPrice(NamedTuple):
    """What prices one bucket."""

    unit_price: Decimal  # of a single one
    rate_id: int
    side: Side


class ModelPrices(msgspec.Struct, frozen=True, gc=False):
    """All prices of one model in one book while none of them changes."""

    currency: str
    own: dict[str, BucketPrice]  # by bucket, only the rates as they are
    buckets: dict[str, BucketPrice]  # by bucket, fall-backs included, for every bucket known by name
    unit_price_input: Decimal | None  # base rate of one token; None where the model has none
    unit_price_output: Decimal | None
    tiers: tuple[
        tuple[int, "ModelPrices"], ...
    ] = ()  # (tokens read above which it holds, prices), the highest first

    def for_input(self, tokens: int) -> "ModelPrices":
        """The prices of a call that reads `tokens`: a long context is billed at its tier from the first token on."""
        for above, prices in self.tiers:
            if tokens > above:
                return prices
        return self

    def price(self, bucket: str) -> BucketPrice | None:
        """What prices `bucket`, also one that was not known by name (a new cache time to live); None: no price."""
        found = self.buckets.get(bucket)
        if found is not None:
            return found
        return next((self.own[name] for name in rate_candidates(bucket) if name in self.own), None)


class _History(msgspec.Struct, frozen=True):
    """The prices of one model over time: `prices[i]` holds from `starts[i]` to the next start; None: no price."""

    starts: list[datetime]
    prices: list[ModelPrices | None]

    def at(self, instant: datetime) -> ModelPrices | None:
        index = bisect_right(self.starts, instant) - 1
        return self.prices[index] if index >= 0 else None


class RateCard:
    """All rates, compiled. Never changes: new rates make a new card."""

    __slots__ = ("_histories", "_provider_of", "rates", "version")

    def __init__(
        self,
        histories: dict[tuple[str, str, str], _History],
        provider_of: dict[str, str],
        rates: int,
        version: int,
    ) -> None:
        self._histories = histories  # by (book, provider, model or alias)
        self._provider_of = provider_of  # by model or alias, where only one provider has it
        self.rates = rates  # how many are in it
        self.version = version  # of the catalogue

    @classmethod
    def empty(cls) -> Self:
        """A card without any rate: everything is unpriced."""
        return cls({}, {}, 0, 0)

    @classmethod
    def compile(cls, rates: Iterable[Rate], aliases: Aliases, version: int) -> Self:
        """The card of these rates. An alias may end in `{date}` for any dated snapshot; an exact name wins over it."""
        by_model: dict[tuple[str, str, str], list[Rate]] = defaultdict(list)
        count = 0
        for rate in rates:
            by_model[rate.book, rate.provider, rate.model].append(rate)
            count += 1
        histories = {key: _history(found) for key, found in by_model.items()}
        books = {book for book, _, _ in histories}
        for (provider, alias), model in aliases.items():
            for book in books:
                history = histories.get((book, provider, model))
                if history is not None:
                    histories.setdefault((book, provider, alias), history)
        return cls(histories, _unique_providers(histories), count, version)

    def prices_for(self, book: str, provider: str, model: str, at: datetime) -> ModelPrices | None:
        """The prices of `model` at the instant `at`; None when none is known. With provider "" the name must be unique."""
        history = self._histories.get((book, provider, model))
        if history is None:
            history = self._find(book, provider, model)
            if history is None:
                return None
        return history.at(at)

    def _find(self, book: str, provider: str, model: str) -> _History | None:
        """The slow way: a dated snapshot, or a provider that nobody named."""
        for name in (model, _DATED.sub(DATE, model)):
            history = self._histories.get((book, provider or self._provider_of.get(name, ""), name))
            if history is not None:
                return history
        return None


class CurrentCard:
    """The card that a process rates by. One instance a process, made by the wiring and passed in."""

    __slots__ = ("card", "loaded_at")

    def __init__(self, card: RateCard | None = None) -> None:
        self.card = card or RateCard.empty()  # replaced whole: a reader has the old card or the new one
        self.loaded_at: float | None = None  # monotonic seconds at which it was last known to be the newest

    @property
    def age_s(self) -> float | None:
        """Seconds since the card was last known to be the newest; None before the first load."""
        return None if self.loaded_at is None else time.monotonic() - self.loaded_at


def _history(rates: list[Rate]) -> _History:
    """Cut the rates of one model and book at every instant at which one of them begins or ends."""
    ordered = sorted(rates, key=lambda rate: (rate.effective_from, rate.id))
    ends = (rate.effective_to for rate in ordered)
    starts = sorted(
        {rate.effective_from.astimezone(UTC) for rate in ordered}
        | {end.astimezone(UTC) for end in ends if end}
    )
    return _History(starts, [_prices_at(ordered, start) for start in starts])


def _prices_at(rates: list[Rate], instant: datetime) -> ModelPrices | None:
    """The prices in force at `instant`; of two rates for the same bucket the one that began later."""
    valid = [
        rate
        for rate in rates
        if rate.effective_from <= instant and (not rate.effective_to or instant < rate.effective_to)
    ]
    if not valid:
        return None
    base = {rate.bucket: rate for rate in valid if not rate.input_above}
    tiers = []
    current = dict(base)
    for above in sorted({rate.input_above for rate in valid} - {0}):
        current.update({rate.bucket: rate for rate in valid if rate.input_above == above})
        tiers.append((above, _model_prices(current, ())))
    return _model_prices(base, tuple(reversed(tiers)))


def _model_prices(rates: Mapping[str, Rate], tiers: tuple[tuple[int, ModelPrices], ...]) -> ModelPrices:
    own = {bucket: BucketPrice(rate.unit_price, rate.id, side_of(bucket)) for bucket, rate in rates.items()}
    buckets = dict(own)
    for bucket in TOKEN_BUCKETS:
        name = next((name for name in rate_candidates(bucket) if name in own), None)
        if name is not None:
            buckets[bucket] = own[name]
    base_in, base_out = own.get(IN_UNCACHED), own.get(OUT_VISIBLE)
    return ModelPrices(
        currency=next((rate.currency for rate in rates.values()), ""),
        own=own,
        buckets=buckets,
        unit_price_input=base_in.unit_price if base_in else None,
        unit_price_output=base_out.unit_price if base_out else None,
        tiers=tiers,
    )


def _unique_providers(names: Iterable[tuple[str, str, str]]) -> dict[str, str]:
    providers: dict[str, set[str]] = defaultdict(set)
    for _, provider, name in names:
        providers[name].add(provider)
    return {name: next(iter(found)) for name, found in providers.items() if len(found) == 1}
