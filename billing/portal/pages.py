"""The usage page: what a customer used, on which days, and what it pays for it."""

from datetime import date, timedelta
from decimal import Decimal
from typing import Any, get_args

import msgspec
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from billing import ranges
from billing.api import key_labels
from billing.authentication import customers_of
from billing.models import Customer
from billing.portal import chart
from billing.ranges import Days
from metering import reports
from metering.reports import GroupBy, UsageRow
from pricing import clock

TITLES: dict[GroupBy, str] = {"day": "Day", "model": "Model", "feature": "Feature", "api_key": "API key"}
PRESET_DAYS = (7, 30, 90)


class Line(msgspec.Struct, frozen=True):
    """A row of the table: what it is called, what explains the name, the numbers."""

    title: str
    hint: str
    usage: UsageRow


@never_cache
@login_required
@require_safe
def usage(request: HttpRequest) -> HttpResponse:
    """`GET /portal/usage?start=&end=&by=&customer=`; the current period by day where nothing is asked for."""
    own = list(customers_of(request.user))
    customer = _chosen(own, request.GET.get("customer", ""))
    if customer is None:
        return render(request, "tollgate/no_customer.html", status=403)
    today = clock.now().date()
    error = ""
    try:
        days = _days(request, customer, today)
    except ranges.RangeError as problem:
        days, error = Days(today.replace(day=1), today), str(problem)
    context = page(customer, days, _grouping(request.GET.get("by", "day")))
    context |= {"error": error, "customers": own, "presets": _presets(customer, today)}
    return render(request, "tollgate/usage.html", context, status=400 if error else 200)


def page(customer: Customer, days: Days, by: GroupBy) -> dict[str, Any]:
    """Everything that the page shows of these days."""
    daily = reports.daily_usage(customer.pk, days.first, days.end, "day")
    grouped = daily if by == "day" else reports.daily_usage(customer.pk, days.first, days.end, by)
    found = {row.group: row for row in daily}
    amounts = [found[day].charge_total if day in found else Decimal(0) for day in days.each()]
    calls = [found[day].calls if day in found else 0 for day in days.each()]
    return {
        "customer": customer,
        "days": days,
        "by": by,
        "groupings": [(key, TITLES[key]) for key in get_args(GroupBy)],
        "group_title": TITLES[by],
        "lines": _lines(customer, grouped, by),
        "totals": reports.totals(daily),
        "bars": chart.bars(days.each(), amounts, calls),
        "chart_top": max(amounts, default=Decimal(0)),
        "chart": {"width": chart.WIDTH, "height": chart.HEIGHT},
    }


def _lines(customer: Customer, rows: list[UsageRow], by: GroupBy) -> list[Line]:
    if by == "day":
        return [Line(f"{row.group:%a %d %b %Y}", "", row) for row in reversed(rows)]
    if by == "api_key":
        labels = key_labels(customer)
        known = [(labels.get(str(row.group), {}), row) for row in rows]
        return [
            Line(label.get("label") or "no label", label.get("prefix", str(row.group)), row)
            for label, row in known
        ]
    rows = sorted(rows, key=lambda row: row.charge_total, reverse=True)
    return [Line(str(row.group) or "unknown", "", row) for row in rows]


def _chosen(own: list[Customer], named: str) -> Customer | None:
    if not named:
        return own[0] if own else None
    return next((customer for customer in own if customer.external_id == named), None)


def _days(request: HttpRequest, customer: Customer, today: date) -> Days:
    start, end = request.GET.get("start", ""), request.GET.get("end", "")
    if not start and not end:
        return Days(customer.period_at(clock.now()).start.date(), today)
    return ranges.parse(start, end or today.isoformat(), names=("start", "end"))


def _presets(customer: Customer, today: date) -> list[tuple[str, Days]]:
    period = customer.period_at(clock.now())
    before = customer.period_at(period.start - timedelta(microseconds=1))
    presets = [
        ("This month", Days(period.start.date(), today)),
        ("Last month", Days(before.start.date(), period.start.date() - ranges.ONE_DAY)),
    ]
    return presets + [
        (f"{count} days", Days(today - timedelta(days=count - 1), today)) for count in PRESET_DAYS
    ]


def _grouping(given: str) -> GroupBy:
    return next((known for known in TITLES if known == given), "day")
