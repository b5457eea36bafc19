"""Reports and the check of the books: one customer's numbers, and every drift found."""

import asyncio
from datetime import date, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db import connection

from metering import reports, rollups
from metering.rows import EventRow, HoldRow
from metering.wiring import current_store
from tests.metering.rows import NOON, PAYER, PERIOD_START, STRANGER, a_hold, an_event

pytestmark = pytest.mark.django_db(transaction=True)
TODAY = NOON.date()


def booked(*pairs: tuple[HoldRow, EventRow]) -> None:
    async def write() -> None:
        lane, writer = await current_store().open_lane("test"), uuid4()
        await lane.hold(writer, 1, [hold for hold, _ in pairs], None)
        await lane.settle(writer, 2, [event for _, event in pairs], None)
        await lane.close()

    asyncio.run(write())


def a_call(customer: UUID = PAYER, days: int = 0, **values: Any) -> tuple[HoldRow, EventRow]:
    hold = a_hold(customer, NOON + timedelta(days=days))
    return hold, an_event(hold, **values)


def test_usage_is_grouped_by_what_is_asked_and_adds_up() -> None:
    booked(a_call(), a_call(days=1), a_call(days=1, model="demo-large"), a_call(STRANGER))
    by_day = reports.daily_usage(PAYER, TODAY, TODAY + timedelta(days=2), "day")
    assert [(row.group, row.calls, row.charge_total) for row in by_day] == [
        (TODAY, 1, Decimal("0.00012")),
        (TODAY + timedelta(days=1), 2, Decimal("0.00024")),
    ]
    by_model = reports.daily_usage(PAYER, TODAY, TODAY + timedelta(days=2), "model")
    assert {row.group: row.calls for row in by_model} == {"demo-small": 2, "demo-large": 1}
    assert reports.totals(by_day) == reports.totals(by_model)
    assert reports.totals(by_day).tokens_total == 3 * 15


def test_days_are_half_open() -> None:
    booked(a_call(), a_call(days=1))
    assert reports.totals(reports.daily_usage(PAYER, TODAY, TODAY + timedelta(days=1), "day")).calls == 1
    assert reports.daily_usage(PAYER, TODAY, TODAY, "day") == []


def test_a_period_has_its_own_sums() -> None:
    booked(a_call(), a_call())
    assert reports.current_usage(PAYER, PERIOD_START).calls == 2
    assert reports.current_usage(PAYER, PERIOD_START + timedelta(days=30)).calls == 0
    assert reports.quantities(PAYER, PERIOD_START) == {"api_calls": 2}


def test_what_is_unknown_is_left_out_and_counted() -> None:
    booked(
        a_call(
            tokens_output=None,
            tokens_total=None,
            cost_total=None,
            charge_total=None,
            pricing_status="unpriced",
        ),
        a_call(),
    )
    row = reports.current_usage(PAYER, PERIOD_START)
    assert (row.tokens_output, row.charge_total, row.unpriced_events) == (5, Decimal("0.00012"), 1)


@pytest.mark.parametrize("change", [
    "update daily_usage set events = events + 1",
    "update daily_usage set charge_total = charge_total * 2",
    "delete from daily_usage",
    "delete from usage_events",
    "update usage_events set tokens_input = 11",
])  # fmt: skip
def test_every_drift_is_found(change: str) -> None:
    booked(a_call(), a_call(STRANGER))
    assert rollups.check_day(TODAY) == []
    with connection.cursor() as cursor:
        cursor.execute(change)
    assert {drift.customer_id for drift in rollups.check_day(TODAY)} == {PAYER, STRANGER}


def test_a_call_across_midnight_counts_on_the_day_of_its_use() -> None:
    hold = a_hold(at=NOON.replace(hour=23, minute=59, second=59))
    booked((hold, an_event(hold, after=timedelta(seconds=30))))
    assert [row.group for row in reports.daily_usage(PAYER, date(2026, 11, 1), date(2026, 12, 1), "day")] == [
        TODAY
    ]
    assert rollups.check_day(TODAY) == rollups.check_day(TODAY + timedelta(days=1)) == []
