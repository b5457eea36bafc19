"""Subscriptions: one runs at a time, whoever asks at once."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from django.db import IntegrityError, connection, transaction

from billing import plans
from billing.models import Balance, Customer, Plan, PlanVersion, Subscription
from billing.subscriptions import (
    OtherCurrency,
    SubscriptionChanged,
    SubscriptionError,
    UnknownPlan,
    subscribe,
)
from tests.billing.rows import payer

pytestmark = pytest.mark.django_db

AT = datetime(2026, 11, 20, 12, 30, tzinfo=UTC)
LATER = AT + timedelta(days=3)


@pytest.fixture
def customer() -> Customer:
    return payer(created_at=datetime(2026, 9, 17, tzinfo=UTC))[0]


def on(customer: Customer) -> list[tuple[str, datetime, datetime | None]]:
    """(plan, from, until) of the customer's subscriptions, oldest first."""
    rows = Subscription.objects.filter(customer=customer).order_by("started_at")
    return [
        (row.plan_version.plan.slug, row.started_at, row.ended_at)
        for row in rows.select_related("plan_version__plan")
    ]


def test_a_customer_subscribes(customer: Customer) -> None:
    subscription, is_new = subscribe(customer, "professional", AT)
    assert is_new
    assert on(customer) == [("professional", AT, None)]
    assert subscription.anchor == AT


def test_another_plan_ends_the_one_that_runs_in_the_same_instant(customer: Customer) -> None:
    subscribe(customer, "free", AT)
    subscribe(customer, "professional", LATER)
    assert on(customer) == [("free", AT, LATER), ("professional", LATER, None)]


def test_the_same_plan_again_is_already_there(customer: Customer) -> None:
    first, _ = subscribe(customer, "free", AT)
    assert subscribe(customer, "free", LATER) == (first, False)
    assert on(customer) == [("free", AT, None)]


def test_who_subscribed_to_a_version_keeps_it(customer: Customer) -> None:
    first, _ = subscribe(customer, "free", AT)
    plans.publish(plans.draft_after(first.plan_version), LATER)
    assert subscribe(customer, "free", LATER) == (first, False)
    stranger, _ = payer("stranger")
    assert subscribe(stranger, "free", LATER)[0].plan_version.number == 2


def test_what_is_not_offered_cannot_be_had(customer: Customer) -> None:
    PlanVersion.objects.create(plan=Plan.objects.create(slug="drafted", name="Drafted"), number=1)
    for slug in ("drafted", "nothing"):
        with pytest.raises(UnknownPlan, match=slug):
            subscribe(customer, slug, AT)
    with pytest.raises(OtherCurrency, match="EUR"):
        subscribe(payer("european", currency="EUR")[0], "free", AT)
    assert not Subscription.objects.exists()


@pytest.mark.parametrize("at", [AT, AT - timedelta(days=1)])
def test_nothing_starts_before_what_is_known_already(customer: Customer, at: datetime) -> None:
    subscribe(customer, "free", AT)
    with pytest.raises(SubscriptionChanged):
        subscribe(customer, "professional", at)
    Subscription.objects.update(ended_at=LATER)
    with pytest.raises(SubscriptionChanged):
        subscribe(customer, "professional", LATER - timedelta(seconds=1))
    subscribe(customer, "professional", LATER)
    assert on(customer) == [("free", AT, LATER), ("professional", LATER, None)]


def test_the_ledger_is_hard_while_the_plan_is(customer: Customer) -> None:
    subscribe(customer, "free", AT)
    assert not Balance.objects.exists()
    subscribe(customer, "prepaid", LATER)
    assert Balance.objects.get().is_hard
    subscribe(customer, "payg", LATER + timedelta(days=1))
    assert not Balance.objects.get().is_hard


def test_the_database_knows_one_that_runs_and_no_end_before_its_start(customer: Customer) -> None:
    version = Plan.objects.get(slug="free").current
    assert version is not None
    facts = {"customer": customer, "plan_version": version, "started_at": AT, "anchor": AT}
    with pytest.raises(IntegrityError, match="billing_subscriptions_end"), transaction.atomic():
        Subscription.objects.create(**facts, ended_at=AT)
    Subscription.objects.create(**facts)
    with pytest.raises(IntegrityError), transaction.atomic():
        Subscription.objects.create(**facts)


def test_periods_are_the_months_until_there_is_a_subscription_and_its_own_from_then_on(
    customer: Customer,
) -> None:
    subscribe(customer, "free", AT)
    assert customer.period_at(AT - timedelta(seconds=1)).start == datetime(2026, 11, 1, tzinfo=UTC)
    assert customer.period_at(AT).start == AT
    assert customer.period_at(datetime(2026, 12, 20, 12, 30, tzinfo=UTC)).start == datetime(
        2026, 12, 20, 12, 30, tzinfo=UTC
    )


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("is_subscribed", [True, False])
@pytest.mark.parametrize("wanted", [("professional", "enterprise"), ("professional", "professional")])
def test_of_two_at_once_one_wins(is_subscribed: bool, wanted: tuple[str, str]) -> None:
    customer, _ = payer()
    if is_subscribed:
        subscribe(customer, "free", AT)
    together = Barrier(2)

    def ask(number: int) -> str:
        try:
            together.wait()
            _, is_new = subscribe(customer, wanted[number], LATER)
            return "started" if is_new else "there"
        except SubscriptionError:
            return "refused"
        finally:
            connection.close()

    for _ in range(10):
        with ThreadPoolExecutor(2) as threads:
            answers = sorted(threads.map(ask, (0, 1)))
        assert answers == (["started", "there"] if wanted[0] == wanted[1] else ["refused", "started"])
        rows = on(customer)
        assert [until for _, _, until in rows] == ([LATER, None] if is_subscribed else [None])
        Subscription.objects.filter(started_at=LATER).delete()
        Subscription.objects.update(ended_at=None)
