"""`POST /v1/usage/check`: the gate's verdict on a call of a given size, without making it."""

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing import ledger
from billing.models import ApiKey, Balance, Budget, Customer, OperatorToken, QuotaOverride
from metering.models import Hold
from metering.rows import HOLD_COLUMNS
from metering.wiring import current_card
from pricing import clock
from pricing.catalog import import_prices, load_rate_card
from pricing.pricelist import RateCard
from tests.billing.rows import payer, used
from tests.metering.rows import a_hold

pytestmark = pytest.mark.django_db
# 1,000 tokens read at 0.15 and 500 written at 0.60 a million
COST = (1000 * Decimal("0.15") + 500 * Decimal("0.60")) / 1_000_000


@pytest.fixture
def prices() -> Iterator[None]:
    import_prices(book="list")
    current_card().card = load_rate_card()
    yield
    current_card().card = RateCard.empty()


@pytest.fixture
def customer() -> Customer:
    return payer()[0]


def prepaid(customer: Customer, credit: str) -> None:
    ledger.set_hard(customer, hard=True)
    ledger.grant(customer, Decimal(credit), "USD", key="k", at=clock.now())


def ask(secret: str = "", **body: Any) -> Any:
    secret = secret or OperatorToken.issue("tests")[1]
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    return client.post("/v1/usage/check", json.dumps(body), "application/json")


def verdict(**body: Any) -> tuple[bool, str | None]:
    answer = ask(customer="payer", **body).json()
    return answer["allowed"], answer["code"]


@pytest.mark.parametrize(
    ("amount", "allowed"), [("9.999999999999", True), ("10", True), ("10.000000000001", False)]
)
def test_an_amount_is_allowed_up_to_what_is_free(customer: Customer, amount: str, allowed: bool) -> None:
    prepaid(customer, "12")
    Balance.objects.update(held=2)
    document = ask(customer="payer", amount=amount).json()
    assert document["allowed"] is allowed
    assert document["code"] == (None if allowed else "insufficient_credits")
    assert (document["remaining"], document["currency"], document["reset_date"]) == ("10", "USD", None)


def test_a_model_is_weighed_at_its_rates(customer: Customer, prices: None) -> None:
    prepaid(customer, f"{COST:f}")
    size: dict[str, Any] = {"customer": "payer", "model": "gpt-4o-mini", "tokens_input": 1000}
    assert ask(**size, max_tokens=500).json() | {"detail": None} == {
        "allowed": True, "code": None, "detail": None, "hold": f"{COST.normalize():f}", "remaining": f"{COST.normalize():f}",
        "credits": f"{COST.normalize():f}", "currency": "USD", "reset_date": None, "limits": [],
    }  # fmt: skip
    assert ask(**size, max_tokens=501).json()["code"] == "insufficient_credits"
    assert ask(**size).json()["code"] == "insufficient_credits", "there is no telling what it may write"
    assert verdict(model="nobody-knows-it", tokens_input=1, max_tokens=1) == (False, "insufficient_credits")


def test_without_a_hard_limit_any_size_is_allowed(customer: Customer, prices: None) -> None:
    document = ask(customer="payer", amount="1000000").json()
    assert (document["allowed"], document["remaining"], document["hold"]) == (True, None, "0")
    assert verdict(model="nobody-knows-it") == (True, None)


def test_any_call_at_all_needs_something_to_be_left(customer: Customer) -> None:
    prepaid(customer, "0.000000000001")
    assert verdict() == (True, None)
    Balance.objects.update(held=Decimal("0.000000000001"))
    assert verdict() == (False, "insufficient_credits")


def test_who_is_suspended_or_blocked_is_told_so(customer: Customer, prices: None) -> None:
    Customer.objects.update(blocks_unpriced=True)
    assert verdict(model="nobody-knows-it") == (False, "model_not_priced")
    assert verdict(model="gpt-4o-mini") == (True, None)
    Customer.objects.update(is_active=False)
    assert verdict(model="gpt-4o-mini") == (False, "customer_suspended")


@pytest.mark.parametrize(("quantity", "allowed"), [(1, True), (2, True), (3, False)])
def test_a_hard_quota_answers_what_is_left_and_when_it_resets(
    customer: Customer, quantity: int, allowed: bool
) -> None:
    QuotaOverride.objects.create(customer=customer, feature="scans", included=5, hard=True)
    used(customer, clock.now().date(), calls=3, feature="scans")
    document = ask(customer="payer", feature="SCAN", quantity=quantity).json()
    assert (document["allowed"], document["code"]) == (allowed, None if allowed else "quota_exceeded")
    assert document["remaining"] == "2"
    assert document["reset_date"] == customer.period_at(clock.now()).end.isoformat()
    assert verdict(feature="api_calls", quantity=100) == (True, None)


def test_budgets_of_the_key_and_of_the_end_user_are_asked_as_for_a_call(
    customer: Customer, prices: None
) -> None:
    key, secret = ApiKey.issue(customer, "own")
    Budget.objects.create(
        customer=customer, amount=1500, measure="tokens", hard=True, scope="api_key", api_key=key
    )
    Budget.objects.create(
        customer=customer, amount=0, measure="tokens", hard=True, scope="end_user", user_id="ada"
    )
    size: dict[str, Any] = {"model": "gpt-4o-mini", "tokens_input": 1000, "max_tokens": 500}
    assert ask(secret, **size).json()["allowed"] is True
    assert ask(secret, **(size | {"max_tokens": 501})).json()["code"] == "budget_exceeded"
    assert ask(secret, **(size | {"user_id": "ada"})).json()["code"] == "budget_exceeded"
    assert ask(customer="payer", **(size | {"max_tokens": 501})).json()["allowed"] is True, (
        "an operator has no key"
    )


def test_calls_in_flight_count(customer: Customer) -> None:
    QuotaOverride.objects.create(customer=customer, feature="api_calls", included=1, hard=True)
    period_start = customer.period_at(clock.now()).start
    hold = a_hold(customer.pk, clock.now(), period_start=period_start)
    fields = {name: getattr(hold, name) for name in HOLD_COLUMNS}
    Hold.objects.bulk_create([Hold(writer_id=hold.id, **fields)])
    assert verdict() == (False, "quota_exceeded")


def test_a_key_asks_for_its_own_customer_only(customer: Customer) -> None:
    _, secret = payer("second")
    assert ask(secret).json()["allowed"] is True
    assert ask(secret, customer="payer").status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        {"amount": "-1"},
        {"amount": "NaN"},
        {"tokens_input": -1},
        {"max_tokens": 2**60},
        {"modle": "x"},
        {"amount": True},
        {"quantity": -1},
        {"quantity": "Infinity"},
    ],
)
def test_a_size_that_cannot_be_is_refused(customer: Customer, body: dict[str, Any]) -> None:
    answer = ask(customer="payer", **body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
