"""`/v1/customers/{customer}/budgets`: how much a customer, a key or an end user may spend in a period. Customers see theirs;
operators, and a customer's owner and admins, set and end them."""

from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, cast
from uuid import UUID

import msgspec
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.api import single_parameters
from billing.authentication import customer_of, is_operator, manager_only, operator_only
from billing.bodies import body_of
from billing.idempotency import once
from billing.limit_rules import Reset, window
from billing.models import ApiKey, Budget, Customer
from billing.pages import page_of
from billing.periods import Period
from billing.problems import bad_request, not_found
from billing.quotas_api import RESETS, ResetName, check_amount
from metering import reports
from metering.ids import uuid7
from pricing import clock
from pricing.money import decimal_string

PAGE = ("cursor", "limit")
RUNNING_MAX = 100  # of one customer: each of them is asked for each call


class BudgetBody(msgspec.Struct, forbid_unknown_fields=True):
    amount: Decimal
    name: str = ""
    scope: Literal["customer", "api_key", "end_user"] = "customer"
    api_key: UUID | None = None
    user_id: str = ""  # an end user's; empty: so much for each
    measure: Literal["money", "tokens"] = "money"
    currency: str | None = None  # that of the customer, if it is said
    hard: bool = False
    reset_period: ResetName = "month"


class BudgetsView(APIView):
    def get(self, request: Request, customer: str) -> Response:
        single_parameters(request, PAGE)
        found, at = customer_of(request, customer), clock.now()
        page, period = page_of(request, found.budgets.select_related("customer")), found.period_at(at)
        return Response(
            {"data": [budget_document(one, period, at) for one in page.rows], "next_cursor": page.next_cursor}
        )

    def post(self, request: Request, customer: str) -> Response:
        found, body, at = customer_of(request, customer), body_of(request, BudgetBody), clock.now()
        manager_only(request, found)
        key = _check(found, body)

        def make() -> UUID:
            return Budget.objects.create(
                id=uuid7(at), customer=found, name=body.name, scope=body.scope, api_key=key, user_id=body.user_id,
                measure=body.measure, amount=body.amount, hard=body.hard, reset_period=RESETS[body.reset_period], created_at=at,
                by_operator=is_operator(request),
            ).pk  # fmt: skip

        made, is_new = once(request, "budget", body, at, make, of=found.pk)
        budget = Budget.objects.select_related("customer").get(pk=made)
        return Response(budget_document(budget, found.period_at(at), at), status=201 if is_new else 200)


class BudgetView(APIView):
    def get(self, request: Request, customer: str, budget: UUID) -> Response:
        single_parameters(request, ())
        found, at = customer_of(request, customer), clock.now()
        return Response(budget_document(_found(found, budget), found.period_at(at), at))

    def delete(self, request: Request, customer: str, budget: UUID) -> Response:
        """End it. It stays to be seen. What an operator has set only an operator ends."""
        found, at = customer_of(request, customer), clock.now()
        manager_only(request, found)
        one = _found(found, budget)
        if one.by_operator:
            operator_only(request)
        Budget.objects.filter(pk=one.pk).end(at)
        return Response(budget_document(_found(found, budget), found.period_at(at), at))


def budget_document(budget: Budget, billing_period: Period, at: datetime) -> dict[str, Any]:
    """One budget, with what is spent of it in the period of `at`; of one for each end user that is not said."""
    customer = budget.customer
    period = window(cast(Reset, budget.reset_period), billing_period, at)
    each = budget.scope == Budget.Scope.END_USER and not budget.user_id
    spent = None
    if not each:
        charge, tokens = reports.spent(
            customer.pk, period.start, period.end, by_period=budget.reset_period == "billing",
            api_key_id=budget.api_key_id, user_id=budget.user_id,
        )  # fmt: skip
        spent = charge if budget.measure == Budget.Measure.MONEY else Decimal(tokens)
    return {
        "id": str(budget.pk),
        "name": budget.name,
        "scope": budget.scope,
        "api_key": str(budget.api_key_id) if budget.api_key_id else None,
        "user_id": budget.user_id or None,
        "measure": budget.measure,
        "amount": decimal_string(budget.amount),
        "currency": customer.currency if budget.measure == Budget.Measure.MONEY else None,
        "hard": budget.hard,
        "by_operator": budget.by_operator,
        "spent": None if spent is None else decimal_string(spent),
        "remaining": None if spent is None else decimal_string(max(Decimal(0), budget.amount - spent)),
        "reset_period": budget.reset_period,
        "reset_date": period.end.isoformat(),
        "created_at": budget.created_at.isoformat(),
        "ended_at": budget.ended_at.isoformat() if budget.ended_at else None,
    }


def _check(customer: Customer, body: BudgetBody) -> ApiKey | None:
    """The key that the budget is for, where it is for one. Raises Refused (400)."""
    check_amount("amount", body.amount)
    if body.measure == "money" and body.currency not in (None, customer.currency):
        raise bad_request(f"currency: the customer pays in {customer.currency}.")
    if len(body.name) > 100 or len(body.user_id) > 256:
        raise bad_request("name: at most 100 characters; user_id: at most 256.")
    if body.user_id and body.scope != "end_user":
        raise bad_request("user_id: only with the scope end_user.")
    if (body.api_key is not None) != (body.scope == "api_key"):
        raise bad_request("api_key: with the scope api_key, and only with it.")
    if customer.budgets.running().count() >= RUNNING_MAX:
        raise bad_request(f"A customer has at most {RUNNING_MAX} budgets. End one first.")
    if body.api_key is None:
        return None
    key = customer.api_keys.filter(pk=body.api_key).first()
    if key is None:
        raise bad_request("api_key: this customer has no such key.")
    return key


def _found(customer: Customer, budget: UUID) -> Budget:
    found = customer.budgets.select_related("customer").filter(pk=budget).first()
    if found is None:
        raise not_found("There is no such budget.")
    return found
