"""`/v1/customers/{customer}/top-up`: the rule by which a customer's credits buy themselves, and what was bought."""

from decimal import Decimal
from typing import Any

import msgspec
from django.db import transaction
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.api import single_parameters
from billing.authentication import customer_of, manager_only
from billing.bodies import body_of
from billing.models import Customer, TopUp, TopUpRule
from billing.models.top_ups import COOL_DOWN_S, COOL_DOWN_S_MAX, COOL_DOWN_S_MIN
from billing.problems import bad_request, not_found
from billing.quotas_api import check_amount
from pricing.money import decimal_string

SHOWN = 20


class TopUpBody(msgspec.Struct, forbid_unknown_fields=True):
    below: Decimal
    amount: Decimal
    per_month_max: Decimal
    cool_down_s: int = COOL_DOWN_S
    is_active: bool = True


class TopUpView(APIView):
    def get(self, request: Request, customer: str) -> Response:
        single_parameters(request, ())
        found = customer_of(request, customer)
        rule = TopUpRule.objects.filter(pk=found.pk).first()
        if rule is None:
            raise not_found("This customer has no top-up rule.")
        return Response(rule_document(found, rule))

    def put(self, request: Request, customer: str) -> Response:
        found, body = customer_of(request, customer), body_of(request, TopUpBody)
        manager_only(request, found)
        _check(body)
        with transaction.atomic():
            rule, made = TopUpRule.objects.update_or_create(
                customer=found, defaults=msgspec.structs.asdict(body)
            )
        return Response(rule_document(found, rule), status=201 if made else 200)

    def delete(self, request: Request, customer: str) -> Response:
        found = customer_of(request, customer)
        manager_only(request, found)
        TopUpRule.objects.filter(pk=found.pk).delete()
        return Response(status=204)


def rule_document(customer: Customer, rule: TopUpRule) -> dict[str, Any]:
    """The rule, and the last purchases, newest first."""
    return {
        "customer": customer.external_id,
        "below": decimal_string(rule.below),
        "amount": decimal_string(rule.amount),
        "per_month_max": decimal_string(rule.per_month_max),
        "currency": customer.currency,
        "cool_down_s": rule.cool_down_s,
        "is_active": rule.is_active,
        "updated_at": rule.updated_at.isoformat(),
        "purchases": [_purchase_document(one) for one in customer.top_ups.all()[:SHOWN]],
    }


def _purchase_document(one: TopUp) -> dict[str, Any]:
    return {
        "id": str(one.pk),
        "amount": decimal_string(one.amount),
        "currency": one.currency,
        "state": one.state,
        "reference": one.reference,
        "detail": one.detail,
        "created_at": one.created_at.isoformat(),
        "finished_at": one.finished_at.isoformat() if one.finished_at else None,
    }


def _check(body: TopUpBody) -> None:
    for name in ("below", "amount", "per_month_max"):
        check_amount(name, getattr(body, name))
    if not body.amount:
        raise bad_request("amount: more than nothing.")
    if body.per_month_max < body.amount:
        raise bad_request("per_month_max: at least the amount that is bought at a time.")
    if not COOL_DOWN_S_MIN <= body.cool_down_s <= COOL_DOWN_S_MAX:
        raise bad_request(f"cool_down_s: {COOL_DOWN_S_MIN} to {COOL_DOWN_S_MAX}.")
