"""`/v1/customers/{customer}/alerts`: which thresholds were reached; `…/alert-thresholds`: which ones the customer wants."""

from decimal import Decimal
from typing import Any

import msgspec
from django.db import transaction
from django.db.models import F
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.alerts import alert_document
from billing.api import single_parameters
from billing.authentication import customer_of, manager_only
from billing.bodies import body_of
from billing.models import AlertThreshold, Customer, Subject
from billing.pages import page_of
from billing.problems import bad_request
from billing.quotas_api import check_amount
from billing.thresholds import DEFAULTS, Threshold
from pricing.money import decimal_string

PAGE = ("cursor", "limit")
THRESHOLDS_MAX = 20
PERCENT_MAX = 1000


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    percent: Decimal | None = None
    amount: Decimal | None = None


class ThresholdsBody(msgspec.Struct, forbid_unknown_fields=True):
    """By subject the thresholds wanted; of a subject that is null the default ones. What is not named stays as it is."""

    allowance: list[Wanted] | msgspec.UnsetType | None = msgspec.UNSET
    budget: list[Wanted] | msgspec.UnsetType | None = msgspec.UNSET
    credit: list[Wanted] | msgspec.UnsetType | None = msgspec.UNSET


class AlertsView(APIView):
    def get(self, request: Request, customer: str) -> Response:
        single_parameters(request, PAGE)
        page = page_of(request, customer_of(request, customer).alerts.select_related("customer"))
        return Response({"data": [alert_document(one) for one in page.rows], "next_cursor": page.next_cursor})


class AlertThresholdsView(APIView):
    def get(self, request: Request, customer: str) -> Response:
        single_parameters(request, ())
        return Response(thresholds_document(customer_of(request, customer)))

    def put(self, request: Request, customer: str) -> Response:
        found, body = customer_of(request, customer), body_of(request, ThresholdsBody)
        manager_only(request, found)
        with transaction.atomic():
            Customer.objects.select_for_update().get(pk=found.pk)  # of two at once one is whole
            for subject in Subject.values:
                wanted = getattr(body, subject)
                if wanted is not msgspec.UNSET:
                    _replace(found, subject, wanted)
        return Response(thresholds_document(found))


def thresholds_document(customer: Customer) -> dict[str, Any]:
    """By subject the thresholds that hold, and whether they are the default ones."""
    own: dict[str, list[Threshold]] = {subject: [] for subject in Subject.values}
    for row in customer.alert_thresholds.order_by(F("percent").asc(nulls_last=True), "amount"):
        own[row.subject].append(Threshold(row.percent, row.amount))
    return {
        subject: {
            "default": not listed,
            "thresholds": [
                {"percent": decimal_string(one.percent)} if one.percent is not None
                else {"amount": decimal_string(one.amount or Decimal(0))}
                for one in listed or DEFAULTS
            ],
        }
        for subject, listed in own.items()
    }  # fmt: skip


def _replace(customer: Customer, subject: str, wanted: list[Wanted] | None) -> None:
    listed = list(dict.fromkeys(_checked(subject, one) for one in wanted or ()))
    if len(listed) > THRESHOLDS_MAX:
        raise bad_request(f"{subject}: at most {THRESHOLDS_MAX} thresholds.")
    customer.alert_thresholds.filter(subject=subject).delete()
    AlertThreshold.objects.bulk_create(
        AlertThreshold(customer=customer, subject=subject, percent=one.percent, amount=one.amount)
        for one in listed
    )


def _checked(subject: str, wanted: Wanted) -> Threshold:
    if (wanted.percent is None) == (wanted.amount is None):
        raise bad_request(f"{subject}: each threshold is either a percent or an amount.")
    check_amount(f"{subject}.percent", wanted.percent)
    check_amount(f"{subject}.amount", wanted.amount)
    if wanted.percent is not None and not 0 < wanted.percent <= PERCENT_MAX:
        raise bad_request(f"{subject}.percent: above 0, to {PERCENT_MAX}.")
    return Threshold(wanted.percent, wanted.amount)
