"""The one query layer over usage: page, chart, API and invoice read the same numbers from here.

Everything is read from daily usage, which moves in the event's own transaction. Days are UTC days.
"""

from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec
from django.db.models import Sum

from metering.models import DailyUsage

GroupBy = Literal["day", "model", "feature", "api_key"]
GROUPS: dict[GroupBy, str] = {"day": "day", "model": "model", "feature": "feature", "api_key": "api_key_id"}
_SUMS = ("quantity", "tokens_input", "tokens_output", "tokens_total", "cost_total", "charge_total")
_COUNTS = ("unpriced_events", "estimated_events")


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
