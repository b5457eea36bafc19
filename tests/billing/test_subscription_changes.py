"""Trials, changes now and at the end of the period, cancelling, and what the bill makes of them."""

import json
import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

import pytest
from django.db import connections
from django.test import Client
from hypothesis import given, strategies as st

from billing import subscriptions, tasks
from billing.drafts import draft_of, next_period
from billing.invoicing import run
from billing.models import Balance, Customer, Invoice, OperatorToken, PlanVersion, Subscription
from billing.periods import Period, period_at
from billing.plans import draft_after, publish
from billing.subscriptions import SubscriptionChanged
from pricing import clock
from tests.billing.rows import payer, used
from tests.billing.test_drafts import APRIL, MARCH

pytestmark = pytest.mark.django_db
D = Decimal
DAY = timedelta(days=1)


@pytest.fixture
def customer() -> Customer:
    return payer(created_at=MARCH.start)[0]


def on(customer: Customer, slug: str, at: datetime = MARCH.start, **options: Any) -> Subscription:
    return subscriptions.subscribe(customer, slug, at, **options)[0]


def plans_of(customer: Customer) -> list[tuple[str, datetime, datetime | None]]:
    rows = customer.subscriptions.order_by("started_at").select_related("plan_version__plan")
    return [(one.plan_version.plan.slug, one.started_at, one.ended_at) for one in rows]


def fees(customer: Customer, period: Period) -> list[str]:
    return [f"{line.amount:f}" for line in draft_of(customer, period).lines if line.item.kind == "base_fee"]


def test_an_upgrade_in_the_middle_keeps_the_periods_and_splits_the_fee_to_the_second(
    customer: Customer,
) -> None:
    """10 of 31 days free, 21 of 31 of 49: 33.193548387097."""
    on(customer, "free")
    upgraded = on(customer, "professional", MARCH.start + 10 * DAY)
    assert upgraded.anchor == MARCH.start
    assert next_period(customer) == MARCH
    [line] = draft_of(customer, MARCH).lines
    assert (line.item.exact, line.amount) == (D("33.193548387097"), D("33.19"))


def test_what_is_included_is_that_of_the_plan_at_the_end_of_the_period(customer: Customer) -> None:
    on(customer, "free")
    used(customer, date(2026, 3, 5), calls=1500)
    assert draft_of(customer, MARCH).total == D(5)
    on(customer, "professional", MARCH.start + 10 * DAY)
    assert fees(customer, MARCH) == [f"{draft_of(customer, MARCH).total:f}"], "50,000 calls are included"


def test_during_a_trial_there_is_no_base_fee(customer: Customer) -> None:
    """14 days free of 31: 17 / 31 × 49 = 26.870967741935."""
    tried = on(customer, "professional", trial_days=14)
    assert tried.trial_ends_at == MARCH.start + 14 * DAY
    assert fees(customer, MARCH) == ["26.87"] and fees(customer, APRIL) == ["49.00"]


def test_a_plan_is_tried_once(customer: Customer) -> None:
    version = draft_after(PlanVersion.objects.get(plan__slug="professional"))
    version.trial_days = 30
    version.save()
    publish(version, MARCH.start)
    assert on(customer, "professional").trial_ends_at == MARCH.start + 30 * DAY
    on(customer, "free", MARCH.start + DAY)
    assert on(customer, "professional", MARCH.start + 2 * DAY).trial_ends_at is None


def test_a_change_at_the_end_of_the_period_is_carried_out_as_of_that_instant(customer: Customer) -> None:
    running = on(customer, "professional")
    assert subscriptions.change_at_period_end(running, "free", MARCH.start + 5 * DAY) == MARCH.end
    assert subscriptions.carry_out_due(MARCH.end - timedelta(microseconds=1)) == 0
    assert subscriptions.carry_out_due(MARCH.end + timedelta(hours=3)) == 1
    assert plans_of(customer) == [("professional", MARCH.start, MARCH.end), ("free", MARCH.end, None)]
    assert subscriptions.carry_out_due(MARCH.end + DAY) == 0
    assert (fees(customer, MARCH), fees(customer, APRIL)) == (["49.00"], [])


def test_an_end_that_was_arranged_can_be_taken_back(customer: Customer) -> None:
    running = on(customer, "professional")
    subscriptions.change_at_period_end(running, None, MARCH.start + DAY)
    assert subscriptions.keep(running) and not subscriptions.keep(running)
    assert subscriptions.carry_out_due(APRIL.end) == 0
    subscriptions.change_at_period_end(running, None, MARCH.start + DAY)
    subscriptions.carry_out_due(APRIL.end)
    assert plans_of(customer) == [("professional", MARCH.start, MARCH.end)]
    with pytest.raises(SubscriptionChanged):
        subscriptions.keep(running)
    with pytest.raises(SubscriptionChanged):
        subscriptions.change_at_period_end(running, None, APRIL.start)


def test_cancelled_at_once_it_is_paid_up_to_then(customer: Customer) -> None:
    running = on(customer, "professional")
    with pytest.raises(SubscriptionChanged):
        subscriptions.cancel(running, MARCH.start)
    assert subscriptions.cancel(running, MARCH.start + 31 * DAY / 2)
    assert not subscriptions.cancel(running, MARCH.end)
    assert fees(customer, next_period(customer)) == ["24.50"]


