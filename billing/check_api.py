"""`POST /v1/usage/check`: would a call of this size be admitted now, and if not, why. Nothing is reserved by asking."""

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.authentication import customer_of
from billing.bodies import body_of
from billing.features import canonical
from billing.limit_rules import at_once, limits_at
from billing.limits import rules_of
from billing.models import ApiKey, Balance, Customer, PlanVersion
from billing.problems import bad_request
from billing.subscriptions import version_of
from metering.hold_bound import HoldBound, hold_amount
from metering.ids import NIL
from metering.limits import Limit, applying
from metering.problem import Refusal, credits_do_not_cover, customer_suspended, model_not_priced
from metering.reports import room_under
from metering.wiring import current_card
from pricing import clock
from pricing.money import decimal_string

ZERO, ONE = Decimal(0), Decimal(1)
TOKENS_MAX = 2**53
UNKNOWN_COST = "There is no telling what this call may cost: name a model that has a price, and max_tokens."


class CheckBody(msgspec.Struct, forbid_unknown_fields=True):
    """The size of a call: an `amount`, or a model with what it reads and the most that it may write. Without either: any call."""

    customer: str = ""  # a key names its own
    amount: Decimal | None = None  # in the customer's currency
    provider: str = ""
    model: str = ""
    tokens_input: int = 0
    max_tokens: int | None = None
    feature: str = "api_calls"
    quantity: Decimal = Decimal(1)
    user_id: str = ""  # the end user that it is made for


class Size(msgspec.Struct, frozen=True):
    """The most that the call comes to; None where that is not known."""

    charge: Decimal | None
    tokens: int | None
    quantity: Decimal


class CheckView(APIView):
    """The gate's verdict, from the same facts: the plan, its limits, the balance, the rates."""

    def post(self, request: Request) -> Response:
        body, at = body_of(request, CheckBody), clock.now()
        _check(body)
        customer = customer_of(request, body.customer)
        version = version_of(customer)
        size = _size(customer, version, body, at)
        key = request.auth if isinstance(request.auth, ApiKey) else None
        rooms = [
            (limit, room_under(customer.pk, limit)) for limit in _limits(customer, version, key, body, at)
        ]
        balance = Balance.objects.filter(pk=customer.pk).first()
        hard = (version is not None and version.hard_credits) or (balance is not None and balance.is_hard)
        free = balance.available - balance.held if balance is not None else ZERO
        beyond = next(((limit, room) for limit, room in rooms if not _fits(limit, room, size)), None)
        refusal = _refusal(customer, version, body, beyond, size, free if hard else None, at)
        shown = beyond or next((pair for pair in rooms if pair[0].code == "quota_exceeded"), None)
        return Response(
            {
                "allowed": refusal is None,
                "code": refusal.code if refusal else None,
                "detail": refusal.detail if refusal else None,
                "hold": _text(size.charge) if hard else "0",
                "remaining": _text(max(ZERO, shown[1])) if shown else _text(free) if hard else None,
                "reset_date": shown[0].until.isoformat() if shown and shown[0].until else None,
                "credits": _text(free) if hard else None,  # they are bought, and come with no period
                "currency": customer.currency,
                "limits": [_limit_document(limit, room) for limit, room in rooms],
            }
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


def _size(customer: Customer, version: PlanVersion | None, body: CheckBody, at: datetime) -> Size:
    charge, tokens = body.amount, None
    if body.model:
        bound = HoldBound({"": body.tokens_input}, body.max_tokens)
        tokens = body.tokens_input + body.max_tokens if body.max_tokens is not None else None
        if charge is None:
            charge = hold_amount(
                current_card().card, bound, book=_book(version), currency=customer.currency, provider=body.provider,
                model=body.model, at=at,
            )  # fmt: skip
    return Size(charge, tokens, body.quantity)


def _fits(limit: Limit, room: Decimal, size: Size) -> bool:
    """Whether the call fits. Of what nobody has said only that something has to be left is known."""
    most = {"tokens": size.tokens, "charge": size.charge, "quantity": size.quantity, "calls": ONE}[
        limit.measure
    ]
    return room > 0 if most is None else most <= room


def _refusal(
    customer: Customer, version: PlanVersion | None, body: CheckBody, beyond: tuple[Limit, Decimal] | None, size: Size,
    free: Decimal | None, at: datetime,
) -> Refusal | None:  # fmt: skip
    """Why the call would not go out. `free`: what is left to hold; None where no limit on credits is hard."""
    if not customer.is_active:
        return customer_suspended()
    blocks = customer.blocks_unpriced or (version is not None and version.blocks_unpriced)
    if blocks and body.model:
        tariff = current_card().card.tariff_for(_book(version), body.provider, body.model, at)
        if tariff is None:
            return model_not_priced(f"The plan admits no model without a price: {body.model!r}.")
    if beyond is not None:
        return beyond[0].refusal(at)
    if free is None:
        return None
    if size.charge is None and body.model:
        return credits_do_not_cover(UNKNOWN_COST)
    # Any call at all needs something to be left.
    fits = free > 0 if size.charge is None else size.charge <= free
    return None if fits else credits_do_not_cover()


def _book(version: PlanVersion | None) -> str:
    return version.list_book if version is not None else "list"


def _limit_document(limit: Limit, room: Decimal) -> dict[str, Any]:
    return {
        "code": limit.code,
        "title": limit.title,
        "measure": limit.measure,
        "limit": decimal_string(limit.most),
        "remaining": decimal_string(max(ZERO, room)),
        "reset_date": limit.until.isoformat() if limit.until else None,
    }


def _text(value: Decimal | None) -> str | None:
    return None if value is None else decimal_string(value)


def _check(body: CheckBody) -> None:
    if body.amount is not None and (not body.amount.is_finite() or body.amount < 0):
        raise bad_request("amount: a number that is not negative.")
    if not body.quantity.is_finite() or not 0 <= body.quantity < TOKENS_MAX:
        raise bad_request(f"quantity: 0 to below {TOKENS_MAX}.")
    for name, value in (("tokens_input", body.tokens_input), ("max_tokens", body.max_tokens or 0)):
        if not 0 <= value <= TOKENS_MAX:
            raise bad_request(f"{name}: 0 to {TOKENS_MAX}.")
