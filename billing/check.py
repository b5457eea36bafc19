"""Would a call of this size be admitted now, and if not, why: the gate's verdict, from the same facts. Pure.

Two edges gather the facts: `billing.check_app` for customers' keys, in front of Django, and `billing.check_api` for everyone.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from metering.hold_bound import HoldBound, hold_amount
from metering.limits import Limit
from metering.problem import (
    Refusal,
    credits_do_not_cover,
    customer_suspended,
    invalid_request,
    model_not_priced,
)
from pricing.money import decimal_string
from pricing.pricelist import RateCard

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

    def problem(self) -> Refusal | None:
        """What is wrong with it."""
        if self.amount is not None and (not self.amount.is_finite() or self.amount < 0):
            return invalid_request("amount: a number that is not negative.")
        if not self.quantity.is_finite() or not 0 <= self.quantity < TOKENS_MAX:
            return invalid_request(f"quantity: 0 to below {TOKENS_MAX}.")
        for name, value in (("tokens_input", self.tokens_input), ("max_tokens", self.max_tokens or 0)):
            if not 0 <= value <= TOKENS_MAX:
                return invalid_request(f"{name}: 0 to {TOKENS_MAX}.")
        return None


class Caller(msgspec.Struct, frozen=True):
    """What the plan says of whoever would make the call."""

    currency: str
    list_book: str
    is_active: bool
    hard_credits: bool
    blocks_unpriced: bool


class Size(msgspec.Struct, frozen=True):
    """The most that the call comes to; None where that is not known."""

    charge: Decimal | None
    tokens: int | None
    quantity: Decimal


Room = tuple[Limit, Decimal]  # a limit that applies, and what there is left under it


def verdict(
    caller: Caller, rooms: list[Room], free: Decimal, body: CheckBody, card: RateCard, at: datetime
) -> dict[str, Any]:
    """The answer's document. `rooms` are of the limits that the call would have to fit under, `free` what no call has
    reserved of the customer's credits."""
    size = _size(caller, body, card, at)
    beyond = next((room for room in rooms if not _fits(*room, size)), None)
    refusal = _refusal(caller, body, beyond, size, free, card, at)
    shown = beyond or next((room for room in rooms if room[0].code == "quota_exceeded"), None)
    hard = caller.hard_credits
    return {
        "allowed": refusal is None,
        "code": refusal.code if refusal else None,
        "detail": refusal.detail if refusal else None,
        "hold": _text(size.charge) if hard else "0",
        "remaining": _text(max(ZERO, shown[1])) if shown else _text(free) if hard else None,
        "reset_date": shown[0].until.isoformat() if shown and shown[0].until else None,
        "credits": _text(free) if hard else None,  # they are bought, and come with no period
        "currency": caller.currency,
        "limits": [_limit_document(*room) for room in rooms],
    }


def _size(caller: Caller, body: CheckBody, card: RateCard, at: datetime) -> Size:
    charge, tokens = body.amount, None
    if body.model:
        bound = HoldBound({"": body.tokens_input}, body.max_tokens)
        tokens = body.tokens_input + body.max_tokens if body.max_tokens is not None else None
        if charge is None:
            charge = hold_amount(
                card, bound, book=caller.list_book, currency=caller.currency, provider=body.provider, model=body.model, at=at,
            )  # fmt: skip
    return Size(charge, tokens, body.quantity)


def _fits(limit: Limit, room: Decimal, size: Size) -> bool:
    """Whether the call fits. Of what nobody has said only that something has to be left is known."""
    most = {"tokens": size.tokens, "charge": size.charge, "quantity": size.quantity, "calls": ONE}[
        limit.measure
    ]
    return room > 0 if most is None else most <= room


def _refusal(
    caller: Caller,
    body: CheckBody,
    beyond: Room | None,
    size: Size,
    free: Decimal,
    card: RateCard,
    at: datetime,
) -> Refusal | None:
    """Why the call would not go out."""
    if not caller.is_active:
        return customer_suspended()
    if caller.blocks_unpriced and body.model:
        tariff = card.tariff_for(caller.list_book, body.provider, body.model, at)
        if tariff is None:
            return model_not_priced(f"The plan admits no model without a price: {body.model!r}.")
    if beyond is not None:
        return beyond[0].refusal(at)
    if not caller.hard_credits:
        return None
    if size.charge is None and body.model:
        return credits_do_not_cover(UNKNOWN_COST)
    # Any call at all needs something to be left.
    fits = free > 0 if size.charge is None else size.charge <= free
    return None if fits else credits_do_not_cover()


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
