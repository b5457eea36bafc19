"""The check that the books agree: Σ events + Σ corrections = daily usage, by every column and key.

It compares one customer's day at a time, each in one statement, so that batches in flight are either in both sums or in
neither and no snapshot is held open for long.
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from django.db import connection

from metering.models import DailyUsage, UsageCorrection, UsageEvent
from metering.store.sql import DAILY_SUMS, event_sums

# An event is made after its use, at most so much later; bounds the partitions that are read.
LATENESS_MAX = timedelta(days=35)


class Drift(msgspec.Struct, frozen=True):
    """A sum that differs: what the events and corrections say, and what daily usage says."""

    customer_id: UUID
    day: date
    feature: str
    provider: str
    model: str
    api_key_id: str
    column: str
    events: Decimal
    daily: Decimal


def check_day(day: date) -> list[Drift]:
    """Every difference on one UTC day, over all customers, one customer a statement."""
    return [drift for customer in _customers_of(day) for drift in check_customer(customer, day)]


def check_customer(customer_id: UUID, day: date) -> list[Drift]:
    """Every difference of one customer on one UTC day."""
    start = datetime.combine(day, time(), UTC)
    parameters = {
        "customer": _identifier(customer_id), "start": _instant(start), "end": _instant(start + timedelta(days=1)),
        "last": _instant(start + timedelta(days=1) + LATENESS_MAX), "day": day.isoformat(),
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(_CHECK, parameters)
        rows = cursor.fetchall()
    return [drift for row in rows for drift in _drifts(customer_id, day, row)]


def _drifts(customer_id: UUID, day: date, row: tuple[Any, ...]) -> Iterator[Drift]:
    key, sums = row[:4], row[4:]
    half = len(DAILY_SUMS)
    for name, counted, kept in zip(DAILY_SUMS, sums[:half], sums[half:], strict=True):
        if counted != kept:
            feature, provider, model, api_key_id = map(str, key)
            yield Drift(
                customer_id=customer_id, day=day, feature=feature, provider=provider, model=model, api_key_id=api_key_id,
                column=name, events=_decimal(name, counted), daily=_decimal(name, kept),
            )  # fmt: skip


def _customers_of(day: date) -> list[UUID]:
    start = datetime.combine(day, time(), UTC)
    end = start + timedelta(days=1)
    used = UsageEvent.objects.filter(
        occurred_at__gte=start, occurred_at__lt=end, created_at__gte=start, created_at__lt=end + LATENESS_MAX
    )
    kept = DailyUsage.objects.filter(day=day)
    corrected = UsageCorrection.objects.filter(day=day)
    found = {
        customer
        for rows in (used, kept, corrected)
        for customer in rows.values_list("customer_id", flat=True).distinct()
    }
    return sorted(found)


def _decimal(name: str, value: Any) -> Decimal:
    scaled = connection.vendor == "sqlite" and name in ("quantity", "cost_total", "charge_total")
    return Decimal(value).scaleb(-12) if scaled else Decimal(value)


def _identifier(value: UUID) -> str:
    return value.hex if connection.vendor == "sqlite" else str(value)


def _instant(value: datetime) -> str:
    return value.strftime("%Y-%m-%d %H:%M:%S") if connection.vendor == "sqlite" else value.isoformat()


_KEY = "feature, provider, model, api_key_id"
_CHECK = f"""
select {_KEY}, {", ".join(f"sum(case when side = 0 then {name} else 0 end)" for name in DAILY_SUMS)},
    {", ".join(f"sum(case when side = 1 then {name} else 0 end)" for name in DAILY_SUMS)}
from (
    select 0 as side, {_KEY}, {", ".join(f"{text} as {name}" for name, text in event_sums("").items())} from usage_events
    where customer_id = %(customer)s and occurred_at >= %(start)s and occurred_at < %(end)s
        and created_at >= %(start)s and created_at < %(last)s
    union all
    select 0, {_KEY}, {", ".join(DAILY_SUMS)} from usage_corrections where customer_id = %(customer)s and day = %(day)s
    union all
    select 1, {_KEY}, {", ".join(DAILY_SUMS)} from daily_usage where customer_id = %(customer)s and day = %(day)s
) as both_books
group by {_KEY}"""
