"""Customers, keys and subscriptions over the API: for operators, and to look at for the customer itself."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from django.contrib.auth import get_user_model
from django.db import IntegrityError, connection, transaction
from django.test import Client

from billing import keys
from billing.models import ApiKey, Customer, Membership, OperatorToken, Subscription
from metering.models import IdempotencyKey
from tests.billing.rows import key_of, payer

pytestmark = pytest.mark.django_db


class Caller:
    """Somebody who sends JSON to `/v1/`."""

    def __init__(self, secret: str = "", person: Any = None) -> None:
        self._client = Client(headers={"Authorization": f"Bearer {secret}"} if secret else {})
        if person is not None:
            self._client.force_login(person)

    def post(self, path: str, body: Any, key: str = "") -> Any:
        text = body if isinstance(body, str) else json.dumps(body)
        headers = {"Idempotency-Key": key} if key else {}
        return self._client.post(f"/v1/{path}", text, "application/json", headers=headers)

    def get(self, path: str, **query: str) -> Any:
        return self._client.get(f"/v1/{path}", query)

    def delete(self, path: str) -> Any:
        return self._client.delete(f"/v1/{path}")


def refusal(answer: Any) -> tuple[int, str]:
    assert answer.headers["Content-Type"] == "application/problem+json"
    return answer.status_code, answer.json()["code"]


@pytest.fixture
def operator() -> Caller:
    return Caller(OperatorToken.issue("tests")[1])


@pytest.fixture
def own() -> Caller:
    """The payer's key."""
    return Caller(payer()[1])


def people(customer: Customer) -> dict[str, Caller]:
    """A person of each role, by role."""
    made = {}
    for role in Membership.Role.values:
        person = get_user_model().objects.create_user(f"{role} of {customer.external_id}")
        Membership.objects.create(customer=customer, user=person, role=role)
        made[role] = Caller(person=person)
    return made


# Customers


def test_an_operator_adds_a_customer(operator: Caller) -> None:
    answer = operator.post(
        "customers", {"name": "Acme", "email": "a@acme.example", "external_id": "acme", "plan": "free"}
    )
    assert answer.status_code == 201
    document = answer.json()
    assert {name: document[name] for name in ("name", "email", "external_id", "plan", "currency", "is_active")} == {
        "name": "Acme", "email": "a@acme.example", "external_id": "acme", "plan": "free", "currency": "USD", "is_active": True,
    }  # fmt: skip
    subscription = Subscription.objects.get()
    assert document["id"] == str(subscription.customer_id)
    assert document["period"]["start"] == subscription.started_at.isoformat() == document["created_at"]
    for name in ("acme", document["id"]):
        assert operator.get(f"customers/{name}").json() == document


def test_a_customer_needs_only_a_name(operator: Caller) -> None:
    document = operator.post("customers", {"name": "Acme"}).json()
    assert document["external_id"] == document["id"]
    assert document["plan"] == "payg"
    assert not Subscription.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 201},
        {"name": "A\0cme"},
        {"name": 7},
        {"name": "Acme", "nmae": "Acme"},
        {"name": "Acme", "email": "nobody"},
        {"name": "Acme", "external_id": ""},
        {"name": "Acme", "external_id": "track"},
        {"name": "Acme", "external_id": "a/b"},
        {"name": "Acme", "plan": "nothing"},
        "[]",
        "{",
    ],
)
def test_a_body_that_makes_no_sense_adds_nobody(operator: Caller, body: Any) -> None:
    assert refusal(operator.post("customers", body, key="k")) == (400, "invalid_request")
    assert not Customer.objects.exists()
    assert not IdempotencyKey.objects.exists()


def test_an_external_id_is_given_once(operator: Caller) -> None:
    operator.post("customers", {"name": "Acme", "external_id": "acme"})
    assert refusal(operator.post("customers", {"name": "Other", "external_id": "acme"})) == (
        409,
        "already_exists",
    )
    assert Customer.objects.get().name == "Acme"


def test_customers_are_listed_page_by_page_newest_first(operator: Caller) -> None:
    for number in range(5):
        plan = {"plan": "free"} if number % 2 else {}
        operator.post("customers", {"name": f"Customer {number}", "external_id": f"c{number}", **plan})
    seen, query = [], {"limit": "2"}
    while True:
        page = operator.get("customers", **query).json()
        seen += [(one["external_id"], one["plan"]) for one in page["data"]]
        if page["next_cursor"] is None:
            break
        query["cursor"] = page["next_cursor"]
    assert seen == [("c4", "payg"), ("c3", "free"), ("c2", "payg"), ("c1", "free"), ("c0", "payg")]
    assert refusal(operator.get("customers", curser="x")) == (400, "invalid_request")


