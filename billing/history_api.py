"""What was used before, and what will have been by the end of the period: `GET /v1/billing/usage/history?months=6`,
`GET /v1/usage/{customer}/history?limit=12`, `GET /v1/usage/{customer}/estimate`."""

from collections import defaultdict
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.api import single_parameters
from billing.authentication import customer_of
from billing.estimates import estimate
from billing.models import Customer
from billing.problems import bad_request
from billing.projection import Projection
from metering import reports
from metering.reports import FeatureDay, PeriodUse
from pricing import clock
from pricing.money import decimal_string

MONTHS, MONTHS_MAX = 6, 60
PERIODS, PERIODS_MAX = 12, 120
ZERO = Decimal(0)


class MonthsView(APIView):
    """By calendar month in UTC, the newest first; months without use among them."""

    def get(self, request: Request) -> Response:
        given = single_parameters(request, ("customer", "months"))
        customer = customer_of(request, given.get("customer", ""))
        months = _months(clock.now(), _count(given.get("months"), "months", MONTHS, MONTHS_MAX))
        return Response(
            {
                "customer": customer.external_id,
                "currency": customer.currency,
                "timezone": "UTC",
                "history": _by_month(customer, months),
            }
        )


class PeriodsView(APIView):
    """By billing period, the newest first: those in which anything was used."""

    def get(self, request: Request, customer: str) -> Response:
        given = single_parameters(request, ("limit",))
        found = customer_of(request, customer)
        limit = _count(given.get("limit"), "limit", PERIODS, PERIODS_MAX)
        return Response(
            {
                "customer": found.external_id,
                "currency": found.currency,
                "timezone": "UTC",
                "history": _by_period(found, limit),
            }
        )


class EstimateView(APIView):
    """What the running period will come to, by which method, and between what."""

    def get(self, request: Request, customer: str) -> Response:
        single_parameters(request, ())
        found = customer_of(request, customer)
        return Response(estimate_document(found, clock.now()))


def estimate_document(customer: Customer, at: datetime) -> dict[str, Any]:
    """Amounts and quantities as text; `range` is the least and the most."""
    made = estimate(customer, at)
    return {
        "customer": customer.external_id,
        "currency": customer.currency,
        "timezone": "UTC",
        "period": {"start": made.period.start.isoformat(), "end": made.period.end.isoformat()},
        "method": made.calls.method,
        "calls": projection_document(made.calls),
        "fees": decimal_string(made.fees),
        "total": projection_document(made.total),
        "features": {
            one.feature: {
                "current": decimal_string(one.used),
                "quantity": projection_document(one.quantity),
                "amount": projection_document(one.amount),
            }
            for one in made.features
        },
    }


def projection_document(one: Projection) -> dict[str, Any]:
    return {
        "expected": decimal_string(one.expected),
        "range": [decimal_string(one.low), decimal_string(one.high)],
    }


def _by_month(customer: Customer, months: list[date]) -> list[dict[str, Any]]:
    end = _after(months[0])
    use: defaultdict[date, list[FeatureDay]] = defaultdict(list)
    for one in reports.by_feature_and_day(customer.pk, months[-1], end):
        use[one.day.replace(day=1)].append(one)
    return [{"month": month.month, "year": month.year} | _totals(use[month]) for month in months]


def _by_period(customer: Customer, limit: int) -> list[dict[str, Any]]:
    starts = reports.period_starts(customer.pk, limit)
    if not starts:
        return []
    use: defaultdict[datetime, list[PeriodUse]] = defaultdict(list)
    for one in reports.by_period(customer.pk, starts[-1]):
        use[one.period_start].append(one)
    return [
        {
            "period": {"start": start.isoformat(), "end": customer.period_at(start).end.isoformat()},
            **_totals(use[start]),
            "features": {
                one.feature: {"calls": one.calls, "quantity": decimal_string(one.quantity), "tokens": one.tokens, "charge": decimal_string(one.charge)}
                for one in use[start]
            },
        }
        for start in starts
    ]  # fmt: skip


def _totals(use: "list[FeatureDay] | list[PeriodUse]") -> dict[str, Any]:
    return {
        "total_calls": sum(one.calls for one in use),
        "total_documents": decimal_string(
            sum((one.quantity for one in use if one.feature == "documents"), ZERO)
        ),
        "total_tokens": sum(one.tokens for one in use),
        "total_cost": decimal_string(sum((one.charge for one in use), ZERO)),
    }


def _months(at: datetime, count: int) -> list[date]:
    """The first days of so many months, the newest first."""
    found = [at.astimezone(UTC).date().replace(day=1)]
    while len(found) < count:
        year, month = divmod(found[-1].year * 12 + found[-1].month - 2, 12)
        found.append(date(year, month + 1, 1))
    return found


def _after(month: date) -> date:
    year, following = divmod(month.year * 12 + month.month, 12)
    return date(year, following + 1, 1)


def _count(given: str | None, name: str, usual: int, most: int) -> int:
    if given is None:
        return usual
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= most:
        raise bad_request(f"{name}: 1 to {most}.")
    return int(given)
