"""The rate card finds the price that held at an instant."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from pricing.pricelist import CurrentCard, Rate, RateCard
from tests.pricing.prices import NOW, START, card, rates, usd

JULY = datetime(2026, 7, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


def price_at(
    rate_card: RateCard,
    at: datetime,
    bucket: str = "in_uncached",
    model: str = "large",
    provider: str = "acme",
) -> Decimal | None:
    prices = rate_card.prices_for("cost", provider, model, at)
    found = prices and prices.price(bucket)
    return found.unit_price if found else None


def test_a_rate_holds_from_its_first_instant_to_the_one_before_its_end() -> None:
    dated = RateCard.compile(
        rates({"in_uncached": "2"}, end=JULY) + rates({"in_uncached": "3"}, start=JULY, first_id=2), {}, 1
    )
    assert price_at(dated, START - TICK) is None
    assert price_at(dated, START) == usd("2")
    assert price_at(dated, JULY - TICK) == usd("2")
    assert price_at(dated, JULY) == usd("3")


def test_after_the_end_there_is_no_price() -> None:
    ended = RateCard.compile(rates({"in_uncached": "2"}, end=JULY), {}, 1)
    assert price_at(ended, JULY) is None


def test_a_bucket_whose_own_rate_ends_falls_back_from_then_on() -> None:
    mixed = RateCard.compile(
        rates({"in_uncached": "2"}) + rates({"in_cache_read": "0.2"}, end=JULY, first_id=2), {}, 1
    )
    assert price_at(mixed, JULY - TICK, "in_cache_read") == usd("0.2")
    assert price_at(mixed, JULY, "in_cache_read") == usd("2")


def test_an_unheard_of_cache_time_to_live_has_the_price_of_any() -> None:
    prices = card({"in_uncached": "2", "in_cache_write_unknown": "2.5"})
    assert price_at(prices, NOW, "in_cache_write_3d") == usd("2.5")
    assert price_at(prices, NOW, "in_cache_write_3d.image") == usd("2.5")


def test_a_free_model_is_free_and_not_unpriced() -> None:
    assert price_at(card({"in_uncached": "0"}), NOW) == 0


def test_an_alias_has_the_prices_of_its_model() -> None:
    aliased = RateCard.compile(rates({"in_uncached": "2"}), {("acme", "biggest"): "large"}, 1)
    assert price_at(aliased, NOW, model="biggest") == usd("2")
    assert price_at(aliased, NOW, model="biggest", provider="other") is None


@pytest.mark.parametrize("name", ["large-20260105", "large-2026-01-05"])
def test_a_dated_snapshot_is_found_where_the_alias_says_so(name: str) -> None:
    aliased = RateCard.compile(rates({"in_uncached": "2"}), {("acme", "large-{date}"): "large"}, 1)
    assert price_at(aliased, NOW, model=name) == usd("2")
    assert price_at(card({"in_uncached": "2"}), NOW, model=name) is None


@pytest.mark.parametrize(
    "name",
    [
        "large-20261399",
        "large-2026-13-01",
        "large-mini-20260105",
        "large-20260105-mini",
        "large-",
        "large-{date",
    ],
)
def test_what_only_looks_like_a_snapshot_is_unknown(name: str) -> None:
    aliased = RateCard.compile(rates({"in_uncached": "2"}), {("acme", "large-{date}"): "large"}, 1)
    assert price_at(aliased, NOW, model=name) is None


def test_a_snapshot_with_its_own_price_keeps_it() -> None:
    both = rates({"in_uncached": "2"}) + rates({"in_uncached": "5"}, model="large-20240513", first_id=2)
    aliased = RateCard.compile(
        both, {("acme", "large-{date}"): "large", ("acme", "large-20240513"): "large"}, 1
    )
    assert price_at(aliased, NOW, model="large-20240513") == usd("5")


def test_without_a_provider_a_unique_name_decides() -> None:
    both = rates({"in_uncached": "2"}) + rates({"in_uncached": "5"}, provider="other", first_id=2)
    assert price_at(card({"in_uncached": "2"}), NOW, provider="") == usd("2")
    assert price_at(RateCard.compile(both, {}, 1), NOW, provider="") is None


def test_a_book_has_only_its_own_rates() -> None:
    assert card({"in_uncached": "2"}).prices_for("list", "acme", "large", NOW) is None


def test_an_empty_card_knows_no_price() -> None:
    assert price_at(RateCard.empty(), NOW) is None
    assert CurrentCard().card.version == 0
    assert CurrentCard().age_s is None


instants = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@given(
    st.lists(
        st.tuples(st.sampled_from(["in_uncached", "out_visible"]), instants, st.integers(0, 99)), max_size=8
    ),
    instants,
)
def test_the_card_agrees_with_reading_the_list(
    changes: list[tuple[str, datetime, int]], at: datetime
) -> None:
    listed = [
        Rate(id=number, book="cost", provider="acme", model="large", bucket=bucket, price=Decimal(price), per=1,
             currency="USD", effective_from=start)
        for number, (bucket, start, price) in enumerate(sorted(changes, key=lambda change: change[1]))
    ]  # fmt: skip
    expected = [rate.price for rate in listed if rate.bucket == "in_uncached" and rate.effective_from <= at]
    assert price_at(RateCard.compile(reversed(listed), {}, 1), at) == (expected[-1] if expected else None)
