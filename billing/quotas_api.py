"""`GET /v1/usage/{customer}`: what a customer has used of each feature and what is left; `PUT …/quotas/{feature}`: what it gets
instead of its plan's allowance, for operators."""

from decimal import Decimal
from typing import Any, Literal

import msgspec
from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.allowances import ZERO, Allowance, allowances_of, named
from billing.api import single_parameters
from billing.authentication import customer_of, is_operator, operator_only
from billing.bodies import body_of
from billing.features import canonical
from billing.limit_rules import Reset
from billing.models import Customer, QuotaOverride
from billing.problems import bad_request
from billing.subscriptions import plan_of
from pricing import clock
from pricing.money import decimal_string, round_amount

FEATURE_LENGTH_MAX = 64
AMOUNT_BELOW = Decimal(10**12)
# Clients say "monthly" where the column says "month".
RESETS: dict[str, Reset] = {
    "day": "day", "daily": "day", "week": "week", "weekly": "week", "month": "month", "monthly": "month",
    "billing": "billing", "billing_period": "billing",
}  # fmt: skip
ResetName = Literal["day", "daily", "week", "weekly", "month", "monthly", "billing", "billing_period"]


class QuotaBody(msgspec.Struct, forbid_unknown_fields=True):
    included: Decimal | None  # null: unlimited
    hard: bool = False
    unit_price: Decimal | None = None
    currency: str | None = None  # that of the customer, if it is said
    reset_period: ResetName = "billing"


class CustomerUsageView(APIView):
    def get(self, request: Request, customer: str) -> Response:
        given = single_parameters(request, ("features",))
        found = customer_of(request, customer)
        allowances = allowances_of(found, clock.now())
        if "features" in given:
            allowances = named(allowances, filter(None, given["features"].split(",")))
        return Response(usage_document(found, allowances, for_operator=is_operator(request)))


class QuotaView(APIView):
    def put(self, request: Request, customer: str, feature: str) -> Response:
        operator_only(request)
        found, body, name = customer_of(request, customer), body_of(request, QuotaBody), _feature(feature)
        _check(found, body)
        with transaction.atomic():
            override, made = QuotaOverride.objects.update_or_create(
                customer=found,
                feature=name,
                defaults={
                    "included": body.included,
                    "hard": body.hard,
                    "unit_price": body.unit_price,
                    "reset_period": RESETS[body.reset_period],
                },
            )
        return Response(override_document(override), status=201 if made else 200)

    def delete(self, request: Request, customer: str, feature: str) -> Response:
        """From now on its plan says again what it gets."""
        operator_only(request)
        customer_of(request, customer).quota_overrides.filter(feature=_feature(feature)).delete()
        return Response(status=204)


def usage_document(customer: Customer, allowances: list[Allowance], *, for_operator: bool) -> dict[str, Any]:
    """The answer; amounts and quantities are exact decimals as strings."""
    at = clock.now()
    period = customer.period_at(at)
    document: dict[str, Any] = {
        "customer": customer.external_id,
        "plan": plan_of(customer),
        "period": {"start": period.start.isoformat(), "end": period.end.isoformat()},
        "timezone": "UTC",
        "features": {one.feature: allowance_document(one) | {"last_updated": at.isoformat()} for one in allowances},
        "total_overage_amount": decimal_string(
            round_amount(sum((one.overage_amount or ZERO for one in allowances), ZERO))
        ),
        "currency": customer.currency,
        "payment_overdue": customer.payment_overdue,
        "created_at": customer.created_at.isoformat(),
        "updated_at": customer.updated_at.isoformat(),
    }  # fmt: skip
    if for_operator:
        document["stripe_customer_id"] = customer.stripe_customer_id or None
    return document


def allowance_document(one: Allowance) -> dict[str, Any]:
    """One feature. `limit` null: it can be gone beyond; `remaining` null: unlimited."""
    return {
        "display_name": one.display_name,
        "unit": one.unit,
        "current": decimal_string(one.used),
        "in_flight": decimal_string(one.in_flight),
        "included": _text(one.included),
        "hard": one.hard,
        "limit": _text(one.limit),
        "remaining": _text(one.remaining),
        "overage": decimal_string(one.overage),
        "overage_amount": _text(one.overage_amount),
        "percent_used": _text(one.percent_used),
        "reset_period": one.reset,
        "reset_date": one.period.end.isoformat(),
    }


def override_document(override: QuotaOverride) -> dict[str, Any]:
    """What one customer gets of one feature."""
    return {
        "customer": override.customer.external_id,
        "feature": override.feature,
        "included": _text(override.included),
        "hard": override.hard,
        "unit_price": _text(override.unit_price),
        "currency": override.customer.currency,
        "reset_period": override.reset_period,
        "updated_at": override.updated_at.isoformat(),
    }


def _check(customer: Customer, body: QuotaBody) -> None:
    for name, value in (("included", body.included), ("unit_price", body.unit_price)):
        check_amount(name, value)
    if body.currency is not None and body.currency != customer.currency:
        raise bad_request(f"currency: the customer pays in {customer.currency}.")
    if body.hard and body.included is None:
        raise bad_request("hard: what is unlimited cannot be a hard limit. Say how much is included.")


def check_amount(name: str, value: Decimal | None) -> None:
    """Raise Refused (400) for what is no amount that both databases hold."""
    if value is None:
        return
    if not value.is_finite() or not 0 <= value < AMOUNT_BELOW or value != round_amount(value):
        raise bad_request(f"{name}: from 0 to below a million million, and no finer than 12 decimal places.")


def _feature(given: str) -> str:
    name = canonical(given)
    if len(name) > FEATURE_LENGTH_MAX or not name.isprintable():
        raise bad_request(f"A feature is named by at most {FEATURE_LENGTH_MAX} printable characters.")
    return name


def _text(value: Decimal | None) -> str | None:
    return None if value is None else decimal_string(value)
