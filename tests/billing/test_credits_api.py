"""Credits over the API, for operators, and to look at for the customer itself."""

import base64
import json
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.test import Client

from billing.ledger_check import check_ledger
from billing.models import Balance, Customer, Entry, OperatorToken
from pricing import clock
from tests.billing.rows import payer

pytestmark = pytest.mark.django_db


class Caller:
    def __init__(self, secret: str) -> None:
        self._client = Client(headers={"Authorization": f"Bearer {secret}"} if secret else {})

    def post(self, path: str, body: Any, key: str = "") -> Any:
        text = body if isinstance(body, str) else json.dumps(body)
        headers = {"Idempotency-Key": key} if key else {}
        return self._client.post(f"/v1/customers/{path}", text, "application/json", headers=headers)

    def get(self, path: str, **query: str) -> Any:
        return self._client.get(f"/v1/customers/{path}", query)


@pytest.fixture
def customer() -> Customer:
    return payer()[0]


@pytest.fixture
def operator(customer: Customer) -> Caller:
    return Caller(OperatorToken.issue("tests")[1])


def test_an_operator_gives_credits(operator: Caller, customer: Customer) -> None:
    answer = operator.post("payer/credits", {"amount": "25.00", "currency": "USD", "reason": "wire 17"})
    assert answer.status_code == 201
    document = answer.json()
    assert (document["amount"], document["remaining"], document["kind"]) == ("25", "25", "paid")
    assert (document["balance"]["available"], document["balance"]["free"]) == ("25", "25")
    entry = Entry.objects.get()
    assert entry.reason == "wire 17" and entry.actor.startswith("tgo_")
    assert list(check_ledger()) == []


@pytest.mark.parametrize("number", ["0.1", '"0.1"', "1e-1"])
def test_an_amount_is_read_exactly_however_it_is_written(operator: Caller, number: str) -> None:
    assert operator.post("payer/credits", f'{{"amount": {number}}}').json()["amount"] == "0.1"


def test_a_repeat_under_one_key_gives_nothing_twice(operator: Caller) -> None:
    first = operator.post("payer/credits", {"amount": "25"}, key="wire 17")
    again = operator.post("payer/credits", {"amount": "25.00"}, key="wire 17")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert Balance.objects.get().available == 25


def test_another_amount_under_the_same_key_is_a_conflict(operator: Caller) -> None:
    operator.post("payer/credits", {"amount": "25"}, key="wire 17")
    answer = operator.post("payer/credits", {"amount": "26"}, key="wire 17")
    assert (answer.status_code, answer.json()["code"]) == (409, "idempotency_conflict")
    assert Balance.objects.get().available == 25


@pytest.mark.parametrize(
    "body",
    [
        "", "[]", "{", "{}", '{"amount": "x"}', '{"amount": null}', '{"amount": 0}', '{"amount": "-1"}', '{"amount": "NaN"}',
        '{"amount": "0.0000000000001"}', '{"amount": 1, "currency": "EUR"}', '{"amount": 1, "curency": "USD"}',
        '{"amount": 1, "kind": "gift"}', '{"amount": 1, "priority": 101}', '{"amount": 1, "priority": -1}',
        '{"amount": 1, "expires_at": "2020-01-01T00:00:00Z"}', '{"amount": 1, "expires_at": "2036-01-01T00:00:00"}',
        '{"amount": 1, "reason": "' + "x" * 301 + '"}', '{"amount": 1, "amount": "9' + "9" * 400 + '"}', '{"amount": 1e400}',
        '{"amount": 1, "reason": "a\\u0000b"}', '{"amount": 1, "reason": "\\ud800"}', '{"amount": 9300000.5e6}',
    ],
)  # fmt: skip
def test_a_body_that_cannot_be_meant_is_refused_and_changes_nothing(operator: Caller, body: str) -> None:
    answer = operator.post("payer/credits", body)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.content
    assert Entry.objects.count() == 0


def test_a_customer_looks_at_its_credits_and_cannot_give_itself_any(
    customer: Customer, operator: Caller
) -> None:
    operator.post("payer/credits", {"amount": "25"})
    own = Caller(payer("second")[1])
    assert own.post("second/credits", {"amount": "25"}).json()["code"] == "forbidden"
    assert own.get("second/balance").json()["available"] == "0"
    assert own.get("payer/balance").status_code == 403, "no customer sees another"
    assert own.get("payer/credits").status_code == 403
    assert Caller("").get("payer/credits").status_code == 401


