"""`GET /v1/billing/usage`, for keys, operators and people."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from billing.models import ApiKey, Customer, Membership, OperatorToken
from pricing import clock
from tests.billing.rows import key_of, payer, used

pytestmark = pytest.mark.django_db

PATH = "/v1/billing/usage"
NOVEMBER = {"start_date": "2026-11-01", "end_date": "2026-11-30"}


@pytest.fixture
def key() -> str:
    """The payer's key. The payer made 3 calls on the 2nd, 2 on the 3rd, and 1 in October."""
    customer, secret = payer()
    used(
        customer, date(2026, 11, 2), calls=3, tokens=(100, 20), cost="0.000000000123", charge="0.000000000148"
    )
    used(customer, date(2026, 11, 3), calls=1, tokens=(10, 2), cost="1.5", charge="1.8", model="demo-large")
    used(customer, date(2026, 11, 3), calls=1, tokens=(10, 2), cost="0.5", charge="0.6")
    used(customer, date(2026, 10, 31), calls=1, tokens=(7, 7), cost="9", charge="9")
    return secret


def get(secret: str = "", **query: str) -> Any:
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return Client(headers=headers).get(PATH, query)


def refusal(response: Any) -> tuple[int, str]:
    assert response.headers["Content-Type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["request_id"] == response.headers["X-Request-Id"]
    return response.status_code, problem["code"]


def test_rows_by_day_add_up_to_the_totals(key: str) -> None:
    document = get(key, **NOVEMBER).json()
    assert [(row["day"], row["calls"]) for row in document["rows"]] == [
        ("2026-11-02", 3),
        ("2026-11-03", 1 + 1),
    ]
    assert document["totals"]["calls"] == 3 + 1 + 1
    assert document["totals"]["tokens_total"] == 120 + 12 + 12
    assert document["totals"]["cost_total"] == str(
        Decimal("0.000000000123") + Decimal("1.5") + Decimal("0.5")
    )
    assert document["totals"]["charge_total"] == "2.400000000148"
    assert (document["timezone"], document["currency"], document["customer"]) == ("UTC", "USD", "payer")


def test_both_days_of_the_range_are_included(key: str) -> None:
    document = get(key, start_date="2026-10-31", end_date="2026-11-02").json()
    assert [row["day"] for row in document["rows"]] == ["2026-10-31", "2026-11-02"]


def test_rows_by_model_and_by_feature(key: str) -> None:
    by_model = get(key, **NOVEMBER, group_by="model").json()["rows"]
    assert [(row["model"], row["charge_total"]) for row in by_model] == [
        ("demo-large", "1.8"),
        ("demo-small", "0.600000000148"),
    ]
    by_feature = get(key, **NOVEMBER, group_by="feature").json()["rows"]
    assert [(row["feature"], row["calls"]) for row in by_feature] == [("api_calls", 5)]


def test_rows_by_key_say_which_key_it_is(key: str) -> None:
    row = get(key, **NOVEMBER, group_by="api_key").json()["rows"][0]
    customer = Customer.objects.get(external_id="payer")
    assert (row["api_key"], row["label"], row["prefix"]) == (str(key_of(customer)), "tests", key[:14])


def test_without_dates_the_current_period(key: str) -> None:
    customer = Customer.objects.get(external_id="payer")
    used(customer, date(2026, 11, 4), feature="documents", quantity=12, charge="0.25")
    clock.set_offset(datetime(2026, 11, 20, tzinfo=UTC) - clock.now())
    document = get(key).json()
    assert document["period"] == {"start": "2026-11-01T00:00:00+00:00", "end": "2026-12-01T00:00:00+00:00"}
    assert document["current_usage"] == {
        "total_calls": 3 + 1 + 1 + 1,
        "total_documents": "12",
        "total_tokens": 120 + 12 + 12,
        "total_cost": "2.650000000148",  # 2.400000000148 + 0.25
    }
    assert document["plan"] == "payg"
    assert (document["quota"]["total"], document["quota"]["used"]) == ("10000", "5")
    # nineteen of thirty days: 6 calls become 9
    assert (document["projected"]["calls"], document["projected"]["method"]) == (9, "elapsed")
    assert document["upgrade"] is None


def test_nothing_used_is_zero_and_no_rows(key: str) -> None:
    document = get(key, start_date="2026-01-01", end_date="2026-01-31").json()
    assert document["rows"] == []
    assert (document["totals"]["calls"], document["totals"]["charge_total"]) == (0, "0")


@pytest.mark.parametrize("header", ["X-Api-Key", "X-Goog-Api-Key"])
def test_the_key_comes_in_the_headers_of_the_official_clients(key: str, header: str) -> None:
    assert Client(headers={header: key}).get(PATH).status_code == 200


@pytest.mark.parametrize(
    "query",
    [
        {"start_date": "2026-11-01"},
        {"end_date": "2026-11-01"},
        {"group_by": "day"},
        {**NOVEMBER, "group_by": "hour"},
        {**NOVEMBER, "grop_by": "day"},
        {"start_date": "2026-11-31", "end_date": "2026-12-01"},
        {"start_date": "2026-12-01", "end_date": "2026-11-01"},
        {"start_date": "2020-01-01", "end_date": "2026-11-01"},
        {"start_date": "1' or '1'='1", "end_date": "2026-11-01"},
    ],
)
def test_a_query_that_makes_no_sense_is_refused(key: str, query: dict[str, str]) -> None:
    assert refusal(get(key, **query)) == (400, "invalid_request")


def test_a_parameter_given_twice_is_refused(key: str) -> None:
    response = Client(headers={"X-Api-Key": key}).get(f"{PATH}?start_date=2026-11-01&start_date=2026-11-02")
    assert refusal(response) == (400, "invalid_request")


def test_only_get_is_answered(key: str) -> None:
    response = Client(headers={"X-Api-Key": key}).post(PATH)
    assert refusal(response) == (405, "method_not_allowed")


def test_no_key_a_wrong_key_and_a_revoked_key_are_refused(key: str) -> None:
    assert refusal(get()) == (401, "invalid_api_key")
    assert get().headers["WWW-Authenticate"] == "Bearer"
    assert refusal(get("tg_live_" + "x" * 32)) == (401, "invalid_api_key")
    assert ApiKey.objects.get().revoke()
    assert refusal(get(key)) == (401, "invalid_api_key")


def test_a_suspended_customers_key_is_refused(key: str) -> None:
    Customer.objects.update(is_active=False)
    assert refusal(get(key)) == (403, "customer_suspended")


def test_a_key_names_its_own_customer_only(key: str) -> None:
    stranger, _ = payer("stranger")
    own = Customer.objects.get(external_id="payer")
    assert get(key, customer="payer").status_code == 200
    assert get(key, customer=str(own.pk)).json()["customer"] == "payer"
    for other in ("stranger", str(stranger.pk), "nobody", ""):
        expected = (200, "") if other == "" else (403, "forbidden")
        response = get(key, customer=other)
        assert (refusal(response) if other else (response.status_code, "")) == expected


def test_an_operator_names_any_customer(key: str) -> None:
    _, token = OperatorToken.issue("tests")
    assert get(token, customer="payer", **NOVEMBER).json()["totals"]["calls"] == 5
    assert refusal(get(token)) == (400, "invalid_request")
    assert refusal(get(token, customer="nobody")) == (404, "not_found")
    OperatorToken.objects.get().revoke()
    assert refusal(get(token, customer="payer")) == (401, "invalid_api_key")


def test_a_person_sees_the_customers_it_belongs_to(key: str) -> None:
    stranger, _ = payer("stranger")
    person = get_user_model().objects.create_user("someone")
    client = Client()
    client.force_login(person)
    assert refusal(client.get(PATH)) == (403, "forbidden")
    Membership.objects.create(customer=Customer.objects.get(external_id="payer"), user=person)
    assert client.get(PATH, NOVEMBER).json()["totals"]["calls"] == 5
    assert refusal(client.get(PATH, {"customer": "stranger"})) == (403, "forbidden")
    Membership.objects.create(customer=stranger, user=person)
    assert refusal(client.get(PATH)) == (400, "invalid_request")
    assert client.get(PATH, {"customer": "stranger"}).json()["current_usage"]["total_calls"] == 0


def test_the_use_of_a_key_is_noted_to_the_minute(key: str) -> None:
    get(key)
    first = ApiKey.objects.get().last_used_at
    get(key)
    assert first is not None
    assert ApiKey.objects.get().last_used_at == first
