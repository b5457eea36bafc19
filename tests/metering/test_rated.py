"""One rule for what prices make of an event: who is charged, what is missing, and whether a rate could heal it."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from metering.context import ORDINARY, Terms, context_of, terms_of
from metering.rated import rate_event
from pricing.pricelist import RateCard
from pricing.usage import Usage
from tests.metering.rows import NOON, a_hold, an_event
from tests.pricing.prices import rates

# acme's `large` costs us 1 and 2 dollars a million; our own customers pay 2 and 4, and `vip` customers 1.50 for what they send
CARD = RateCard.compile(
    [
        *rates({"in_uncached": "1", "out_visible": "2"}),
        *rates({"in_uncached": "2", "out_visible": "4"}, book="list", first_id=3),
        *rates({"in_uncached": "1.5"}, book="vip", first_id=5),
    ],
    {},
    version=1,
)


def used(**values: Any) -> Usage:
    """A thousand tokens in and 500 out, of acme's `large`."""
    given: dict[str, Any] = {
        "buckets": {"in_uncached": 1000, "out_visible": 500},
        "provider": "acme",
        "model_served": "large",
    }
    return Usage(**(given | values))


def rated(usage: Usage, terms: Terms = ORDINARY, *, by_plan: bool = False) -> Any:
    return rate_event(CARD, usage, terms, at=NOON, currency="USD", by_plan=by_plan)


def test_cost_and_charge_come_from_their_own_books() -> None:
    row = rated(used())
    assert row.cost_total == Decimal("0.002")  # 1000 × 1/1e6 + 500 × 2/1e6
    assert row.charge_total == Decimal("0.004")  # 1000 × 2/1e6 + 500 × 4/1e6
    assert (row.pricing_status, row.rate_ids, row.missing) == ("priced", (1, 2, 3, 4), None)


def test_the_book_that_lacks_a_price_is_named_with_the_buckets() -> None:
    row = rated(used(), Terms(list_book="vip"))
    assert row.charge_total == Decimal("0.0015")  # 1000 × 1.5/1e6; the output has no price
    assert (row.pricing_status, row.missing) == ("partial", {"vip": ["out_visible"]})


def test_a_model_without_any_rate_is_missing_in_both_books() -> None:
    row = rated(used(model_served="new"))
    assert (row.pricing_status, row.cost_total, row.charge_total) == ("unpriced", None, None)
    assert row.missing == {"cost": ["in_uncached", "out_visible"], "list": ["in_uncached", "out_visible"]}


def test_a_model_without_any_rate_that_used_nothing_is_missing_with_no_bucket() -> None:
    assert rated(used(buckets={}, model_served="new")).missing == {"cost": [], "list": []}


@pytest.mark.parametrize("usage", [
    used(buckets={}, source="none"),
    used(buckets={"in_uncached": 1000}, source="reported_partial", unknown_sides=("output",)),
    used(buckets={}, unknown_sides=("input", "output")),
])  # fmt: skip
def test_what_nobody_reported_is_nothing_that_a_rate_could_heal(usage: Usage) -> None:
    row = rated(usage)
    assert row.pricing_status != "priced"
    assert row.missing is None


@pytest.mark.parametrize(("status", "values"), [
    ("priced", {}),
    ("partial", {"buckets": {"in_uncached": 1000}, "unknown_sides": ("output",)}),
    ("partial", {"model_served": "new"}),
])  # fmt: skip
def test_a_free_event_asks_for_its_cost_alone(status: str, values: Any) -> None:
    row = rated(used(**values), Terms(list_book="nobody's", free=True))
    assert (row.charge_total, row.pricing_status) == (0, status)
    assert set(row.missing or {}) <= {"cost"}


def test_what_the_plan_prices_costs_its_customer_nothing_here() -> None:
    row = rated(used(), by_plan=True)
    assert (row.pricing_status, row.cost_total, row.charge_total) == ("by_plan", Decimal("0.002"), 0)


@pytest.mark.parametrize("terms", [
    ORDINARY, Terms("costs", "vip"), Terms(free=True), Terms(share=Decimal("0.25"), costless=True, served_only=True),
])  # fmt: skip
def test_the_terms_come_back_from_the_event(terms: Terms) -> None:
    stored = msgspec.json.decode(msgspec.json.encode(context_of(used(), terms)))
    assert terms_of(an_event(a_hold(), context=stored)) == terms


def test_a_repeat_under_a_key_is_free_however_often_it_is_rated() -> None:
    event: Any = an_event(a_hold(), context={"repeat_of": "an event", "charged_before": "0.004"})
    row = rated(used(), terms_of(event))
    assert (row.cost_total, row.charge_total) == (Decimal("0.002"), 0)


def test_ordinary_terms_take_no_room() -> None:
    assert context_of(used(), ORDINARY) == {}


# Currencies

IN_EUROS = RateCard.compile(
    [
        *rates({"in_uncached": "1", "out_visible": "2"}),
        *rates({"in_uncached": "2", "out_visible": "4"}, book="list", first_id=3, currency="EUR"),
    ],
    {},
    version=1,
)


def test_prices_in_another_currency_than_the_accounts_are_none_and_say_so() -> None:
    row = rate_event(IN_EUROS, used(), ORDINARY, at=NOON, currency="USD")
    assert (row.charge_total, row.cost_total, row.currency) == (None, Decimal("0.002"), "USD")
    assert (row.pricing_status, row.rate_ids) == ("partial", (1, 2))
    assert row.missing == {"list": ["currency EUR"]}


def test_a_cost_in_another_currency_is_not_added_to_the_others() -> None:
    row = rate_event(IN_EUROS, used(), ORDINARY, at=NOON, currency="EUR")
    assert (row.charge_total, row.cost_total, row.currency) == (Decimal("0.004"), None, "EUR")
    assert (row.cost_input, row.model_cost_input) == (None, None)
    assert (row.pricing_status, row.missing) == ("partial", {"cost": ["currency USD"]})


def test_an_account_that_names_no_currency_has_that_of_its_list_prices() -> None:
    row = rate_event(CARD, used(), ORDINARY, at=NOON, currency="")
    assert (row.currency, row.pricing_status) == ("USD", "priced")


def test_what_costs_nothing_costs_nothing_in_any_currency() -> None:
    own_key = rate_event(IN_EUROS, used(byok=True), ORDINARY, at=NOON, currency="EUR")
    cached = rate_event(IN_EUROS, used(), Terms(costless=True), at=NOON, currency="EUR")
    assert (own_key.cost_total, cached.cost_total) == (0, 0)
    assert (own_key.pricing_status, cached.pricing_status) == ("priced", "priced")


def test_whose_call_is_free_still_needs_a_cost_in_the_accounts_currency() -> None:
    row = rate_event(IN_EUROS, used(), Terms(free=True), at=NOON, currency="EUR")
    assert (row.charge_total, row.cost_total, row.missing) == (0, None, {"cost": ["currency USD"]})