def test_the_list_goes_on_where_the_page_ended(operator: Caller) -> None:
    for amount in range(1, 6):
        operator.post("payer/credits", {"amount": str(amount)})
    seen, query = [], {"limit": "2"}
    for _ in range(3):
        page = operator.get("payer/credits", **query).json()
        seen += [one["amount"] for one in page["data"]]
        query["cursor"] = page["next_cursor"]
    assert seen == ["5", "4", "3", "2", "1"]
    assert page["next_cursor"] is None
    for bad in ("x", "eA==", "MjAyMC0wMS0wMSB4"):
        assert operator.get("payer/credits", cursor=bad).status_code == 400
    for bad in ("0", "501", "x", "-1"):
        assert operator.get("payer/credits", limit=bad).status_code == 400


def test_a_refund_takes_back_what_is_left(operator: Caller) -> None:
    grant = operator.post("payer/credits", {"amount": "25"}).json()["id"]
    part = operator.post(f"payer/credits/{grant}/refund", {"amount": "5", "reason": "asked"}, key="r")
    again = operator.post(f"payer/credits/{grant}/refund", {"amount": "5", "reason": "asked"}, key="r")
    rest = operator.post(f"payer/credits/{grant}/refund", {"reason": "all"})
    none = operator.post(f"payer/credits/{grant}/refund", {"reason": "more"})
    assert [answer.status_code for answer in (part, again, rest, none)] == [201, 200, 201, 409]
    assert (rest.json()["refunded"], rest.json()["balance"]["available"]) == ("20", "0")
    assert Balance.objects.get().refunded == Decimal(25)
    assert list(check_ledger()) == []


def test_a_grant_of_another_customer_is_not_found(operator: Caller) -> None:
    payer("second")
    grant = operator.post("payer/credits", {"amount": "25"}).json()["id"]
    assert operator.post(f"second/credits/{grant}/refund", {"reason": "x"}).status_code == 404


@pytest.mark.parametrize(
    "expires_at",
    ["9999-12-31T23:59:59-12:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+12:00", "1969-12-31T23:59:59Z", "2999-01-01T00:00:00"],
)  # fmt: skip
def test_an_expiry_that_no_database_holds_in_every_zone_is_refused(operator: Caller, expires_at: str) -> None:
    answer = operator.post("payer/credits", {"amount": 1, "expires_at": expires_at})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "expires_at" in answer.json()["detail"]
    assert operator.get("payer/credits").json()["data"] == []


def test_an_expiry_is_kept_in_utc(operator: Caller) -> None:
    answer = operator.post("payer/credits", {"amount": 1, "expires_at": "2999-01-01T01:00:00+02:00"})
    assert answer.json()["expires_at"] == "2998-12-31T23:00:00+00:00"


def test_a_repeat_is_answered_also_when_the_credits_have_expired_meanwhile(
    operator: Caller,
) -> None:
    body = {"amount": 1, "expires_at": (clock.now() + timedelta(hours=1)).isoformat()}
    first = operator.post("payer/credits", body, key="k")
    clock.set_offset(timedelta(hours=2))
    assert operator.post("payer/credits", body, key="k").json()["id"] == first.json()["id"]
    late = operator.post("payer/credits", body, key="another")
    assert (late.status_code, late.json()["detail"]) == (400, "expires_at lies in the past.")


@pytest.mark.parametrize(("length", "status"), [(300, 201), (301, 400)])
def test_the_reason_of_a_refund_fits_into_the_ledger(operator: Caller, length: int, status: int) -> None:
    grant = operator.post("payer/credits", {"amount": 1}).json()["id"]
    assert operator.post(f"payer/credits/{grant}/refund", {"reason": "x" * length}).status_code == status


@pytest.mark.parametrize(
    "cursor",
    ["9999-12-31T23:59:59-12:00 00000000-0000-4000-8000-000000000000", "0001-01-01T00:00:00+12:00 00000000-0000-4000-8000-000000000000", "x"],
)  # fmt: skip
def test_a_cursor_that_was_made_up_is_refused(operator: Caller, cursor: str) -> None:
    made_up = base64.urlsafe_b64encode(cursor.encode()).decode()
    assert operator.get("payer/credits", cursor=made_up).status_code == 400
