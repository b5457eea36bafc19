"""The one query layer over usage: page, chart, API and invoice read the same numbers from here.

Everything is read from daily usage, which moves in the event's own transaction. Days are UTC days.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
from django.db import connection
from django.db.models import Count, Sum

from metering.limits import Limit
from metering.models import DailyUsage, DailyUserUsage, Hold, UsageEvent
from metering.store.postgres_limits import ROOMS, document_of
from metering.store.sqlite import adapted
from metering.store.sqlite_limits import Rooms

GroupBy = Literal["day", "model", "feature", "api_key"]
GROUPS: dict[GroupBy, str] = {"day": "day", "model": "model", "feature": "feature", "api_key": "api_key_id"}
_SUMS = ("quantity", "tokens_input", "tokens_output", "tokens_total", "cost_total", "charge_total")
_COUNTS = ("unpriced_events", "estimated_events")
_encode = msgspec.json.Encoder(decimal_format="string").encode


class UsageRow(msgspec.Struct, frozen=True):
    """Sums over one group. Amounts are exact decimals in `currency`; unknown usage is left out of them and counted."""

    group: date | str | UUID
    calls: int
    quantity: Decimal
    tokens_input: int
    tokens_output: int
    tokens_total: int
    cost_total: Decimal
    charge_total: Decimal
    unpriced_events: int
    estimated_events: int


def daily_usage(customer_id: UUID, start: date, end: date, group_by: GroupBy) -> list[UsageRow]:
    """Usage of the UTC days [start, end), one row a group, ordered by the group."""
    rows = DailyUsage.objects.filter(customer_id=customer_id, day__gte=start, day__lt=end)
    return _grouped(rows, GROUPS[group_by])


def current_usage(customer_id: UUID, period_start: datetime) -> UsageRow:
    """Usage of the billing period that starts then, in one row."""
    return totals(
        _grouped(DailyUsage.objects.filter(customer_id=customer_id, period_start=period_start), "feature")
    )


def quantities(customer_id: UUID, period_start: datetime) -> dict[str, Decimal]:
    """Quantity by feature in the billing period that starts then."""
    rows = DailyUsage.objects.filter(customer_id=customer_id, period_start=period_start)
    return {row.group: row.quantity for row in _grouped(rows, "feature") if isinstance(row.group, str)}


class FeatureUsage(msgspec.Struct, frozen=True):
    """What was used of a feature: settled, and at the most by the calls in flight. Tokens of all its calls beside."""

    quantity: Decimal = Decimal(0)
    tokens: int = 0
    in_flight: int = 0


def usage_by_feature(
    customer_id: UUID, start: datetime, end: datetime, *, by_period: bool
) -> dict[str, FeatureUsage]:
    """Usage of [start, end) by feature: of the billing period that is these, or of whole UTC days."""
    rows = _rows_of(customer_id, start, end, by_period=by_period)
    holds = Hold.objects.filter(customer_id=customer_id, created_at__gte=start, created_at__lt=end)
    in_flight: dict[str, int] = dict(holds.values_list("feature").annotate(Count("id")).order_by())
    used = {row.group: row for row in _grouped(rows, "feature") if isinstance(row.group, str)}
    return {
        name: FeatureUsage(
            quantity=used[name].quantity if name in used else Decimal(0),
            tokens=used[name].tokens_total if name in used else 0,
            in_flight=in_flight.get(name, 0),
        )
        for name in {*used, *in_flight}
    }


def spent(
    customer_id: UUID, start: datetime, end: datetime, *, by_period: bool, api_key_id: UUID | None = None, user_id: str = "",
) -> tuple[Decimal, int]:  # fmt: skip
    """Charge and tokens of [start, end): of the customer, of one of its keys, or of one end user."""
    rows = _rows_of(customer_id, start, end, by_period=by_period, api_key_id=api_key_id, user_id=user_id)
    found = rows.aggregate(charge=Sum("charge_total"), tokens=Sum("tokens_total"))
    return found["charge"] or Decimal(0), found["tokens"] or 0


def rooms_under(customer_id: UUID, limits: Sequence[Limit]) -> list[Decimal]:
    """What there is left under each limit just now: less what was used, and what calls in flight may come to. One query, by
    the same texts that decide holds."""
    if not limits:
        return []
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            rooms = Rooms(connection.connection, adapted)
            return [rooms.under(customer_id, limit) for limit in limits]
        asked = [document_of(n, customer_id, limit) for n, limit in enumerate(limits)]
        cursor.execute(f"with {ROOMS} select room from rooms order by n", {"limits": _encode(asked).decode()})
        return [room for (room,) in cursor.fetchall()]


def _rows_of(
    customer_id: UUID, start: datetime, end: datetime, *, by_period: bool, feature: str = "", api_key_id: UUID | None = None,
    user_id: str = "",
) -> Any:  # fmt: skip
    """Rows of [start, end): of the billing period that is these, or of whole UTC days; an end user's are kept by themselves."""
    rows: Any = (DailyUserUsage if user_id else DailyUsage).objects.filter(customer_id=customer_id)
    if by_period:
        rows = rows.filter(period_start=start)
    else:
        rows = rows.filter(day__gte=start.date(), day__lt=end.date())
    scope = {"user_id": user_id} if user_id else {"feature": feature, "api_key_id": api_key_id}
    return rows.filter(**{name: value for name, value in scope.items() if value})


