"""The bound of a call × the highest rates that can apply to it = the most that the call can cost."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from itertools import product

from metering.hold_bound.bound import HoldBound
from pricing.money import EXACT, round_amount
from pricing.pricelist import ModelPrices, RateCard
from pricing.units import CACHE_WRITE
from pricing.usage import Usage

_READS = ("in_uncached", "in_tool_prompt", "in_cache_read")
_WRITES = ("out_visible", "out_reasoning", "out_citation")
_SOLD_BY = frozenset({"image", "audio_second", "search_unit"})  # models whose tokens may have no price

_ZERO = Decimal(0)
_times, _plus = EXACT.multiply, EXACT.add


def hold_amount(
    card: RateCard, bound: HoldBound, *, book: str, currency: str, provider: str, model: str, at: datetime
) -> Decimal | None:
    """The most that a call with this bound costs by the rates of `book` at `at`, with 12 places.

    None where the call has no bound, or something of it no price in `currency`. Of what the request leaves to the provider the dearest
    counts: a tier that it asks for or the ordinary one, any threshold of input that it may pass, tokens read as written
    to the cache, tokens written as reasoning.
    """
    if bound.tokens_input is None or bound.tokens_output is None:
        return None
    tariff = card.tariff_for(book, provider, model, at)
    if tariff is None:
        return None
    tokens = sum(bound.tokens_input.values())
    highest = _ZERO
    for tier, speed, region in product(
        *({None, said} for said in (bound.service_tier, bound.speed, bound.region))
    ):
        prices = tariff.prices_of(Usage(buckets={}, service_tier=tier, speed=speed, region=region), at)
        if currency and prices.currency not in ("", currency):
            return None
        for reached in (prices, *(long for above, long in prices.tiers if tokens > above)):
            amount = _amount(reached, bound)
            if amount is None:
                return None
            highest = max(highest, amount)
    return round_amount(highest)


def _amount(prices: ModelPrices, bound: HoldBound) -> Decimal | None:
    """The most by these prices, exact; None where a side has none."""
    exact = prices.request.unit_price if prices.request is not None else _ZERO
    by_the_unit = False
    for unit, number in bound.units.items():
        price = prices.price(unit)
        if price is not None:
            exact = _plus(exact, _times(price.unit_price, number))
            by_the_unit |= unit in _SOLD_BY
    reads = (*_READS, *(CACHE_WRITE + ttl for ttl in bound.cache_writes))
    sides = [(tokens, _names(reads, (kind,))) for kind, tokens in (bound.tokens_input or {}).items()]
    sides.append((bound.tokens_output or 0, _names(_WRITES, bound.writes)))
    for tokens, buckets in sides:
        if tokens:
            price_of_one = _highest(prices, buckets)
            if price_of_one is not None:
                exact = _plus(exact, _times(price_of_one, tokens))
            elif not by_the_unit:
                return None
    return exact


def _names(buckets: Iterable[str], modalities: Iterable[str]) -> list[str]:
    return [f"{bucket}.{modality}" if modality else bucket for modality in modalities for bucket in buckets]


def _highest(prices: ModelPrices, buckets: list[str]) -> Decimal | None:
    found = [price.unit_price for bucket in buckets if (price := prices.price(bucket)) is not None]
    return max(found) if found else None
