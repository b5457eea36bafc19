"""The most that a call can cost: quantity × the highest rate that can apply, summed."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.hold_bound import HoldBound, hold_amount
from pricing.pricelist import RateCard
from pricing.rating import rate_usage
from pricing.usage import Usage
from tests.pricing.prices import NOW, card, rates, usd

PLAIN = {"in_uncached": "2", "out_visible": "10"}
CACHING = {**PLAIN, "in_cache_read": "0.2", "in_cache_write_5m": "2.5", "in_cache_write_1h": "4"}


def amount(
    prices: RateCard, tokens_input: dict[str, int] | None, tokens_output: int | None, **said: Any
) -> Decimal | None:
    bound = HoldBound(tokens_input, tokens_output, **said)
    return hold_amount(prices, bound, book="cost", currency="USD", provider="acme", model="large", at=NOW)


def test_input_and_output_at_their_rates() -> None:
    assert amount(card(PLAIN), {"": 1_000}, 500) == 1_000 * usd("2") + 500 * usd("10")


def test_no_bound_is_no_amount() -> None:
    assert amount(card(PLAIN), None, 500) is None
    assert amount(card(PLAIN), {"": 1_000}, None) is None


def test_no_price_is_no_amount() -> None:
    assert amount(RateCard.empty(), {"": 1_000}, 500) is None
    assert amount(card({"in_uncached": "2"}), {"": 1_000}, 500) is None
    assert amount(card({"in_uncached": "2"}), {"": 1_000}, 0) == 1_000 * usd("2")
    assert amount(card(PLAIN), {"": 1_000, "audio": 9}, 500) is None  # sound is never priced as text


def test_what_is_read_may_be_written_to_the_cache() -> None:
    assert amount(card(CACHING), {"": 1_000}, 0) == 1_000 * usd("2")
    assert amount(card(CACHING), {"": 1_000}, 0, cache_writes=("5m",)) == 1_000 * usd("2.5")
    assert amount(card(CACHING), {"": 1_000}, 0, cache_writes=("5m", "1h")) == 1_000 * usd("4")


def test_what_is_written_may_be_reasoning() -> None:
    dear = card({**PLAIN, "out_reasoning": "12", "out_citation": "3"})
    assert amount(dear, {"": 0}, 500) == 500 * usd("12")


def test_modalities_have_their_own_rates() -> None:
    prices = card({**PLAIN, "in_uncached.audio": "40", "in_uncached.image": "1", "out_visible.audio": "80"})
    assert amount(prices, {"": 100, "audio": 10, "image": 7}, 0) == 100 * usd("2") + 10 * usd("40") + 7 * usd(
        "1"
    )
    assert amount(prices, {"": 0}, 500) == 500 * usd("10")
    assert amount(prices, {"": 0}, 500, writes=("", "audio")) == 500 * usd("80")
    assert amount(prices, {"document": 7}, 0) == 7 * usd(
        "2"
    )  # priced as text where it has no price of its own


@pytest.mark.parametrize(
    ("tokens", "price"), [(199_999, "2"), (200_000, "2"), (200_001, "4"), (1_000_001, "4")]
)
def test_a_long_context_is_held_at_its_tier(tokens: int, price: str) -> None:
    tiers = [
        *rates(PLAIN),
        *rates({"in_uncached": "4"}, first_id=10, input_above=200_000),
        *rates({"in_uncached": "3"}, first_id=20, input_above=1_000_000),
    ]
    # Above a million it is cheaper again, but the call may read less than its bound.
    assert amount(RateCard.compile(tiers, {}, version=1), {"": tokens}, 0) == tokens * usd(price)


def test_a_tier_that_is_asked_for_may_be_given_or_not() -> None:
    tiers = RateCard.compile(
        [
            *rates(PLAIN),
            *rates({"in_uncached": "4"}, first_id=10, service_tier="priority"),
            *rates({"in_uncached": "1"}, first_id=20, service_tier="flex"),
            *rates({"in_uncached": "12"}, first_id=30, speed="fast"),
        ],
        {},
        version=1,
    )
    assert amount(tiers, {"": 1_000}, 0) == 1_000 * usd("2")
    assert amount(tiers, {"": 1_000}, 0, service_tier="priority") == 1_000 * usd("4")
    assert amount(tiers, {"": 1_000}, 0, service_tier="flex") == 1_000 * usd("2")
    assert amount(tiers, {"": 1_000}, 0, service_tier="flex", speed="fast") == 1_000 * usd("12")


def test_units_and_the_call_itself_are_part_of_it() -> None:
    prices = card({**PLAIN, "web_search": "10000", "request": "5000"})  # 0.01 and 0.005 for one
    assert amount(prices, {"": 1_000}, 0, units={"web_search": 5}) == (
        1_000 * usd("2") + 5 * Decimal("0.01") + Decimal("0.005")
    )


def test_a_model_that_is_sold_by_the_unit_needs_no_price_of_tokens() -> None:
    assert amount(card({"image": "40000"}), {"": 90}, 6_540, units={"image": 2}) == 2 * Decimal("0.04")
    assert amount(card({"web_search": "10000"}), {"": 90}, 0, units={"web_search": 2}) is None


def test_it_is_rounded_as_charges_are() -> None:
    assert amount(card({**PLAIN, "in_uncached": "0.0000014"}), {"": 1}, 0) == Decimal("0.000000000001")


buckets = st.sampled_from([*CACHING, "out_reasoning", "in_tool_prompt"])


@given(
    st.dictionaries(buckets, st.integers(0, 300_000)),
    st.fixed_dictionaries({name: st.integers(1, 50).map(str) for name in CACHING}),
    st.sampled_from([None, "priority"]),
)
def test_no_use_within_the_bound_costs_more(
    used: dict[str, int], prices: dict[str, str], tier: str | None
) -> None:
    known = RateCard.compile(
        [*rates(prices), *rates({"in_uncached": "60"}, first_id=20, input_above=200_000),
         *rates({"out_visible": "70"}, first_id=30, service_tier="priority")],
        {}, version=1,
    )  # fmt: skip
    reads = sum(count for bucket, count in used.items() if bucket.startswith("in_"))
    writes = sum(count for bucket, count in used.items() if bucket.startswith("out_"))
    charge = rate_usage(
        known, Usage(buckets=used, provider="acme", model_served="large", source="reported", service_tier=tier),
        book="cost", at=NOW,
    )  # fmt: skip
    held = amount(known, {"": reads}, writes, cache_writes=("5m", "1h"), service_tier=tier)
    assert held is not None
    assert (charge.total or 0) <= held


def test_a_price_in_another_currency_is_no_amount() -> None:
    bound = HoldBound({"": 1_000}, 500)
    found = [
        hold_amount(card(PLAIN), bound, book="cost", currency=name, provider="acme", model="large", at=NOW)
        for name in ("USD", "EUR", "")
    ]
    assert found == [1_000 * usd("2") + 500 * usd("10"), None, found[0]]
