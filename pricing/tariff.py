"""A tariff: all rates for one name in one book while none of them begins or ends, and the prices they make for a call.

Which rate wins does not depend on numbers of tokens but on a handful of circumstances, so the prices for each combination
are made once, when the first such call comes, and kept. Only what some rate asks for tells two calls apart: however many
tiers and regions providers may name, a tariff keeps no more than its rates can make different.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import NamedTuple

import msgspec

from pricing.conditions import EXACT, Conditions, Match
from pricing.hours import Hours, zone_of
from pricing.money import EXACT as EXACTLY
from pricing.units import (
    IN_UNCACHED,
    OUT_VISIBLE,
    REQUEST,
    TOKEN_BUCKETS,
    UNITS,
    Side,
    rate_candidates,
    side_of,
)
from pricing.usage import Usage

_KNOWN = frozenset((*TOKEN_BUCKETS, *UNITS))
_KEPT_MAX = (
    256  # combinations kept by the words of a call, before they are reduced to those that rates ask for
)

Said = tuple[
    str | None, str | None, str | None, bool, bool, int
]  # tier, speed, region, batch, byok, hours (bits)
_NOTHING_SAID: Said = (None, None, None, False, False, 0)
Zones = tuple[tuple[tzinfo, tuple[tuple[int, Hours], ...]], ...]  # each with its hours and the bit of each


class Rate(Conditions, frozen=True, kw_only=True):
    """The price of one bucket of one model in [effective_from, effective_to), in one price book, under its conditions."""

    id: int
    book: str
    provider: str
    model: str  # a name, or with `match` "prefix" its beginning
    bucket: str
    price: Decimal  # of `per` of them: 2.50 per 1,000,000 tokens
    per: int
    currency: str
    effective_from: datetime
    effective_to: datetime | None = None  # None: until further notice
    match: Match = EXACT
    revision: int = 0  # of rates of one line that hold at the same time the one with the highest counts
    withdrawn: bool = False  # where it counts, its line has no price

    @property
    def unit_price(self) -> Decimal:
        """Price of a single one, exact."""
        return EXACTLY.divide(self.price, Decimal(self.per))

    def holds_at(self, instant: datetime) -> bool:
        """Whether `instant` lies in its span; its hours of the week are another matter."""
        return self.effective_from <= instant and (self.effective_to is None or instant < self.effective_to)


def counting(rates: Iterable[Rate]) -> list[Rate]:
    """Of rates for one name those that count: of each line the latest revision, unless that withdraws its price."""
    rates = list(rates)
    if not any(rate.revision for rate in rates):
        return rates
    lines = {
        _line(rate): rate for rate in sorted(rates, key=lambda rate: (rate.revision, rate.effective_from))
    }
    return [rate for rate in lines.values() if not rate.withdrawn]


def _line(rate: Rate) -> tuple[object, ...]:
    return (rate.bucket, *(getattr(rate, name) for name in Conditions.__struct_fields__))


class BucketPrice(NamedTuple):
    """What prices one bucket."""

    unit_price: Decimal  # of a single one
    rate_id: int
    side: Side


class ModelPrices(msgspec.Struct, frozen=True, gc=False):
    """The prices of one name for calls of one kind."""

    currency: str
    own: tuple[
        dict[str, BucketPrice], ...
    ]  # by bucket, of the name's own rates first, then of what is less specific
    buckets: dict[
        str, BucketPrice
    ]  # those looked up so far, fall-backs included; known names only, so it stays small
    unit_price_input: Decimal | None  # base rate of one token; None where there is none
    unit_price_output: Decimal | None
    request: BucketPrice | None  # of the call itself
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
        if found is None:
            names = rate_candidates(bucket)
            found = next((own[name] for own in self.own for name in names if name in own), None)
            if found is not None and bucket in _KNOWN:
                self.buckets[bucket] = found
        return found


class Tariff:
    """The rates for one name while none of them begins or ends. Answers with the prices for a call.

    Its rates are put in order when the first call comes, since most tariffs are of the past and never asked.
    """

    __slots__ = (
        "_always",
        "_by_zone",
        "_free_with_own_key",
        "_kept",
        "_levels",
        "_rates",
        "_regions",
        "_speeds",
        "_tiers",
    )

    _levels: tuple[tuple[tuple[Rate, BucketPrice], ...], ...]
    _tiers: frozenset[str]
    _speeds: frozenset[str]
    _regions: frozenset[str]

    def __init__(self, levels: Sequence[Sequence[Rate]], *, free_with_own_key: bool) -> None:
        """`levels`: the rates of the name itself, then those of what it is another name for, then those of prefixes.

        `free_with_own_key`: a call that the caller's own key pays for costs nothing but what rates for such calls say.
        """
        self._rates = levels
        self._free_with_own_key = free_with_own_key
        self._kept: dict[Said, ModelPrices] = {}
        self._always: ModelPrices | None = None  # the prices, where no circumstance changes one
        self._by_zone: Zones | None = None  # None: not yet in order

    @property
    def plain(self) -> ModelPrices:
        """The prices of a call of which nothing special is said, at an instant that no hours hold."""
        self._put_in_order()
        return self._prices(_NOTHING_SAID)

    @property
    def combinations_kept(self) -> int:
        """For how many combinations of circumstances prices are kept."""
        return len(self._kept)

    def prices_of(self, call: Usage, at: datetime) -> ModelPrices:
        """The prices for `call` at the instant `at`."""
        if self._always is not None and not (call.byok and self._free_with_own_key):
            return self._always
        zones = self._by_zone
        if zones is None:
            zones = self._put_in_order()
        hours = _hours_at(zones, at) if zones else 0
        said = (call.service_tier, call.speed, call.region, call.batch, call.byok, hours)
        found = self._kept.get(said)
        return self._prices(said) if found is None else found

    def _put_in_order(self) -> Zones:
        """What does not depend on the call. Two threads may do it at once: both come to the same."""
        if self._by_zone is not None:
            return self._by_zone
        rates = [rate for level in self._rates for rate in level]
        self._levels = tuple(
            tuple((rate, _price(rate)) for rate in sorted(level, key=_rank)) for level in self._rates
        )
        self._tiers = frozenset(rate.service_tier for rate in rates)
        self._speeds = frozenset(rate.speed for rate in rates)
        self._regions = frozenset(rate.region for rate in rates)
        zones = _by_zone({hours for rate in rates if (hours := rate.hours) is not None})
        if not any(rate.precedence[0] for rate in rates):
            self._always = self._make(_NOTHING_SAID, zones)
        self._by_zone = zones  # last: who sees it sees all the others
        return zones

    def _prices(self, said: Said) -> ModelPrices:
        """The slow way: reduce what was said to what rates ask for, and make its prices unless they are there."""
        tier, speed, region, batch, byok, hours = said
        known = (
            tier if tier in self._tiers else None, speed if speed in self._speeds else None,
            region if region in self._regions else None, batch, byok, hours,
        )  # fmt: skip
        prices = self._kept.get(known)
        if prices is None:
            prices = self._kept[known] = self._make(known, self._by_zone or ())
        if len(self._kept) < _KEPT_MAX:
            self._kept[said] = prices
        return prices

    def _make(self, said: Said, zones: Zones) -> ModelPrices:
        holding = {hours for _, found in zones for bit, hours in found if bit & said[5]}
        levels = [[pair for pair in level if self._fits(pair[0], said, holding)] for level in self._levels]
        thresholds = sorted({rate.input_above for level in levels for rate, _ in level} - {0})
        tiers = tuple((above, _model_prices(levels, above, ())) for above in reversed(thresholds))
        return _model_prices(levels, 0, tiers)

    def _fits(self, rate: Rate, said: Said, holding: set[Hours]) -> bool:
        tier, speed, region, batch, byok, _ = said
        if (rate.batch and not batch) or (rate.byok and not byok):
            return False
        if byok and self._free_with_own_key and not rate.byok:
            return False
        asked = ((rate.service_tier, tier), (rate.speed, speed), (rate.region, region))
        if any(word and word != found for word, found in asked):
            return False
        hours = rate.hours
        return hours is None or hours in holding


def _rank(rate: Rate) -> tuple[object, ...]:
    """The last in this order that fits a call prices it."""
    return (rate.precedence, rate.input_above, rate.effective_from, rate.id)


def _price(rate: Rate) -> BucketPrice:
    return BucketPrice(rate.unit_price, rate.id, side_of(rate.bucket))


def _by_zone(hours: set[Hours]) -> Zones:
    """Each zone with its hours and the bit by which each is known."""
    zones: dict[str, list[tuple[int, Hours]]] = {}
    for place, found in enumerate(sorted(hours, key=str)):
        zones.setdefault(found.zone, []).append((1 << place, found))
    return tuple((zone_of(zone), tuple(found)) for zone, found in zones.items())


def _hours_at(zones: Zones, at: datetime) -> int:
    """The bits of the hours that hold at an instant."""
    bits = 0
    for zone, found in zones:
        local = at.astimezone(zone)
        for bit, hours in found:
            if hours.hold_locally(local):
                bits |= bit
    return bits


def _model_prices(
    levels: Sequence[Sequence[tuple[Rate, BucketPrice]]],
    above: int,
    tiers: tuple[tuple[int, ModelPrices], ...],
) -> ModelPrices:
    """The prices of a call that reads more than `above` tokens, or with 0 of one that no threshold holds for."""
    own = tuple(
        {rate.bucket: price for rate, price in level if rate.input_above <= above} for level in levels
    )

    def base(bucket: str) -> Decimal | None:
        return next((prices[bucket].unit_price for prices in own if bucket in prices), None)

    return ModelPrices(
        currency=next((rate.currency for level in levels for rate, _ in level), ""),
        own=own, buckets={}, unit_price_input=base(IN_UNCACHED), unit_price_output=base(OUT_VISIBLE),
        request=next((prices[REQUEST] for prices in own if REQUEST in prices), None), tiers=tiers,
    )  # fmt: skip
