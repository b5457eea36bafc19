"""Alerts: each threshold once for each period, as a message and as an e-mail, whoever looks and however often."""

import asyncio
import json
import threading
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.core import mail
from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connections
from django.test import Client, override_settings

from billing import alerts, ledger
from billing.models import Alert, ApiKey, Budget, Customer, OperatorToken, OutboxMessage, QuotaOverride
from billing.standings import standings_of
from billing.tasks import raise_alerts
from metering.ids import uuid7
from metering.wiring import current_store
from pricing import clock
from tests.billing.rows import payer
from tests.metering.rows import a_hold, an_event

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def customer() -> Customer:
    return payer(email="billing@payer.example")[0]


def calls(customer: Customer, times: int, **values: Any) -> None:
    """So many calls of the customer, settled just now."""
    at = values.pop("at", None) or clock.now()
    period_start = customer.period_at(at).start
    holds = [a_hold(customer.pk, at, period_start=period_start) for _ in range(times)]
    events = [an_event(hold, timedelta(0), **values) for hold in holds]

    async def write() -> None:
        lane, writer = await current_store().open_lane("test"), uuid4()
        await lane.hold(writer, 1, holds, None)
        await lane.settle(writer, 2, events, None)
        await lane.close()

    asyncio.run(write())


def fired() -> list[tuple[str, str]]:
    return sorted(Alert.objects.values_list("about", "threshold"))


def an_allowance(customer: Customer, included: int, **values: Any) -> None:
    QuotaOverride.objects.create(customer=customer, feature="api_calls", included=included, **values)


def test_each_threshold_of_an_allowance_fires_once(customer: Customer) -> None:
    an_allowance(customer, 10)
    found = []
    for _ in range(12):
        calls(customer, 1)
        raise_alerts()
        found.append([threshold for _, threshold in fired()])
    assert found[6:10] == [[], ["80%"], ["80%", "90%"], ["100%", "80%", "90%"]]  # after 7, 8, 9 and 10 calls
    assert found[-1] == found[9]
    assert [message.subject for message in mail.outbox] == [
        "API calls: 80% used, you are approaching your limit", "API calls: 90% used, you are approaching your limit", "API calls: all is used",
    ]  # fmt: skip
    assert mail.outbox[0].to == ["billing@payer.example"]
    assert "8 of 10 is used" in str(mail.outbox[0].body)


def test_thresholds_passed_at_once_are_three_messages_and_one_e_mail(customer: Customer) -> None:
    an_allowance(customer, 2)
    calls(customer, 2)
    raise_alerts()
    assert OutboxMessage.objects.count() == 3
    assert [message.subject for message in mail.outbox] == ["API calls: all is used"]
    payload = OutboxMessage.objects.order_by("created_at").last().payload  # type: ignore[union-attr]
    assert (payload["subject"], payload["used"], payload["limit"], payload["customer"]) == (
        "allowance",
        "2",
        "2",
        "payer",
    )


def test_a_threshold_fires_again_in_the_next_period(customer: Customer) -> None:
    an_allowance(customer, 1, reset_period="day")
    calls(customer, 1)
    now = clock.now()
    assert alerts.raise_due(now) == 3
    tomorrow = now + timedelta(days=1)
    calls(customer, 1, at=tomorrow)
    assert alerts.raise_due(tomorrow) == 3
    assert Alert.objects.count() == 6


def test_budgets_alert_by_customer_key_and_end_user(customer: Customer) -> None:
    key = ApiKey.objects.get(customer=customer)
    money = Budget.objects.create(customer=customer, amount=Decimal("0.00024"))  # two calls at 0.00012
    tokens = Budget.objects.create(
        customer=customer, amount=16, measure="tokens", scope="api_key", api_key=key
    )
    each = Budget.objects.create(customer=customer, amount=15, measure="tokens", scope="end_user")
    calls(customer, 1, api_key_id=key.pk, user_id="ada")
    calls(customer, 1)
    raise_alerts()
    # money: 0.00024 of 0.00024. The key: 15 of 16 tokens. Each end user: ada 15 of 15
    assert {(about, threshold) for about, threshold in fired()} == {
        *((str(money.pk), threshold) for threshold in ("80%", "90%", "100%")),
        *((str(tokens.pk), threshold) for threshold in ("80%", "90%")),
        *((f"{each.pk} ada", threshold) for threshold in ("80%", "90%", "100%")),
    }


def test_credits_alert_by_what_was_there_when_they_were_last_added_to(customer: Customer) -> None:
    ledger.set_hard(customer, hard=True)
    ledger.grant(customer, Decimal(10), "USD", key="first", at=clock.now())
    ledger.deduct(customer, Decimal(9), key="d1", at=clock.now(), reason="tests")
    calls(customer, 1)  # (who did not call lately is not looked at)
    raise_alerts()
    assert fired() == [("credits", "80%"), ("credits", "90%")]
    ledger.grant(customer, Decimal(99), "USD", key="second", at=clock.now())  # 100 available
    raise_alerts()
    assert len(fired()) == 2
    ledger.deduct(customer, Decimal(80), key="d2", at=clock.now(), reason="tests")
    raise_alerts()
    assert fired() == [("credits", "80%"), ("credits", "80%"), ("credits", "90%")]