class DayUse(msgspec.Struct, frozen=True):
    """What was used of a feature on one day of one billing period."""

    feature: str
    period_start: datetime
    day: date
    quantity: Decimal
    cost: Decimal


class Charged(msgspec.Struct, frozen=True):
    """What the price book made of the calls of one feature to one model, and how much that was."""

    feature: str
    provider: str
    model: str
    calls: int
    quantity: Decimal
    tokens_input: int
    tokens_output: int
    charge: Decimal
    unpriced_events: int


def used_by_day(
    customer_id: UUID, start: datetime, end: datetime, *, since: date | None = None
) -> list[DayUse]:
    """Use by feature and day of the billing periods that start in [start, end), in the order of time. `since`: as well as
    of earlier periods, from that day on."""
    rows = DailyUsage.objects.filter(customer_id=customer_id, period_start__lt=end)
    rows = rows.filter(period_start__gte=start) if since is None else rows.filter(day__gte=since)
    sums = rows.values("feature", "period_start", "day").annotate(
        used=Sum("quantity"), cost=Sum("cost_total")
    )
    found = sums.order_by("period_start", "day", "feature").values_list(
        "feature", "period_start", "day", "used", "cost"
    )
    return [DayUse(*row) for row in found]


def charged(customer_id: UUID, start: datetime, end: datetime) -> list[Charged]:
    """What the price book made of the billing periods that start in [start, end), with all corrections, by feature and model."""
    rows = DailyUsage.objects.filter(customer_id=customer_id, period_start__gte=start, period_start__lt=end)
    groups = ("feature", "provider", "model")
    names = ("events", "quantity", "tokens_input", "tokens_output", "charge_total", "unpriced_events")
    sums = rows.values(*groups).annotate(**{f"{name}_sum": Sum(name) for name in names})
    found = sums.order_by(*groups).values_list(*groups, *(f"{name}_sum" for name in names))
    return [Charged(*row) for row in found]


class FeatureDay(msgspec.Struct, frozen=True):
    """What was used of a feature on one UTC day."""

    day: date
    feature: str
    calls: int
    quantity: Decimal
    tokens: int
    charge: Decimal


def by_feature_and_day(customer_id: UUID, first: date, end: date) -> list[FeatureDay]:
    """Use of the days [first, end) by feature, in the order of time."""
    rows = DailyUsage.objects.filter(customer_id=customer_id, day__gte=first, day__lt=end)
    names = ("events", "quantity", "tokens_total", "charge_total")
    sums = rows.values("day", "feature").annotate(**{f"{name}_sum": Sum(name) for name in names})
    found = sums.order_by("day", "feature").values_list("day", "feature", *(f"{name}_sum" for name in names))
    return [FeatureDay(*row) for row in found]


