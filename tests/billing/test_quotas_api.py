"""`/v1/usage/{customer}`, quotas and budgets over the API: who may, what is answered, and what cannot be said."""

import json
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from billing.models import ApiKey, Budget, Customer, Membership, OperatorToken, QuotaOverride
from pricing import clock
from tests.billing.rows import payer, used

pytestmark = pytest.mark.django_db


@pytest.fixture
def customer() -> Customer:
    return payer()[0]


def by_operator() -> Client:
    return Client(headers={"Authorization": f"Bearer {OperatorToken.issue('tests')[1]}"})


def by_key(customer: Customer) -> Client:
    secret = f"tg_live_{customer.external_id}".ljust(40, "x")
    if not customer.api_keys.filter(label="ask").exists():
        ApiKey.issue(customer, "ask", secret=secret)
    return Client(headers={"Authorization": f"Bearer {secret}"})


def by_person(customer: Customer, role: str) -> Client:
    person = User.objects.create_user(f"a-{role}")
    Membership.objects.create(customer=customer, user=person, role=role)
    client = Client()
    client.force_login(person)
    return client


def send(client: Client, method: str, path: str, body: Any = None, **headers: str) -> Any:
    return client.generic(method, path, json.dumps(body), "application/json", headers=headers)


def test_usage_says_of_each_feature_what_is_used_and_what_is_left(customer: Customer) -> None:
    used(customer, clock.now().date(), calls=3, charge="0.5")
    send(by_operator(), "PUT", "/v1/usage/payer/quotas/api_calls", {"included": 10, "hard": True})
    document = by_key(customer).get("/v1/usage/payer").json()
    calls = document["features"]["api_calls"]
    assert {name: calls[name] for name in ("current", "included", "limit", "remaining", "overage", "percent_used")} == {
        "current": "3", "included": "10", "limit": "10", "remaining": "7", "overage": "0", "percent_used": "30",
    }  # fmt: skip
    assert (document["customer"], document["currency"], document["timezone"]) == ("payer", "USD", "UTC")
    assert calls["reset_date"] == document["period"]["end"]
    assert "stripe_customer_id" not in document
    assert "stripe_customer_id" in by_operator().get("/v1/usage/payer").json()


def test_only_the_features_asked_for_are_answered_by_any_spelling(customer: Customer) -> None:
    for feature in ("api_calls", "scans"):
        used(customer, clock.now().date(), calls=1, feature=feature)
    assert set(by_key(customer).get("/v1/usage/payer?features=API_CALL").json()["features"]) == {"api_calls"}
    assert set(by_key(customer).get("/v1/usage/payer?features=scans,api_calls").json()["features"]) == {
        "api_calls",
        "scans",
    }


def test_the_billing_page_shows_the_quota_of_calls(customer: Customer) -> None:
    used(customer, clock.now().date(), calls=3)
    quota = by_key(customer).get("/v1/billing/usage").json()["quota"]
    assert (quota["total"], quota["used"], quota["remaining"]) == ("10000", "3", "9997"), "as its plan says"
    QuotaOverride.objects.create(customer=customer, feature="api_calls", included=4)
    quota = by_key(customer).get("/v1/billing/usage").json()["quota"]
    assert (quota["total"], quota["used"], quota["remaining"], quota["percent_used"]) == ("4", "3", "1", "75")