def test_own_thresholds_stand_in_for_the_default_ones(customer: Customer) -> None:
    an_allowance(customer, 10)
    client = Client(headers={"Authorization": f"Bearer {OperatorToken.issue('tests')[1]}"})
    path = "/v1/customers/payer/alert-thresholds"
    answer = client.put(
        path, json.dumps({"allowance": [{"percent": 50}, {"amount": "6"}]}), "application/json"
    )
    assert answer.json()["allowance"] == {
        "default": False,
        "thresholds": [{"percent": "50"}, {"amount": "6"}],
    }
    assert answer.json()["budget"]["default"] is True
    calls(customer, 5)
    raise_alerts()
    assert fired() == [("api_calls", "50%")]
    calls(customer, 1)
    raise_alerts()
    assert fired() == [("api_calls", "50%"), ("api_calls", "6")]
    listed = client.get("/v1/customers/payer/alerts").json()["data"]
    assert [one["threshold"] for one in listed] == ["6", "50%"]
    assert (
        client.put(path, json.dumps({"allowance": None}), "application/json").json()["allowance"]["default"]
        is True
    )


@pytest.mark.parametrize(
    "body",
    [
        {"allowance": [{}]}, {"allowance": [{"percent": 1, "amount": 1}]}, {"budget": [{"percent": 0}]}, {"credit": [{"amount": -1}]},
        {"credit": [{"percent": 1001}]}, {"rain": []}, {"budget": [{"amount": n} for n in range(21)]},
    ],
)  # fmt: skip
def test_what_is_no_threshold_is_told_so(customer: Customer, body: Any) -> None:
    client = Client(headers={"Authorization": f"Bearer {OperatorToken.issue('tests')[1]}"})
    answer = client.put("/v1/customers/payer/alert-thresholds", json.dumps(body), "application/json")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


def test_thresholds_are_the_managers_to_set(customer: Customer) -> None:
    secret = ApiKey.issue(customer, "more")[1]
    client = Client(headers={"Authorization": f"Bearer {secret}"})
    assert client.get("/v1/customers/payer/alert-thresholds").status_code == 200
    assert client.put("/v1/customers/payer/alert-thresholds", "{}", "application/json").status_code == 403


def test_soft_use_beyond_the_allowance_marks_the_customer_until_it_is_not(customer: Customer) -> None:
    an_allowance(customer, 1)
    calls(customer, 2)
    raise_alerts()
    customer.refresh_from_db()
    assert customer.in_overage
    QuotaOverride.objects.update(included=5)
    raise_alerts()
    customer.refresh_from_db()
    assert not customer.in_overage


def test_of_two_sweeps_at_once_one_says_it(customer: Customer) -> None:
    an_allowance(customer, 1)
    calls(customer, 1)
    made: list[int] = []

    def look() -> None:
        try:
            made.append(alerts.raise_due(clock.now()))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(made) == 3
    assert OutboxMessage.objects.count() == 3


def test_a_customer_without_an_address_has_its_message_all_the_same() -> None:
    customer, _ = payer()
    an_allowance(customer, 1)
    calls(customer, 1)
    raise_alerts()
    assert (OutboxMessage.objects.count(), len(mail.outbox)) == (3, 0)


class Refusing(BaseEmailBackend):
    """A mail server that takes nothing."""

    def send_messages(self, email_messages: Any) -> int:
        raise OSError("the mail server is away")


def a_message(customer: Customer, at: datetime) -> OutboxMessage:
    return OutboxMessage.objects.create(
        id=uuid7(at), customer=customer, kind="tests", payload={}, created_at=at, mail_to="a@b.example", mail_subject="s",
        mail_text="t", mail_due_at=at,
    )  # fmt: skip


def test_an_e_mail_that_the_server_does_not_take_is_sent_later(customer: Customer) -> None:
    at = clock.now()
    message = a_message(customer, at)
    with override_settings(EMAIL_BACKEND=f"{__name__}.Refusing"):
        assert alerts.send_mails(at) == 0
    message.refresh_from_db()
    assert message.mail_error.startswith("OSError")
    assert alerts.send_mails(at + timedelta(seconds=59)) == 0
    assert alerts.send_mails(at + timedelta(minutes=1)) == 1
    assert alerts.send_mails(at + timedelta(days=1)) == 0
    assert isinstance(mail.outbox[0], EmailMessage)
    assert len(mail.outbox) == 1


def test_a_message_whose_sender_died_is_taken_up_after_a_while(customer: Customer) -> None:
    at = clock.now()
    message = a_message(customer, at)
    OutboxMessage.objects.filter(pk=message.pk).update(
        mail_due_at=at + alerts.MAIL_LEASE, mail_tries=1
    )  # and then it died
    assert alerts.send_mails(at) == 0
    assert alerts.send_mails(at + alerts.MAIL_LEASE) == 1


def test_many_customers_are_looked_at_in_a_few_queries(django_assert_max_num_queries: Any) -> None:
    found = [payer(f"payer-{number}")[0] for number in range(12)]
    for one in found:
        an_allowance(one, 10)
        Budget.objects.create(customer=one, amount=1)
    with django_assert_max_num_queries(10):
        standings = standings_of(found, clock.now())
    said = [one for one in standings if one.about == "api_calls" or one.subject == "budget"]
    assert len(said) == 24
