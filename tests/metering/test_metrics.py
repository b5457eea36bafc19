"""Which models have a series of their own: those that the catalogue names, whatever callers ask for."""

from decimal import Decimal
from typing import Any

import pytest
from prometheus_client import REGISTRY

from metering.metrics import OTHER, observe_settled
from metering.rows import EventRow
from pricing.pricelist import RateCard
from tests.metering.rows import a_hold, an_event
from tests.pricing.prices import rate

# Exactly `large`, with other names; a prefix prices whatever begins with `tuned-`.
CARD = RateCard.compile(
    [rate("2"), rate("3", id=2, model="tuned-", match="prefix")],
    {("acme", "biggest"): "large", ("acme", "large-{date}"): "large"},
    version=1,
)


def settled(model: str, **values: Any) -> EventRow:
    known: dict[str, Any] = {"provider": "acme", "model": model, "tokens_input": 10}
    return an_event(a_hold(), **(known | values))


def counted(model: str) -> float | None:
    """Tokens read, as the series of this model says; None: there is none."""
    labels = {"provider": "acme", "model": model, "kind": "input"}
    return REGISTRY.get_sample_value("tollgate_tokens_total", labels)


@pytest.mark.parametrize("name", ["large", "biggest"])
@pytest.mark.parametrize("status", ["priced", "partial", "unpriced", "by_plan"])
def test_what_the_catalogue_names_has_a_series_whatever_is_priced(name: str, status: str) -> None:
    before = counted(name) or 0
    observe_settled([settled(name, pricing_status=status), settled(name)], CARD)
    assert counted(name) == before + 20


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("refused", {"status": "error", "status_code": 404, "cost_total": Decimal(0), "charge_total": Decimal(0)}),
        ("own-key", {"cost_total": Decimal(0)}),
        ("tuned-by-somebody", {}),
        ("made-up", {"pricing_status": "unpriced"}),
        ("", {}),
    ],
)  # fmt: skip
def test_what_a_caller_made_up_has_none_though_it_counts_as_priced(name: str, values: dict[str, Any]) -> None:
    before = counted(OTHER) or 0
    observe_settled([settled(name, **values)], CARD)
    assert (counted(name), counted(OTHER)) == (None, before + 10)


def test_snapshots_of_any_date_count_for_their_model() -> None:
    before = counted("large") or 0
    observe_settled([settled("large-20260105"), settled("large-2026-02-06")], CARD)
    assert counted("large") == before + 20
    assert counted("large-20260105") is None


def test_a_name_of_another_provider_is_made_up() -> None:
    observe_settled([settled("large", provider="elsewhere")], CARD)
    found = {"provider": "elsewhere", "kind": "input"}
    assert REGISTRY.get_sample_value("tollgate_tokens_total", {**found, "model": "large"}) is None
    assert REGISTRY.get_sample_value("tollgate_tokens_total", {**found, "model": OTHER}) == 10


def test_without_prices_there_is_one_series() -> None:
    before = counted(OTHER) or 0
    observe_settled([settled(f"model-{number}") for number in range(100)], RateCard.empty())
    assert counted(OTHER) == before + 1000
