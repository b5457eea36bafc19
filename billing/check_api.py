"""`POST /v1/usage/check`: would a call of this size be admitted now, and if not, why. Nothing is reserved by asking."""

from decimal import Decimal

import msgspec
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.authentication import customer_of
from billing.bodies import body_of
from billing.models import Balance, Customer, PlanVersion
from billing.problems import bad_request
from billing.subscriptions import version_of
from metering.hold_bound import HoldBound, hold_amount
from metering.problem import Refusal, credits_do_not_cover, customer_suspended, model_not_priced
from metering.wiring import current_card
from pricing import clock
from pricing.money import decimal_string

ZERO = Decimal(0)
TOKENS_MAX = 2**53


class CheckBody(msgspec.Struct, forbid_unknown_fields=True):
    """The size of a call: an `amount`, or a model with what it reads and the most that it may write. Without either: any call."""

    customer: str = ""  # a key names its own
    amount: Decimal | None = None  # in the customer's currency
    provider: str = ""
    model: str = ""
    tokens_input: int = 0
    max_tokens: int | None = None


class Verdict(msgspec.Struct, frozen=True):
    """What the gate would say: a refusal or none, and what it would hold; None where that is not known."""

    refusal: Refusal | None
    hold: Decimal | None


class CheckView(APIView):
    """The gate's verdict, from the same facts: the plan, the balance, the rates."""

    def post(self, request: Request) -> Response:
        body = body_of(request, CheckBody)
        _check(body)
        customer = customer_of(request, body.customer)
        version, balance = version_of(customer), Balance.objects.filter(pk=customer.pk).first()
        hard = (version is not None and version.hard_credits) or (balance is not None and balance.is_hard)
        free = balance.available - balance.held if balance is not None else ZERO
        verdict = _verdict(customer, version, body, free if hard else None)
        refusal = verdict.refusal
        return Response(
            {
                "allowed": refusal is None,
                "code": refusal.code if refusal else None,
                "detail": refusal.detail if refusal else None,
                "hold": decimal_string(verdict.hold) if verdict.hold is not None else None,
                "remaining": decimal_string(free) if hard else None,
                "currency": customer.currency,
                "reset_date": None,  # credits are bought, they come with no period
            }
        )


def _verdict(
    customer: Customer, version: PlanVersion | None, body: CheckBody, free: Decimal | None
) -> Verdict:
    """`free`: what is left to hold; None where no limit is hard."""
    if not customer.is_active:
        return Verdict(customer_suspended(), None)
    card, at = current_card().card, clock.now()
    book = version.list_book if version is not None else "list"
    blocks = customer.blocks_unpriced or (version is not None and version.blocks_unpriced)
    if blocks and body.model and card.tariff_for(book, body.provider, body.model, at) is None:
        return Verdict(model_not_priced(f"The plan admits no model without a price: {body.model!r}."), None)
    if free is None:
        return Verdict(None, ZERO)
    amount = body.amount
    if amount is None and body.model:
        bound = HoldBound({"": body.tokens_input}, body.max_tokens)
        amount = hold_amount(
            card,
            bound,
            book=book,
            currency=customer.currency,
            provider=body.provider,
            model=body.model,
            at=at,
        )
        if amount is None:
            return Verdict(
                credits_do_not_cover(
                    "There is no telling what this call may cost: name a model that has a price, and max_tokens."
                ),
                None,
            )
    # Any call at all needs something to be left.
    fits = free > 0 if amount is None else amount <= free
    return Verdict(None if fits else credits_do_not_cover(), amount)


def _check(body: CheckBody) -> None:
    if body.amount is not None and (not body.amount.is_finite() or body.amount < 0):
        raise bad_request("amount: a number that is not negative.")
    for name, value in (("tokens_input", body.tokens_input), ("max_tokens", body.max_tokens or 0)):
        if not 0 <= value <= TOKENS_MAX:
            raise bad_request(f"{name}: 0 to {TOKENS_MAX}.")