def first_day(customer_id: UUID) -> date | None:
    """The first day on which anything was used; None where nothing was."""
    days = DailyUsage.objects.filter(customer_id=customer_id).order_by("day").values_list("day", flat=True)
    return days.first()


def first_period(customer_id: UUID) -> datetime | None:
    """The start of the first billing period in which anything was used; None where nothing was."""
    starts = DailyUsage.objects.filter(customer_id=customer_id).order_by("period_start")
    return starts.values_list("period_start", flat=True).first()


class PeriodUse(msgspec.Struct, frozen=True):
    """What was used of a feature in one billing period."""

    period_start: datetime
    feature: str
    calls: int
    quantity: Decimal
    tokens: int
    charge: Decimal


def period_starts(customer_id: UUID, limit: int) -> list[datetime]:
    """The starts of the last so many billing periods in which anything was used, the newest first."""
    starts = DailyUsage.objects.filter(customer_id=customer_id).order_by("-period_start")
    return list(starts.values_list("period_start", flat=True).distinct()[:limit])


def by_period(customer_id: UUID, since: datetime) -> list[PeriodUse]:
    """Use of the billing periods that start at `since` or later, by feature, the newest period first."""
    rows = DailyUsage.objects.filter(customer_id=customer_id, period_start__gte=since)
    names = ("events", "quantity", "tokens_total", "charge_total")
    sums = rows.values("period_start", "feature").annotate(**{f"{name}_sum": Sum(name) for name in names})
    order = sums.order_by("-period_start", "feature")
    return [
        PeriodUse(*row)
        for row in order.values_list("period_start", "feature", *(f"{name}_sum" for name in names))
    ]


def sums_by_period(
    customer_id: UUID, start: datetime, end: datetime
) -> list[tuple[datetime, int, Decimal, Decimal]]:
    """Events, quantity and charge of each billing period that starts in [start, end): they differ once anything does."""
    rows = DailyUsage.objects.filter(customer_id=customer_id, period_start__gte=start, period_start__lt=end)
    sums = rows.values("period_start").annotate(
        events_sum=Sum("events"), quantity_sum=Sum("quantity"), charge_sum=Sum("charge_total")
    )
    return list(
        sums.order_by("period_start").values_list("period_start", "events_sum", "quantity_sum", "charge_sum")
    )


def level(customer_id: UUID, feature: str, start: datetime, end: datetime, *, last: bool) -> Decimal:
    """The highest level of a feature that was reported in the billing periods that start in [start, end), or the last one."""
    events = UsageEvent.objects.filter(
        customer_id=customer_id,
        feature=feature,
        period_start__gte=start,
        period_start__lt=end,
        created_at__gte=start,
    )
    order = ("-occurred_at", "-id") if last else ("-quantity",)
    found = events.order_by(*order).values_list("quantity", flat=True).first()
    return found if found is not None else Decimal(0)


def totals(rows: Iterable[UsageRow]) -> UsageRow:
    """The sum of rows; zero of everything where there are none."""
    listed = list(rows)
    return UsageRow(
        group="total",
        calls=sum(row.calls for row in listed),
        quantity=_sum(row.quantity for row in listed),
        tokens_input=sum(row.tokens_input for row in listed),
        tokens_output=sum(row.tokens_output for row in listed),
        tokens_total=sum(row.tokens_total for row in listed),
        cost_total=_sum(row.cost_total for row in listed),
        charge_total=_sum(row.charge_total for row in listed),
        unpriced_events=sum(row.unpriced_events for row in listed),
        estimated_events=sum(row.estimated_events for row in listed),
    )


def _grouped(rows: Any, column: str) -> list[UsageRow]:
    sums = {f"{name}_sum": Sum(name) for name in ("events", *_SUMS, *_COUNTS)}
    found: Sequence[dict[str, Any]] = rows.values(column).annotate(**sums).order_by(column)
    return [
        UsageRow(
            group=row[column],
            calls=row["events_sum"],
            **{name: row[f"{name}_sum"] for name in (*_SUMS, *_COUNTS)},
        )
        for row in found
    ]


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return sum(amounts, Decimal(0))