def test_a_list_asks_as_often_for_many_as_for_one(
    operator: Caller, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        operator.post("customers", {"name": f"Customer {number}", "plan": "free"})
    with django_assert_max_num_queries(5):
        assert len(operator.get("customers").json()["data"]) == 12


# Who may


def test_a_key_sees_its_own_customer_only(own: Caller) -> None:
    stranger, _ = payer("stranger")
    assert [one["external_id"] for one in own.get("customers").json()["data"]] == ["payer"]
    for path in ("", "/keys", "/subscriptions"):
        assert own.get(f"customers/payer{path}").status_code == 200
        for name in ("stranger", str(stranger.pk), "nobody"):
            assert refusal(own.get(f"customers/{name}{path}")) == (403, "forbidden")
    assert "stripe_customer_id" not in own.get("customers/payer").json()


def test_a_key_adds_and_changes_nothing(own: Caller) -> None:
    issued = key_of(Customer.objects.get())
    assert refusal(own.post("customers", {"name": "Acme"})) == (403, "forbidden")
    assert refusal(own.post("customers/payer/keys", {})) == (403, "forbidden")
    assert refusal(own.delete(f"customers/payer/keys/{issued}")) == (403, "forbidden")
    assert refusal(own.post("customers/payer/subscriptions", {"plan": "enterprise"})) == (403, "forbidden")
    assert (Customer.objects.count(), ApiKey.objects.count(), Subscription.objects.count()) == (1, 1, 0)
    assert ApiKey.objects.get().is_live


def test_owner_and_admin_manage_the_keys_of_their_own_customer() -> None:
    customer, _ = payer()
    stranger, _ = payer("stranger")
    for role, caller in people(customer).items():
        may = role in ("owner", "admin")
        answer = caller.post("customers/payer/keys", {"label": role})
        assert answer.status_code == (201 if may else 403), role
        made = ApiKey.objects.filter(label=role).first() or ApiKey.objects.get(
            customer=customer, label="tests"
        )
        assert caller.delete(f"customers/payer/keys/{made.pk}").status_code == (204 if may else 403), role
        assert refusal(caller.post("customers/stranger/keys", {})) == (403, "forbidden")
        assert refusal(caller.post("customers/payer/subscriptions", {"plan": "enterprise"})) == (
            403,
            "forbidden",
        )
    assert ApiKey.objects.get(customer=customer, label="tests").is_live
    assert ApiKey.objects.filter(customer=stranger).count() == 1


def test_without_a_key_nothing_is_seen() -> None:
    payer()
    for path in (
        "customers",
        "customers/payer",
        "customers/payer/keys",
        "customers/payer/subscriptions",
        "plans",
    ):
        assert refusal(Caller().get(path)) == (401, "invalid_api_key")


def test_an_operator_is_told_that_there_is_no_such_customer(operator: Caller) -> None:
    for path in ("customers/nobody", "customers/nobody/keys", "customers/nobody/subscriptions"):
        assert refusal(operator.get(path)) == (404, "not_found")


# Keys


def test_an_issued_key_is_answered_once_and_listed_without_its_secret(operator: Caller) -> None:
    payer()
    answer = operator.post("customers/payer/keys", {"label": "Production"})
    assert answer.status_code == 201 and answer.headers["Cache-Control"] == "no-store"
    document = answer.json()
    assert Caller(document["key"]).get("customers/payer").status_code == 200
    assert ApiKey.objects.get(label="Production").sha256 == keys.digest(document["key"])
    listed = operator.get("customers/payer/keys")
    assert document["key"] not in listed.content.decode()
    assert [one["label"] for one in listed.json()["data"]] == ["Production", "tests"]
    assert listed.json()["data"][0]["prefix"] == document["key"][:14]


def test_a_key_is_issued_with_limits_of_its_own(operator: Caller) -> None:
    payer()
    limits = {"requests_per_minute": 60, "tokens_per_minute": 1000, "concurrent_calls": 1}
    answer = operator.post("customers/payer/keys", {"label": "Slow", **limits})
    assert answer.status_code == 201 and answer.json().items() >= limits.items()
    listed = operator.get("customers/payer/keys").json()["data"]
    assert listed[0].items() >= limits.items()
    assert listed[1].items() >= dict.fromkeys(limits).items(), "none where none is set"
    for name in limits:
        for wrong in (0, -1, 2**63, 1.5, "1", True):
            answer = operator.post("customers/payer/keys", {name: wrong})
            assert refusal(answer) == (400, "invalid_request"), (name, wrong)
        assert operator.post("customers/payer/keys", {name: 1}).status_code == 201
        with pytest.raises(IntegrityError), transaction.atomic():
            ApiKey.objects.update(**{name: 0})


def test_a_revoked_key_opens_nothing_and_stays_listed(operator: Caller) -> None:
    _, secret = payer()
    issued = ApiKey.objects.get()
    for _ in range(2):
        assert operator.delete(f"customers/payer/keys/{issued.pk}").status_code == 204
    assert refusal(Caller(secret).get("customers/payer")) == (401, "invalid_api_key")
    (listed,) = operator.get("customers/payer/keys").json()["data"]
    issued.refresh_from_db()
    assert issued.revoked_at is not None and listed["revoked_at"] == issued.revoked_at.isoformat()


def test_a_key_of_another_customer_is_not_revoked(operator: Caller) -> None:
    payer()
    stranger, _ = payer("stranger")
    assert refusal(operator.delete(f"customers/payer/keys/{key_of(stranger)}")) == (404, "not_found")
    assert ApiKey.objects.get(customer=stranger).is_live


def test_a_label_that_cannot_be_kept_issues_nothing(operator: Caller) -> None:
    payer()
    for body in ({"label": "x" * 101}, {"lable": "Production"}, {"label": None}):
        assert refusal(operator.post("customers/payer/keys", body)) == (400, "invalid_request")
    assert ApiKey.objects.count() == 1


# Subscriptions


def test_an_operator_puts_a_customer_on_another_plan(operator: Caller) -> None:
    payer()
    first = operator.post("customers/payer/subscriptions", {"plan": "free"})
    again = operator.post("customers/payer/subscriptions", {"plan": "free"})
    second = operator.post("customers/payer/subscriptions", {"plan": "professional"})
    assert [answer.status_code for answer in (first, again, second)] == [201, 200, 201]
    assert first.json() == again.json()
    newest, oldest = operator.get("customers/payer/subscriptions").json()["data"]
    assert (newest["plan"], newest["ended_at"], newest["base_fee"], newest["version"]) == (
        "professional",
        None,
        "49",
        1,
    )
    assert (oldest["plan"], oldest["ended_at"], oldest["period"]) == ("free", newest["started_at"], None)
    assert newest["period"]["start"] == oldest["started_at"], "periods go on as they were"
    assert operator.get("customers/payer").json()["plan"] == "professional"
    assert operator.get("billing/usage", customer="payer").json()["plan"] == "professional"


def test_a_plan_that_cannot_be_had_is_refused(operator: Caller) -> None:
    payer(currency="EUR")
    for body in ({"plan": "nothing"}, {"plan": "free"}, {"plan": None}, {"plan": "free", "at": "2026-01-01"}):
        assert refusal(operator.post("customers/payer/subscriptions", body)) == (400, "invalid_request")
    assert not Subscription.objects.exists()


# Plans


def test_customers_see_public_plans_and_their_own(operator: Caller, own: Caller) -> None:
    def slugs(caller: Caller) -> list[str]:
        return [plan["slug"] for plan in caller.get("plans").json()["data"]]

    public = ["free", "payg", "prepaid", "professional"]
    assert slugs(own) == public
    assert slugs(operator) == ["enterprise", *public]
    assert refusal(own.get("plans/enterprise")) == (404, "not_found")
    operator.post("customers/payer/subscriptions", {"plan": "enterprise"})
    assert slugs(own) == ["enterprise", *public]
    assert own.get("plans/enterprise").json()["features"]["scans"]["included"] is None
    assert refusal(own.get("plans/nothing")) == (404, "not_found")


def test_a_plan_is_shown_as_a_new_subscription_gets_it(own: Caller) -> None:
    plan = own.get("plans/professional").json()
    assert (plan["base_fee"], plan["currency"], plan["interval"], plan["version"]) == (
        "49",
        "USD",
        "month",
        1,
    )
    assert plan["limits"] == {
        "requests_per_minute": None,
        "tokens_per_minute": None,
        "concurrent_calls": None,
    }
    assert plan["features"]["scans"] == {
        "display_name": "Scans", "unit": "scan", "included": "1000", "hard": False, "reset_period": "billing", "price_model": "flat",
        "unit_price": "0.01", "tiers": [], "package_size": None, "percent": None, "minimum": None, "maximum": None, "aggregation": "sum",
    }  # fmt: skip


# One act under one key


@pytest.mark.parametrize(
    ("path", "body", "other"),
    [
        ("customers", {"name": "Acme", "plan": "free"}, {"name": "Acme"}),
        ("customers/payer/keys", {"label": "Production"}, {"label": "Staging"}),
        ("customers/payer/subscriptions", {"plan": "free"}, {"plan": "professional"}),
    ],
)
def test_a_repeat_under_one_key_does_nothing_twice(
    operator: Caller, path: str, body: dict[str, str], other: dict[str, str]
) -> None:
    payer()
    first = operator.post(path, body, key="k-1")
    counted = (Customer.objects.count(), ApiKey.objects.count(), Subscription.objects.count())
    again = operator.post(path, dict(reversed(body.items())), key="k-1")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json()["id"] == again.json()["id"]
    assert refusal(operator.post(path, other, key="k-1")) == (409, "idempotency_conflict")
    assert (Customer.objects.count(), ApiKey.objects.count(), Subscription.objects.count()) == counted
    assert operator.post(path, other, key="k-2").status_code == 201


def test_a_repeat_says_which_key_was_issued_and_that_its_secret_is_gone(operator: Caller) -> None:
    payer()
    first = operator.post("customers/payer/keys", {"label": "Production"}, key="k").json()
    again = operator.post("customers/payer/keys", {"label": "Production"}, key="k").json()
    assert (again["id"], again["key"]) == (first["id"], None)
    assert "shown once" in again["detail"]
    (claim,) = IdempotencyKey.objects.all()
    assert claim.event_id == UUID(first["id"])
    assert not {first["key"], "k"} & {str(value) for value in vars(claim).values()}


def test_a_repeated_subscription_does_not_undo_a_later_one(operator: Caller) -> None:
    payer()
    first = operator.post("customers/payer/subscriptions", {"plan": "free"}, key="k").json()
    operator.post("customers/payer/subscriptions", {"plan": "professional"})
    again = operator.post("customers/payer/subscriptions", {"plan": "free"}, key="k")
    assert again.status_code == 200 and again.json()["id"] == first["id"]
    assert again.json()["ended_at"] is not None
    assert operator.get("customers/payer").json()["plan"] == "professional"


def test_one_key_may_name_an_act_of_each_kind_and_of_each_customer(operator: Caller) -> None:
    payer()
    payer("stranger")
    for path, body in (
        ("customers", {"name": "Acme"}),
        ("customers/payer/keys", {}),
        ("customers/payer/subscriptions", {"plan": "free"}),
        ("customers/stranger/keys", {}),
        ("customers/stranger/subscriptions", {"plan": "free"}),
    ):
        assert operator.post(path, body, key="k").status_code == 201, path


def test_what_was_refused_leaves_its_key_free(operator: Caller) -> None:
    payer()
    assert refusal(operator.post("customers/payer/subscriptions", {"plan": "nothing"}, key="k")) == (
        400,
        "invalid_request",
    )
    assert operator.post("customers/payer/subscriptions", {"plan": "free"}, key="k").status_code == 201


@pytest.mark.django_db(transaction=True)
def test_of_two_at_once_under_one_key_one_acts() -> None:
    payer()
    _, token = OperatorToken.issue("tests")
    together = Barrier(2)

    def twice(act: Callable[[Caller], Any]) -> list[Any]:
        def once(_number: int) -> Any:
            try:
                together.wait()
                return act(Caller(token))
            finally:
                connection.close()

        with ThreadPoolExecutor(2) as threads:
            return list(threads.map(once, range(2)))

    for number in range(5):
        answers = twice(lambda caller: caller.post("customers/payer/keys", {}, key=f"k-{number}"))  # noqa: B023
        assert sorted(answer.status_code for answer in answers) == [200, 201]
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert ApiKey.objects.count() == number + 2