def test_a_plan_with_hard_credits_ends_with_its_subscription(customer: Customer) -> None:
    running = on(customer, "prepaid")
    assert Balance.objects.get().is_hard
    subscriptions.change_at_period_end(running, None, MARCH.start)
    subscriptions.carry_out_due(MARCH.end)
    assert not Balance.objects.get().is_hard


def test_the_newest_version_is_had_by_moving_to_it(customer: Customer) -> None:
    running = on(customer, "professional")
    version = draft_after(running.plan_version)
    version.base_fee = D(59)
    version.save()
    publish(version, MARCH.start)
    assert on(customer, "professional", MARCH.start + DAY).pk == running.pk
    moved, is_new = subscriptions.upgrade(running, MARCH.start + 10 * DAY)
    assert is_new and moved.plan_version == version
    assert subscriptions.upgrade(moved, MARCH.start + 11 * DAY) == (moved, False)
    # 10 / 31 × 49 + 21 / 31 × 59
    assert fees(customer, MARCH) == ["15.81", "39.96"]


@pytest.mark.django_db(transaction=True)
def test_sweeps_at_once_change_a_subscription_once(customer: Customer) -> None:
    running = on(customer, "professional")
    subscriptions.change_at_period_end(running, "free", MARCH.start)
    done: list[int] = []

    def work() -> None:
        try:
            done.append(subscriptions.carry_out_due(MARCH.end))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(done) == 1 and len(plans_of(customer)) == 2


def test_a_year_of_changes_is_billed_in_periods_that_tile_it(customer: Customer) -> None:
    on(customer, "free")
    on(customer, "professional", MARCH.start + 10 * DAY)
    running = on(customer, "free", APRIL.start + 3 * DAY)
    subscriptions.cancel(running, APRIL.start + 20 * DAY)
    on(customer, "professional", APRIL.end + 12 * DAY, anchor=datetime(2026, 5, 31, tzinfo=UTC))
    for month in range(3, 13):
        used(customer, date(2026, month, 28), charge="0.10")
    list(run(datetime(2027, 3, 1, tzinfo=UTC)))
    billed = list(Invoice.objects.order_by("period_start").values_list("period_start", "period_end"))
    assert all(end <= start for (_, end), (start, _) in pairwise(billed))
    lines = [line for one in Invoice.objects.all() for line in one.lines.filter(kind__in=("usage", "late"))]
    assert sum((line.exact for line in lines), D(0)) == D("1.00")


@given(
    st.sampled_from(sorted(available_timezones())), st.integers(1, 31), st.sampled_from(["month", "quarter", "year"]),
    st.integers(0, 6 * 366 * 86_400 * 10**6),
)  # fmt: skip
def test_periods_tile_time_from_any_local_midnight(
    zone: str, day: int, interval: Any, microseconds: int
) -> None:
    local = datetime(2024, 1, day, tzinfo=ZoneInfo(zone))
    at = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
    period = period_at(local, interval, at)
    assert period.start <= at < period.end
    assert period_at(local, interval, period.end).start == period.end
    assert period_at(local, interval, period.start - timedelta(microseconds=1)).end == period.start


# Over the API


def post(path: str, **body: Any) -> Any:
    client = Client(headers={"Authorization": f"Bearer {OperatorToken.issue('tests')[1]}"})
    return client.post(f"/v1/customers/payer/{path}", json.dumps(body), "application/json")


def test_an_operator_arranges_a_change_and_takes_it_back(customer: Customer) -> None:
    made = post("subscriptions", plan="professional", trial_days=7).json()
    assert made["trial_ends_at"] is not None and made["changes_at"] is None
    arranged = post("subscriptions", plan="free", when="period_end").json()
    assert (arranged["id"], arranged["plan"], arranged["changes_to"]) == (made["id"], "professional", "free")
    assert arranged["changes_at"] == made["period"]["end"]
    act = f"subscriptions/{made['id']}"
    assert post(f"{act}/keep").json()["changes_at"] is None
    ending = post(f"{act}/cancel", when="period_end").json()
    assert (ending["changes_at"], ending["changes_to"]) == (made["period"]["end"], None)
    clock.set_offset(datetime.fromisoformat(ending["changes_at"]) - clock.now())
    assert tasks.change_subscriptions() in (0, 1)
    assert post(f"{act}/upgrade").status_code in (200, 409)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"plan": "professional", "trial_days": -1}, 400),
        ({"plan": "professional", "trial_days": 731}, 400),
        ({"plan": "professional", "anchor": "2026-03-01T00:00:00"}, 400),
        ({"plan": "professional", "when": "period_end"}, 400),
        ({"plan": "professional", "when": "later"}, 400),
        ({"plan": "professional", "anchor": "2026-01-31T00:00:00+05:30"}, 201),
    ],
)
def test_what_cannot_be_arranged_is_told(customer: Customer, body: dict[str, Any], status: int) -> None:
    assert post("subscriptions", **body).status_code == status
