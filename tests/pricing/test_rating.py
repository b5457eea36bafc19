"""What a call costs, to the last digit."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from pricing.pricelist import RateCard
from pricing.rating import Charge, rate_usage
from pricing.units import TOKEN_BUCKETS
from pricing.usage import Quantity, Usage, UsagePart
from tests.pricing.prices import NOW, card, rates, usd

LARGE = {"in_uncached": "2.5", "in_cache_read": "0.25", "out_visible": "15"}


def charge(prices: dict[str, str], buckets: Mapping[str, Quantity], **known: object) -> Charge:
    usage = Usage(buckets=buckets, provider="acme", model_served="large", **known)  # type: ignore[arg-type]
    return rate_usage(card(prices), usage, book="cost", at=NOW)


def test_each_bucket_is_charged_at_its_own_rate() -> None:
    found = charge(
        LARGE, {"in_uncached": 48, "in_cache_read": 1024, "out_visible": 108, "out_reasoning": 192}
    )
    assert found.amount_input == 48 * usd("2.5") + 1024 * usd("0.25")
    assert found.amount_output == 108 * usd("15") + 192 * usd("15")
    assert found.total == 48 * usd("2.5") + 1024 * usd("0.25") + (108 + 192) * usd("15")
    assert found.status == "priced"
    assert found.currency == "USD"


def test_each_line_says_how_it_came_about() -> None:
    found = charge(LARGE, {"in_cache_read": 1024, "out_reasoning": 192})
    assert [
        (line.bucket, line.quantity, line.unit_price, line.amount, line.rate_id, line.side)
        for line in found.lines
    ] == [
        ("in_cache_read", 1024, usd("0.25"), 1024 * usd("0.25"), 2, "input"),
        ("out_reasoning", 192, usd("15"), 192 * usd("15"), 3, "output"),
    ]
    assert found.rate_ids == (2, 3)
    assert (found.unit_price_input, found.unit_price_output) == (usd("2.5"), usd("15"))


def test_a_rate_that_prices_two_buckets_is_named_once() -> None:
    assert charge(LARGE, {"out_visible": 1, "out_reasoning": 1}).rate_ids == (3,)


def test_units_are_charged_beside_the_tokens() -> None:
    found = charge({**LARGE, "web_search": "10000"}, {"in_uncached": 1, "out_visible": 1, "web_search": 3})
    assert found.total == usd("2.5") + usd("15") + 3 * Decimal("0.01")
    assert (found.amount_input, found.amount_output) == (usd("2.5"), usd("15"))


def test_a_fraction_of_a_second_is_charged_exactly() -> None:
    found = charge({"audio_second": "100"}, {"audio_second": Decimal("12.3")})  # 0.0001 a second
    assert (found.total, found.lines[0].quantity) == (Decimal("0.00123"), Decimal("12.3"))
    assert (found.amount_input, found.amount_output) == (0, 0)


def test_the_largest_counters_stay_exact() -> None:
    count = 2**53
    assert charge({"in_uncached": "123.456789"}, {"in_uncached": count}).total == count * Decimal(
        "0.000123456789"
    )


# Several models, one call.


def test_each_part_is_charged_at_its_own_model() -> None:
    parts = (
        UsagePart({"in_uncached": 400, "out_visible": 100}, kind="message"),
        UsagePart({"in_uncached": 800, "out_visible": 1600}, model="expert", kind="advisor_message"),
    )
    usage = Usage({"in_uncached": 1200, "out_visible": 1700}, "acme", model_served="large", parts=parts)
    found = rate_usage(
        card(LARGE, also={"expert": {"in_uncached": "5", "out_visible": "25"}}), usage, book="cost", at=NOW
    )
    assert found.amount_input == 400 * usd("2.5") + 800 * usd("5")
    assert found.amount_output == 100 * usd("15") + 1600 * usd("25")
    assert [line.model for line in found.lines] == ["large", "large", "expert", "expert"]
    assert found.unit_price_input == usd("2.5")


def test_a_part_whose_model_has_no_price_leaves_the_charge_partial() -> None:
    parts = (UsagePart({"in_uncached": 400}), UsagePart({"in_uncached": 800}, model="stranger"))
    usage = Usage({"in_uncached": 1200}, "acme", model_served="large", parts=parts)
    found = rate_usage(card(LARGE), usage, book="cost", at=NOW)
    assert (found.status, found.total, found.unpriced) == (
        "partial",
        400 * usd("2.5"),
        ("stranger: in_uncached",),
    )


# What is not known is never zero.


@pytest.mark.parametrize("model", ["small", "", "LARGE", "large-2026-01-05"])
def test_a_model_without_a_price_is_unpriced(model: str) -> None:
    usage = Usage(buckets={"in_uncached": 5, "out_visible": 0}, provider="acme", model_served=model)
    found = rate_usage(card(LARGE), usage, book="cost", at=NOW)
    assert (found.status, found.total, found.amount_input, found.unpriced) == (
        "unpriced",
        None,
        None,
        ("in_uncached",),
    )


def test_no_report_is_unpriced() -> None:
    assert charge(LARGE, {}, source="none") == Charge("cost", "", "unpriced")


def test_an_explicit_zero_costs_nothing() -> None:
    for buckets in ({}, {"in_uncached": 0, "out_visible": 0}):
        found = charge(LARGE, buckets)
        assert found.status == "priced"
        assert found.total == 0
        assert not found.lines


def test_none_of_something_without_a_price_costs_nothing() -> None:
    assert charge(LARGE, {"in_uncached": 1, "in_uncached.audio": 0}).status == "priced"


def test_a_bucket_without_a_price_leaves_the_charge_partial() -> None:
    found = charge(LARGE, {"in_uncached": 10, "in_uncached.audio": 7})
    assert (found.status, found.unpriced, found.total) == ("partial", ("in_uncached.audio",), 10 * usd("2.5"))


def test_only_buckets_without_a_price_are_unpriced() -> None:
    found = charge(LARGE, {"in_uncached.audio": 7})
    assert (found.status, found.total) == ("unpriced", None)


def test_a_negative_count_is_never_money_back() -> None:
    found = charge(LARGE, {"in_uncached": 10, "out_visible": -1000})
    assert (found.status, found.unpriced, found.total) == ("partial", ("out_visible",), 10 * usd("2.5"))


def test_an_unknown_side_leaves_the_charge_partial_and_its_amount_unknown() -> None:
    found = charge(LARGE, {"in_uncached": 10}, source="reported_partial", unknown_sides=("output",))
    assert (found.status, found.amount_input, found.amount_output) == ("partial", 10 * usd("2.5"), None)
    assert found.total == 10 * usd("2.5")


def test_two_unknown_sides_are_unpriced() -> None:
    assert charge(LARGE, {}, source="reported_partial", unknown_sides=("input", "output")).total is None


# A long context is billed at its tier, from the first token on.


@pytest.mark.parametrize(
    ("tokens", "price"), [(199_999, "2"), (200_000, "2"), (200_001, "4"), (400_000, "4"), (400_001, "9")]
)
def test_a_tier_begins_above_its_edge_and_holds_for_all_tokens(tokens: int, price: str) -> None:
    tiers = (
        rates({"in_uncached": "2", "out_visible": "12"})
        + rates({"in_uncached": "4"}, input_above=200_000, first_id=3)
        + rates({"in_uncached": "9"}, input_above=400_000, first_id=4)
    )
    usage = Usage(
        buckets={"in_cache_read": 1_000, "in_uncached": tokens - 1_000, "out_visible": 7},
        provider="acme",
        model_served="large",
    )
    found = rate_usage(RateCard.compile(tiers, {}, 1), usage, book="cost", at=NOW)
    assert found.total == tokens * usd(price) + 7 * usd("12")


def test_output_and_units_do_not_count_towards_a_tier() -> None:
    tiers = rates({"in_uncached": "2", "out_visible": "12"}) + rates(
        {"in_uncached": "4", "out_visible": "18"}, input_above=100, first_id=3
    )
    usage = Usage(buckets={"in_uncached": 100, "out_visible": 9_999}, provider="acme", model_served="large")
    found = rate_usage(RateCard.compile(tiers, {}, 1), usage, book="cost", at=NOW)
    assert found.total == 100 * usd("2") + 9_999 * usd("12")


# Rounding: once, and the parts add up.


def test_the_total_is_rounded_once_and_not_each_line() -> None:
    finest = {"in_uncached": "0.0000006", "out_visible": "0.0000006"}  # 0.6 × 10⁻¹² each
    found = charge(finest, {"in_uncached": 1, "out_visible": 1})
    assert found.total == Decimal("0.000000000001")  # round(1.2), not round(0.6) + round(0.6)
    assert (found.amount_input, found.amount_output) == (Decimal("0.000000000001"), Decimal(0))


buckets = st.dictionaries(
    st.sampled_from([name for name in TOKEN_BUCKETS if "." not in name]), st.integers(0, 2**53), max_size=11
)
price_texts = st.decimals(0, 1000, places=12).map(str)


@given(
    buckets,
    st.dictionaries(st.sampled_from(["in_cache_read", "in_cache_write_5m", "out_reasoning"]), price_texts),
    price_texts,
    price_texts,
)
def test_parts_add_up_to_the_exact_total(
    used: dict[str, int], own: dict[str, str], price_in: str, price_out: str
) -> None:
    prices = {"in_uncached": price_in, "out_visible": price_out, **own}
    found = charge(prices, used)
    assert found.amount_input is not None
    assert found.amount_output is not None
    assert found.total == found.amount_input + found.amount_output
    assert found.amount_input >= 0
    assert found.amount_output >= 0
    exact = sum(
        (
            int(line.quantity)
            * line.unit_price.as_integer_ratio()[0]
            * (10**30)
            // line.unit_price.as_integer_ratio()[1]
            for line in found.lines
        ),
        0,
    )
    assert abs(int(found.total.scaleb(12)) * 10**18 - exact) <= 10**18 // 2
    assert sum(line.quantity for line in found.lines) == sum(used.values())


def test_the_rate_in_force_at_the_instant_of_use_counts() -> None:
    july = datetime(2026, 7, 1, tzinfo=UTC)
    dated = RateCard.compile(
        rates({"in_uncached": "2"}, end=july) + rates({"in_uncached": "3"}, start=july, first_id=2), {}, 1
    )
    usage = Usage(buckets={"in_uncached": 1}, provider="acme", model_served="large")
    before = rate_usage(dated, usage, book="cost", at=datetime(2026, 6, 30, 23, 59, 59, tzinfo=UTC))
    after = rate_usage(dated, usage, book="cost", at=july)
    assert (before.total, before.rate_ids, after.total, after.rate_ids) == (usd("2"), (1,), usd("3"), (2,))
