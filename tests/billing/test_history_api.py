"""Months and periods that were, and the estimate of the one that runs."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing.history_api import estimate_document
from billing.models import Customer, OperatorToken, PlanVersion, Subscription
from pricing import clock
from tests.billing.rows import payer, used

pytestmark = pytest.mark.django_db
JUNE_11 = datetime(2026, 6, 11, tzinfo=UTC)


@pytest.fixture
def customer() -> Customer:
    clock.set_offset(JUNE_11 - clock.now())
    return payer(created_at=datetime(2026, 1, 1, tzinfo=UTC))[0]


def get(path: str, secret: str = "") -> Any:
    secret = secret or OperatorToken.issue("tests")[1]
    return Client(headers={"Authorization": f"Bearer {secret}"}).get(path)


def test_months_are_told_newest_first_with_those_without_use(customer: Customer) -> None:
    used(customer, date(2026, 4, 30), calls=3, tokens=(10, 5), charge="0.25")
    used(customer, date(2026, 6, 1), calls=1, charge="0.5", feature="documents", quantity=12)
    history = get("/v1/billing/usage/history?customer=payer&months=3").json()["history"]
    assert history == [
        {"month": 6, "year": 2026, "total_calls": 1, "total_documents": "12", "total_tokens": 0, "total_cost": "0.5"},
        {"month": 5, "year": 2026, "total_calls": 0, "total_documents": "0", "total_tokens": 0, "total_cost": "0"},
        {"month": 4, "year": 2026, "total_calls": 3, "total_documents": "0", "total_tokens": 15, "total_cost": "0.25"},
    ]  # fmt: skip
    assert len(get("/v1/billing/usage/history?customer=payer").json()["history"]) == 6


def test_months_go_over_the_end_of_a_year(customer: Customer) -> None:
    history = get("/v1/billing/usage/history?customer=payer&months=8").json()["history"]
    assert [(one["year"], one["month"]) for one in history][-2:] == [(2025, 12), (2025, 11)]


def test_periods_are_those_with_use_and_say_what_of(customer: Customer) -> None:
    for month in (3, 5, 6):
        used(customer, date(2026, month, 2), calls=month, charge="0.1")
    history = get("/v1/usage/payer/history?limit=2").json()["history"]
    assert [one["period"] for one in history] == [
        {"start": "2026-06-01T00:00:00+00:00", "end": "2026-07-01T00:00:00+00:00"},
        {"start": "2026-05-01T00:00:00+00:00", "end": "2026-06-01T00:00:00+00:00"},
    ]
    assert history[0]["features"] == {
        "api_calls": {"calls": 6, "quantity": "6", "tokens": 0, "charge": "0.1"}
    }


@pytest.mark.parametrize("wrong", ["months=0", "months=61", "months=x", "months=-1", "limit=3"])
def test_a_count_that_cannot_be_is_refused(customer: Customer, wrong: str) -> None:
    assert get(f"/v1/billing/usage/history?customer=payer&{wrong}").status_code == 400


def test_an_estimate_prices_the_period_as_its_invoice_will(customer: Customer) -> None:
    """10 of 30 days of professional: 49 of fee; 20,000 calls become 60,000, 10,000 beyond at 0.01; 3.00 of tokens become 9.00."""
    version = PlanVersion.objects.get(plan__slug="professional")
    start = datetime(2026, 6, 1, tzinfo=UTC)
    Subscription.objects.create(customer=customer, plan_version=version, started_at=start, anchor=start)
    for day in range(1, 11):
        used(customer, date(2026, 6, day), calls=2000, charge="0.30")
    found = estimate_document(customer, JUNE_11)
    assert (found["method"], found["fees"]) == ("elapsed", "49")
    assert found["calls"] == {"expected": "60000", "range": ["60000", "60000"]}
    assert found["features"]["api_calls"]["amount"]["expected"] == "109"
    assert found["total"] == {"expected": "158", "range": ["158", "158"]}
    told = get("/v1/usage/payer/estimate").json()
    assert told.keys() == found.keys() and told["period"] == found["period"]
    projected = get("/v1/billing/usage?customer=payer").json()["projected"]
    assert (projected["method"], projected["calls"]) == ("elapsed", 59999), "an instant after the tenth day"


def test_a_customer_reads_its_own_history_only(customer: Customer) -> None:
    _, stranger = payer("second")
    for path in (
        "/v1/usage/payer/history",
        "/v1/usage/payer/estimate",
        "/v1/billing/usage/history?customer=payer",
    ):
        assert get(path, stranger).status_code == 403
    assert Decimal(get("/v1/usage/second/estimate", stranger).json()["total"]["expected"]) == 0