def test_an_override_is_set_changed_and_taken_back(customer: Customer) -> None:
    path = "/v1/usage/payer/quotas/SCAN"
    made = send(by_operator(), "PUT", path, {"included": "5", "hard": True, "unit_price": "0.01", "currency": "USD", "reset_period": "monthly"})  # fmt: skip
    assert (made.status_code, made.json()["feature"], made.json()["reset_period"]) == (201, "scans", "month")
    assert send(by_operator(), "PUT", path, {"included": None}).status_code == 200
    assert QuotaOverride.objects.get().included is None
    assert send(by_operator(), "DELETE", path).status_code == 204
    assert QuotaOverride.objects.count() == 0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "included"),
        ({"included": -1}, "included"),
        ({"included": "NaN"}, "included"),
        ({"included": "1e-13"}, "included"),
        ({"included": 10**12}, "included"),
        ({"included": 1, "unit_price": -1}, "unit_price"),
        ({"included": 1, "currency": "EUR"}, "currency"),
        ({"included": None, "hard": True}, "hard"),
        ({"included": 1, "reset_period": "hourly"}, "reset_period"),
        ({"included": 1, "colour": "red"}, "colour"),
    ],
)
def test_what_is_no_quota_is_told_so(customer: Customer, body: Any, said: str) -> None:
    answer = send(by_operator(), "PUT", "/v1/usage/payer/quotas/scans", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert said in answer.json()["detail"]


def test_quotas_are_set_by_operators_only(customer: Customer) -> None:
    for client in (by_key(customer), by_person(customer, "owner")):
        assert send(client, "PUT", "/v1/usage/payer/quotas/scans", {"included": 1}).status_code == 403
        assert send(client, "DELETE", "/v1/usage/payer/quotas/scans").status_code == 403
    stranger, _ = payer("stranger")
    assert by_key(stranger).get("/v1/usage/payer").status_code == 403


def test_a_budget_is_set_shown_with_what_is_spent_and_ended(customer: Customer) -> None:
    used(customer, clock.now().date(), calls=2, charge="0.75", tokens=(10, 5))
    made = send(by_operator(), "POST", "/v1/customers/payer/budgets", {"amount": "2", "hard": True})
    assert made.status_code == 201
    assert (made.json()["spent"], made.json()["remaining"], made.json()["currency"]) == (
        "0.75",
        "1.25",
        "USD",
    )
    tokens = send(
        by_operator(), "POST", "/v1/customers/payer/budgets", {"amount": 10, "measure": "tokens"}
    ).json()
    assert (tokens["spent"], tokens["remaining"], tokens["currency"]) == ("15", "0", None)
    listed = by_key(customer).get("/v1/customers/payer/budgets").json()["data"]
    assert [one["id"] for one in listed] == [tokens["id"], made.json()["id"]]
    ended = send(by_operator(), "DELETE", f"/v1/customers/payer/budgets/{tokens['id']}").json()
    assert ended["ended_at"] is not None
    assert Budget.objects.running().count() == 1


def test_one_key_and_one_end_user_have_budgets_of_their_own(customer: Customer) -> None:
    key = ApiKey.objects.get(customer=customer)
    used(customer, clock.now().date(), charge="0.5")
    bodies = [{"amount": 1, "scope": "api_key", "api_key": str(key.pk)}, {"amount": 1, "scope": "end_user", "user_id": "ada"}, {"amount": 1, "scope": "end_user"}]  # fmt: skip
    made = [send(by_operator(), "POST", "/v1/customers/payer/budgets", body).json() for body in bodies]
    assert [one["spent"] for one in made] == ["0.5", "0", None]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "amount"),
        ({"amount": -1}, "amount"),
        ({"amount": 1, "currency": "EUR"}, "currency"),
        ({"amount": 1, "scope": "api_key"}, "api_key"),
        ({"amount": 1, "scope": "api_key", "api_key": "00000000-0000-4000-8000-000000000000"}, "no such key"),
        ({"amount": 1, "user_id": "ada"}, "user_id"),
        ({"amount": 1, "scope": "end_user", "user_id": "x" * 257}, "user_id"),
        ({"amount": 1, "name": "x" * 101}, "name"),
        ({"amount": 1, "name": "\0"}, "name"),
    ],
)
def test_what_is_no_budget_is_told_so(customer: Customer, body: Any, said: str) -> None:
    answer = send(by_operator(), "POST", "/v1/customers/payer/budgets", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert said in answer.json()["detail"]


def test_owners_and_admins_set_budgets_and_end_those_that_are_theirs(customer: Customer) -> None:
    ours = send(by_operator(), "POST", "/v1/customers/payer/budgets", {"amount": 1}).json()
    owner = by_person(customer, "owner")
    theirs = send(owner, "POST", "/v1/customers/payer/budgets", {"amount": 1})
    assert (theirs.status_code, theirs.json()["by_operator"]) == (201, False)
    assert send(owner, "DELETE", f"/v1/customers/payer/budgets/{theirs.json()['id']}").status_code == 200
    assert send(owner, "DELETE", f"/v1/customers/payer/budgets/{ours['id']}").status_code == 403
    for client in (by_key(customer), by_person(customer, "viewer")):
        assert send(client, "POST", "/v1/customers/payer/budgets", {"amount": 1}).status_code == 403


def test_a_budget_under_one_idempotency_key_is_set_once(customer: Customer) -> None:
    headers = {"Idempotency-Key": "b-1"}
    first, second = (
        send(by_operator(), "POST", "/v1/customers/payer/budgets", {"amount": 1}, **headers) for _ in range(2)
    )
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json()["id"] == second.json()["id"]
    other = send(by_operator(), "POST", "/v1/customers/payer/budgets", {"amount": 2}, **headers)
    assert (other.status_code, Budget.objects.get().amount) == (409, Decimal(1))
