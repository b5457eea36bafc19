"""Our rating beside genai-prices' own, over its whole catalogue: each difference has a reason that is listed here.

The rates are those that the catalogue states, read as the comparison of catalogues reads them; so both the reading and the
rating are compared, by somebody else's arithmetic.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

import genai_prices
import msgspec
import pytest
from genai_prices import data

from pricing.money import round_amount
from pricing.pricelist import Rate, RateCard
from pricing.rating import Charge, rate_usage
from pricing.sources.genai_catalogue import PROVIDERS, read_genai_catalogue
from pricing.usage import Usage


class Case(NamedTuple):
    """One usage, as we and as they count it; and the circumstances, in our words and in theirs."""

    buckets: dict[str, int]
    counts: dict[str, int]
    said: dict[str, Any] = {}  # noqa: RUF012  (never changed)
    context: dict[str, str] = {}  # noqa: RUF012


PLAIN = Case({"in_uncached": 1_000, "out_visible": 500}, {"input_tokens": 1_000, "output_tokens": 500})
CACHED = Case(
    {"in_uncached": 300, "in_cache_read": 600, "in_cache_write_unknown": 100, "out_visible": 500},
    {"input_tokens": 1_000, "cache_read_tokens": 600, "cache_write_tokens": 100, "output_tokens": 500},
)
AT_THE_EDGE = Case(
    {"in_uncached": 200_000, "out_visible": 500}, {"input_tokens": 200_000, "output_tokens": 500}
)
LONG = Case({"in_uncached": 200_001, "out_visible": 500}, {"input_tokens": 200_001, "output_tokens": 500})
BATCH = PLAIN._replace(said={"batch": True}, context={"processing": "batch"})
FLEX = PLAIN._replace(said={"service_tier": "flex"}, context={"service_tier": "flex"})
PRIORITY = CACHED._replace(said={"service_tier": "priority"}, context={"service_tier": "priority"})
LONG_PRIORITY = LONG._replace(said={"service_tier": "priority"}, context={"service_tier": "priority"})
FAST = PLAIN._replace(said={"speed": "fast"}, context={"speed": "fast"})

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
INSTANTS = {
    NOW: (PLAIN, CACHED, AT_THE_EDGE, LONG, BATCH, FLEX, PRIORITY, LONG_PRIORITY, FAST),
    datetime(2025, 5, 1, 12, tzinfo=UTC): (PLAIN,),  # before many a price was lowered
    datetime(2026, 7, 1, 2, tzinfo=UTC): (CACHED,),  # within the windows of the day that DeepSeek has
    datetime(2026, 11, 28, 23, 30, tzinfo=UTC): (PLAIN,),  # outside them, on a Saturday
}

# Where we differ, and why that is right.
REASONS = {
    "it has no price": "genai-prices computes 0 for what it has no price for; here that is unpriced",
    "its price has no end": "a figure such as 0.08333333333333334 has more places than an amount; that price is left out",
}


def card_of(at: datetime) -> RateCard:
    rates = (
        Rate(
            id=number,
            book="cost",
            currency="USD",
            effective_from=at - timedelta(days=2),
            **msgspec.structs.asdict(price),
        )
        for number, price in enumerate(read_genai_catalogue(at).prices.values(), start=1)
    )
    return RateCard.compile(rates, {}, version=1)


def differences(at: datetime, cases: tuple[Case, ...]) -> Iterator[tuple[str, Any, Decimal, Charge]]:
    card = card_of(at)
    for provider in data.providers:
        slug = PROVIDERS.get(provider.id, provider.id)
        for model in provider.models:
            for case in cases:
                theirs = model.calc_price(
                    genai_prices.Usage(**case.counts),
                    provider,
                    genai_request_timestamp=at,
                    price_context=case.context or None,
                )
                usage = Usage(case.buckets, slug, model_served=model.id, **case.said)
                ours = rate_usage(card, usage, book="cost", at=at)
                if ours.total != theirs.total_price:
                    yield f"{provider.id}/{model.id}", theirs.model_price, theirs.total_price, ours


def reason(prices: Any, theirs: Decimal, ours: Charge) -> str | None:
    """Why a difference is right; None where no listed reason applies."""
    stated = {key: value for key, value in prices.__dict__.items() if value is not None}
    if any(isinstance(value, Decimal) and round_amount(value) != value for value in stated.values()):
        return "its price has no end"
    if ours.status == "priced" or {"input_mtok", "output_mtok"} <= set(stated):
        return None
    # what we leave unpriced is what they count as nothing
    return "it has no price" if (ours.total or Decimal(0)) == theirs else None


@pytest.mark.parametrize("at", INSTANTS, ids=str)
def test_every_difference_from_another_implementation_has_a_listed_reason(at: datetime) -> None:
    found: Counter[str] = Counter()
    unexplained = []
    for name, prices, theirs, ours in differences(at, INSTANTS[at]):
        why = reason(prices, theirs, ours)
        found[why or "none"] += 1
        if why is None:
            unexplained.append(f"{name}: {theirs} there, {ours.total} here")
    assert unexplained == []
    assert set(found) <= set(REASONS)


def test_each_listed_reason_still_occurs() -> None:
    found = {reason(prices, theirs, ours) for _, prices, theirs, ours in differences(NOW, (CACHED,))}
    assert found == set(REASONS)
