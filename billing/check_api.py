"""`POST /v1/usage/check` within Django: for operators, people, and host applications that mount nothing before it."""

from datetime import datetime
from decimal import Decimal

from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.authentication import customer_of
from billing.bodies import body_of
from billing.check import Caller, CheckBody, verdict
from billing.features import canonical
from billing.limit_rules import at_once, limits_at
from billing.limits import rules_of
from billing.models import ApiKey, Balance, Customer, PlanVersion
from billing.problems import Refused
from billing.subscriptions import version_of
from metering.ids import NIL
from metering.limits import Limit, applying
from metering.reports import rooms_under
from metering.wiring import current_card
from pricing import clock


class CheckView(APIView):
    """Nothing is reserved by asking."""

    def post(self, request: Request) -> Response:
        body, at = body_of(request, CheckBody), clock.now()
        problem = body.problem()
        if problem is not None:
            raise Refused(problem)
        customer = customer_of(request, body.customer)
        version = version_of(customer)
        key = request.auth if isinstance(request.auth, ApiKey) else None
        limits = _limits(customer, version, key, body, at)
        rooms = list(zip(limits, rooms_under(customer.pk, limits), strict=True))
        balance = Balance.objects.filter(pk=customer.pk).first()
        free = balance.available - balance.held if balance is not None else Decimal(0)
        caller = _caller(customer, version, balance)
        return Response(verdict(caller, rooms, free, body, current_card().card, at))


def _caller(customer: Customer, version: PlanVersion | None, balance: Balance | None) -> Caller:
    return Caller(
        currency=customer.currency,
        list_book=version.list_book if version is not None else "list",
        is_active=customer.is_active,
        hard_credits=(version is not None and version.hard_credits)
        or (balance is not None and balance.is_hard),
        blocks_unpriced=customer.blocks_unpriced or (version is not None and version.blocks_unpriced),
    )


def _limits(
    customer: Customer, version: PlanVersion | None, key: ApiKey | None, body: CheckBody, at: datetime
) -> tuple[Limit, ...]:
    """What the call would have to fit under."""
    key_id = key.pk if key is not None else NIL
    rules = rules_of(customer.pk, version.pk if version else None, key_id, customer.currency)
    if version is not None and version.concurrent_calls is not None:
        rules = (*rules, at_once(version.concurrent_calls))
    if key is not None and key.concurrent_calls is not None:
        rules = (*rules, at_once(key.concurrent_calls, key.pk))
    return applying(limits_at(rules, customer.period_at(at), at), canonical(body.feature), body.user_id)
