"""`POST /v1/usage/check` in front of Django: what a key is told there is what Django's own view would have told it."""

import asyncio
import json
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any, cast

import httpx
import pytest
from django.core.asgi import get_asgi_application
from django.db import connections
from django.test import Client
from starlette.types import ASGIApp

from billing import ledger
from billing.accounts import AccountLoader
from billing.admission import BillingGate
from billing.check_app import BODY_BYTES_MAX, PATH, UsageCheck
from billing.models import ApiKey, Budget, Customer, OperatorToken, PlanVersion, QuotaOverride, Subscription
from metering.wiring import current_card
from pricing import clock
from pricing.catalog import import_prices, load_rate_card
from pricing.pricelist import RateCard
from tests.billing.rows import payer, used

pytestmark = pytest.mark.django_db(transaction=True)
SIZE: dict[str, Any] = {"model": "gpt-4o-mini", "tokens_input": 1000, "max_tokens": 500}


@pytest.fixture(autouse=True)
def prices() -> Iterator[None]:
    import_prices(book="list")
    current_card().card = load_rate_card()
    yield
    current_card().card = RateCard.empty()


def ask(secret: str, body: Any, **headers: str) -> httpx.Response:
    """The answer of the application that stands in front of Django."""

    async def main() -> httpx.Response:
        loader = AccountLoader()
        gate = BillingGate(loader.load, loader.free, loader.stand)
        django = cast("ASGIApp", get_asgi_application())
        transport = httpx.ASGITransport(cast(Any, UsageCheck(gate, current_card(), django)))
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                given = {"Authorization": f"Bearer {secret}", "Content-Type": "application/json"} | headers
                return await client.post(PATH, content=content, headers=given)
        finally:
            loader.close()
            await asyncio.to_thread(connections.close_all)

    return asyncio.run(main())


def ask_django(secret: str, body: Any) -> Any:
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    return client.post(PATH, json.dumps(body), "application/json")


def nothing(customer: Customer, key: ApiKey) -> None:
    """A customer of whom nothing is said."""


def prepaid(customer: Customer, key: ApiKey) -> None:
    ledger.set_hard(customer, hard=True)
    ledger.grant(customer, Decimal("0.0005"), "USD", key="k", at=clock.now())


def with_quota(customer: Customer, key: ApiKey) -> None:
    QuotaOverride.objects.create(customer=customer, feature="scans", included=5, hard=True)
    QuotaOverride.objects.create(
        customer=customer, feature="api_calls", included=0, hard=True, reset_period="day"
    )
    used(customer, clock.now().date(), calls=3, feature="scans")


def with_budgets(customer: Customer, key: ApiKey) -> None:
    Budget.objects.create(
        customer=customer, amount=1500, measure="tokens", hard=True, scope="api_key", api_key=key
    )
    Budget.objects.create(
        customer=customer, amount=0, measure="money", hard=True, scope="end_user", user_id="ada"
    )


def at_once(customer: Customer, key: ApiKey) -> None:
    ApiKey.objects.filter(pk=key.pk).update(concurrent_calls=3)
    version = PlanVersion.objects.get(plan__slug="professional")
    Subscription.objects.create(
        customer=customer, plan_version=version, started_at=clock.now(), anchor=clock.now()
    )


def blocked(customer: Customer, key: ApiKey) -> None:
    Customer.objects.filter(pk=customer.pk).update(blocks_unpriced=True)


def suspended(customer: Customer, key: ApiKey) -> None:
    Customer.objects.filter(pk=customer.pk).update(is_active=False)


@pytest.mark.parametrize(
    "said",
    [nothing, prepaid, with_quota, with_budgets, at_once, blocked, suspended],
    ids=lambda it: it.__name__,
)
def test_a_key_is_told_the_same_in_front_of_django_as_behind(
    said: Callable[[Customer, ApiKey], None],
) -> None:
    customer, secret = payer()
    said(customer, ApiKey.objects.get())
    for body in (
        {}, SIZE, SIZE | {"max_tokens": 501}, SIZE | {"user_id": "ada"}, {"model": "nobody-knows-it"}, {"amount": "0.0005"},
        {"amount": "0.000500000001"}, {"feature": "SCAN", "quantity": 2}, {"feature": "scans", "quantity": 3},
        {"customer": "payer"}, {"customer": str(customer.pk)}, {"customer": "another"}, {"amount": "-1"}, {"modle": "x"},
    ):  # fmt: skip
        here, there = ask(secret, body), ask_django(secret, body)
        unlike = {"request_id"}
        assert here.status_code == there.status_code, body
        assert {name: value for name, value in here.json().items() if name not in unlike} == {
            name: value for name, value in there.json().items() if name not in unlike
        }, body


def test_a_check_is_no_call_of_the_minute() -> None:
    _, secret = payer()
    ApiKey.objects.update(requests_per_minute=1)
    assert [ask(secret, {}).json()["allowed"] for _ in range(3)] == [True] * 3


def test_an_unknown_or_revoked_key_is_refused() -> None:
    _, secret = payer()
    assert ask("tg_nobody_has_this", {}).json()["code"] == "invalid_api_key"
    ApiKey.objects.get().revoke(clock.now())
    refused = ask(secret, {}, **{"X-Request-Id": "mine"})
    assert (refused.status_code, refused.json()["request_id"]) == (401, "mine")


def test_an_operator_is_answered_by_django() -> None:
    payer()
    _, token = OperatorToken.issue("tests")
    assert ask(token, {"customer": "payer"}).json()["allowed"] is True
    assert ask(token, {}).status_code == 400


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"", 400), (b"[", 400), (b"\xff", 400), (b"[]", 400), (b" " * (BODY_BYTES_MAX + 1), 413)],
)
def test_a_body_that_cannot_be_used_is_refused(body: bytes, status: int) -> None:
    _, secret = payer()
    refused = ask(secret, body)
    assert (refused.status_code, refused.json()["code"]) == (status, "invalid_request")
