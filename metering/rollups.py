"""The check that the books agree: Σ events + Σ corrections = daily usage, by every column, key and currency; and what the
corrections of an event add up to is the event as they say it is.

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
from django.db.models import Sum

from metering.corrections import sums_of
from metering.histories import LATENESS_MAX, histories
from metering.ids import NIL, instant_of
from metering.models import DailyUsage, UsageCorrection, UsageEvent
from metering.rows import EventRow
from metering.store.sql import DAILY_SUMS, USER_SUMS, event_sums

PAGE = 500  # corrected events read at a time


class Drift(msgspec.Struct, frozen=True):
    """A sum that differs: what the events and corrections say, and what daily usage says, or the event as corrected."""

    customer_id: UUID
    day: date
    period_start: str
    feature: str
    provider: str
    model: str
    api_key_id: str
    currency: str
    column: str
    events: Decimal
    daily: Decimal
    user_id: str = ""  # of daily usage by end user, which has neither feature nor model


def check_day(day: date) -> list[Drift]:
    """Every difference on one UTC day, over all customers, one customer a statement."""
    return [drift for customer in _customers_of(day) for drift in check_customer(customer, day)]


def check_customer(customer_id: UUID, day: date) -> list[Drift]:
    """Every difference of one customer on one UTC day."""
    return [
        *_against_daily_usage(customer_id, day),
        *_against_usage_of_users(customer_id, day),
        *_against_what_corrections_say(customer_id, day),
    ]


def _against_daily_usage(customer_id: UUID, day: date) -> list[Drift]:
    return [drift for row in _asked(_CHECK, customer_id, day) for drift in _drifts(customer_id, day, row)]


def _against_usage_of_users(customer_id: UUID, day: date) -> list[Drift]:
    drifts = []
    for period_start, user_id, currency, *sums in _asked(_CHECK_USERS, customer_id, day):
        key = dict.fromkeys(_KEY, "") | {
            "period_start": str(period_start), "currency": currency, "user_id": user_id,
        }  # fmt: skip
        half = len(USER_SUMS)
        drifts += [
            Drift(
                customer_id=customer_id, day=day, **key, column=name, events=_decimal(name, counted), daily=_decimal(name, kept),
            )
            for name, counted, kept in zip(USER_SUMS, sums[:half], sums[half:], strict=True) if counted != kept
        ]  # fmt: skip
    return drifts


def _asked(sql: str, customer_id: UUID, day: date) -> list[tuple[Any, ...]]:
    start = datetime.combine(day, time(), UTC)
    parameters = {
        "customer": _identifier(customer_id), "start": _instant(start), "end": _instant(start + timedelta(days=1)),
        "last": _instant(start + timedelta(days=1) + LATENESS_MAX), "day": day.isoformat(),
    }  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
    return rows


def _against_what_corrections_say(customer_id: UUID, day: date) -> Iterator[Drift]:
    """Events corrected on that day whose corrections do not add up to the event as corrected."""
    corrected = UsageCorrection.objects.filter(customer_id=customer_id, day=day).order_by("event_id")
    after = NIL
    while ids := list(
        corrected.filter(event_id__gt=after).values_list("event_id", flat=True).distinct()[:PAGE]
    ):
        after = ids[-1]
        made = [instant_of(identifier) for identifier in ids]
        events = UsageEvent.objects.filter(
            customer_id=customer_id, id__in=ids, created_at__range=(min(made), max(made))
        )
        sums = {f"{name}_sum": Sum(name) for name in DAILY_SUMS}
        written: Any = UsageCorrection.objects.filter(customer_id=customer_id, event_id__in=ids)
        added = {row["event_id"]: row for row in written.values("event_id").annotate(**sums)}
        for history in histories(events):
            first, now = sums_of(history.event), sums_of(history.now)
            for name in DAILY_SUMS:
                counted = first[name] + added[history.event.id][f"{name}_sum"]
                if counted != now[name]:
                    yield _drift(history.now, day, name, Decimal(counted), Decimal(now[name]))


def _drift(event: EventRow, day: date, column: str, counted: Decimal, said: Decimal) -> Drift:
    key = {name: str(getattr(event, name)) for name in _KEY}
    return Drift(customer_id=event.customer_id, day=day, column=column, events=counted, daily=said, **key)


def _drifts(customer_id: UUID, day: date, row: tuple[Any, ...]) -> Iterator[Drift]:
    key, sums = row[: len(_KEY)], row[len(_KEY) :]
    half = len(DAILY_SUMS)
    for name, counted, kept in zip(DAILY_SUMS, sums[:half], sums[half:], strict=True):
        if counted != kept:
            yield Drift(
                customer_id=customer_id, day=day, **dict(zip(_KEY, map(str, key), strict=True)),
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


_KEY = ("period_start", "feature", "provider", "model", "api_key_id", "currency")
_KEYS = ", ".join(_KEY)
_CHECK = f"""
select {_KEYS}, {", ".join(f"sum(case when side = 0 then {name} else 0 end)" for name in DAILY_SUMS)},
    {", ".join(f"sum(case when side = 1 then {name} else 0 end)" for name in DAILY_SUMS)}
from (
    select 0 as side, {_KEYS}, {", ".join(f"{text} as {name}" for name, text in event_sums("").items())} from usage_events
    where customer_id = %(customer)s and occurred_at >= %(start)s and occurred_at < %(end)s
        and created_at >= %(start)s and created_at < %(last)s
    union all
    select 0, {_KEYS}, {", ".join(DAILY_SUMS)} from usage_corrections where customer_id = %(customer)s and day = %(day)s
    union all
    select 1, {_KEYS}, {", ".join(DAILY_SUMS)} from daily_usage where customer_id = %(customer)s and day = %(day)s
) as both_books
group by {_KEYS}"""

_USER_KEYS = "period_start, user_id, currency"
_CHECK_USERS = f"""
select {_USER_KEYS}, {", ".join(f"sum(case when side = 0 then {name} else 0 end)" for name in USER_SUMS)},
    {", ".join(f"sum(case when side = 1 then {name} else 0 end)" for name in USER_SUMS)}
from (
    select 0 as side, {_USER_KEYS}, {", ".join(f"{event_sums('')[name]} as {name}" for name in USER_SUMS)} from usage_events
    where customer_id = %(customer)s and occurred_at >= %(start)s and occurred_at < %(end)s
        and created_at >= %(start)s and created_at < %(last)s and user_id <> ''
    union all
    select 0, c.period_start, e.user_id, c.currency, {", ".join("c." + name for name in USER_SUMS)} from usage_corrections c
    join usage_events e on e.customer_id = c.customer_id and e.id = c.event_id
        and e.created_at >= %(start)s and e.created_at < %(last)s
    where c.customer_id = %(customer)s and c.day = %(day)s and e.user_id <> ''
    union all
    select 1, {_USER_KEYS}, {", ".join(USER_SUMS)} from daily_user_usage where customer_id = %(customer)s and day = %(day)s
) as both_books
group by {_USER_KEYS}"""
