"""`GET /v1/billing/usage`: what the caller used, from daily usage. Days are UTC days, and each answer says so."""

from datetime import datetime
from decimal import Decimal
from typing import Any, get_args

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import ranges
from billing.allowances import allowances_of
from billing.authentication import customer_of
from billing.estimates import estimate
from billing.models import ApiKey, Customer
from billing.problems import bad_request
from billing.ranges import Days
from billing.subscriptions import plan_of
from metering import reports
from metering.reports import GroupBy, UsageRow
from pricing import clock
from pricing.money import decimal_string

PARAMETERS = ("customer", "start_date", "end_date", "group_by")
GROUPS: tuple[GroupBy, ...] = get_args(GroupBy)


class UsageView(APIView):
    """Without dates the current period; with `start_date` and `end_date` (both included) rows and totals."""

    def get(self, request: Request) -> Response:
        given = single_parameters(request, PARAMETERS)
        customer = customer_of(request, given.get("customer", ""))
        if "start_date" not in given and "end_date" not in given:
            if "group_by" in given:
                raise bad_request("group_by needs start_date and end_date.")
            return Response(current_document(customer))
        if "start_date" not in given or "end_date" not in given:
            raise bad_request("start_date and end_date go together.")
        try:
            days = ranges.parse(given["start_date"], given["end_date"])
        except ranges.RangeError as error:
            raise bad_request(str(error)) from None
        return Response(rows_document(customer, days, _group_by(given.get("group_by", "day"))))


def single_parameters(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    """The query as a dictionary. An unknown or a repeated parameter is an error, since it would silently do nothing."""
    given: dict[str, str] = {}
    for name, values in request.query_params.lists():
        if name not in known:
            raise bad_request(f"{name[:40]!r} is not a parameter of this path; known are {', '.join(known)}.")
        if len(values) > 1:
            raise bad_request(f"{name} is given more than once.")
        given[name] = values[0]
    return given


def current_document(customer: Customer) -> dict[str, Any]:
    """Usage of the customer's current period, and what is left of the calls that its plan includes."""
    at = clock.now()
    period = customer.period_at(at)
    usage = reports.current_usage(customer.pk, period.start)
    documents = reports.quantities(customer.pk, period.start).get("documents")
    return {
        "customer": customer.external_id,
        "period": {"start": period.start.isoformat(), "end": period.end.isoformat()},
        "timezone": "UTC",
        "currency": customer.currency,
        "current_usage": {
            "total_calls": usage.calls,
            "total_documents": decimal_string(documents) if documents else "0",
            "total_tokens": usage.tokens_total,
            "total_cost": decimal_string(usage.charge_total),
        },
        "quota": quota_document(customer, at),
        "projected": _projected(customer, at),
        "plan": plan_of(customer),
        "upgrade": None,
    }


def _projected(customer: Customer, at: datetime) -> dict[str, Any]:
    """Calls and charge by the end of the period, at the rate so far or by weekday; whole calls."""
    made = estimate(customer, at)
    return {
        "calls": int(made.calls.expected),
        "cost": decimal_string(made.total.expected),
        "method": made.calls.method,
    }


def quota_document(customer: Customer, at: datetime) -> dict[str, Any] | None:
    """How much of the calls that are included is used; null where they are not limited."""
    found = next((one for one in allowances_of(customer, at) if one.feature == "api_calls"), None)
    if found is None or found.included is None or not found.included:
        return None
    return {
        "total": decimal_string(found.included),
        "used": decimal_string(found.used),
        "remaining": decimal_string(found.remaining or Decimal(0)),
        "percent_used": decimal_string(found.percent_used or Decimal(0)),
        "reset_date": found.period.end.isoformat(),
    }


def rows_document(customer: Customer, days: Days, group_by: GroupBy) -> dict[str, Any]:
    """Usage of these days by group, and its totals."""
    rows = reports.daily_usage(customer.pk, days.first, days.end, group_by)
    labels = key_labels(customer) if group_by == "api_key" else {}
    return {
        "customer": customer.external_id,
        "start_date": days.first.isoformat(),
        "end_date": days.last.isoformat(),
        "timezone": "UTC",
        "group_by": group_by,
        "currency": customer.currency,
        "rows": [{group_by: str(row.group)} | labels.get(str(row.group), {}) | sums(row) for row in rows],
        "totals": sums(reports.totals(rows)),
    }


def sums(row: UsageRow) -> dict[str, Any]:
    """The numbers of a row: counts as numbers, exact decimals as strings."""
    return {
        "calls": row.calls,
        "quantity": decimal_string(row.quantity),
        "tokens_input": row.tokens_input,
        "tokens_output": row.tokens_output,
        "tokens_total": row.tokens_total,
        "cost_total": decimal_string(row.cost_total),
        "charge_total": decimal_string(row.charge_total),
        "unpriced_events": row.unpriced_events,
        "estimated_events": row.estimated_events,
    }


def key_labels(customer: Customer) -> dict[str, dict[str, str]]:
    """How people recognise the customer's keys, by key id."""
    keys = ApiKey.objects.filter(customer=customer).values_list("pk", "label", "prefix")
    return {str(key_id): {"label": label, "prefix": prefix} for key_id, label, prefix in keys}


def _group_by(given: str) -> GroupBy:
    for known in GROUPS:
        if given == known:
            return known
    raise bad_request(f"group_by={given[:40]!r} must be one of {', '.join(GROUPS)}.")
