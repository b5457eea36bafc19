"""What its prices make of an event: the one rule for a call that is settled, an event that is rated again, and a swept hold."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from metering.context import Terms
from metering.rows import PricingStatus
from pricing.money import EXACT, round_amount
from pricing.pricelist import RateCard
from pricing.rating import Charge, rate_usage
from pricing.usage import Usage

ZERO, ONE = Decimal(0), Decimal(1)
OTHER_CURRENCY = "currency "  # what is missing where a book has prices, but in another currency
_COSTLESS: dict[str, Any] = {
    "status": "priced", "amount_input": ZERO, "amount_output": ZERO, "total": ZERO, "rate_ids": (), "unpriced": (),
}  # fmt: skip


class Rated(msgspec.Struct, frozen=True, gc=False):
    """The columns of an event that its prices decide; and `missing`, by book: what a rate could still price."""

    pricing_status: PricingStatus
    model_cost_input: Decimal | None
    model_cost_output: Decimal | None
    cost_input: Decimal | None
    cost_output: Decimal | None
    cost_total: Decimal | None
    charge_total: Decimal | None
    currency: str
    rate_ids: tuple[int, ...]
    missing: dict[str, list[str]] | None


PRICED_COLUMNS = tuple(name for name in Rated.__struct_fields__ if name != "missing")


def rate_event(
    card: RateCard, usage: Usage, terms: Terms, *, at: datetime, currency: str, by_plan: bool = False
) -> Rated:
    """Rate `usage` at the instant of use, in `currency`, the account's; "" takes that of its prices.

    Prices in another currency are none: no sum is made of two. They are named in `missing`, as in "currency EUR".

    Where the customer pays nothing for the event itself (`terms.free`, `by_plan`) the charge is 0, and only the cost asks
    for a price; where it costs nothing (`terms.costless`) that asks for none either.
    """
    cost = rate_usage(card, usage, book=terms.cost_book, at=at)
    if cost.currency != currency:
        cost = _in_currency(cost, currency)
    if terms.costless:
        cost = msgspec.structs.replace(cost, **_COSTLESS)
    if terms.free or by_plan:
        charges: tuple[Charge, ...] = (cost,)
        charged: Decimal | None = ZERO
        status: PricingStatus = "by_plan" if by_plan else "priced" if cost.status == "priced" else "partial"
    else:
        used = served_only(usage) if terms.served_only else usage
        charge = rate_usage(card, used, book=terms.list_book, at=at)
        if charge.currency != currency:
            charge = _in_currency(charge, currency)
        currency = currency or charge.currency
        charges, charged = (cost, charge), charge.total
        if charged is not None and terms.share != ONE:
            charged = round_amount(EXACT.multiply(charged, terms.share))
        status = _pricing_status(cost, charge)
    is_known = cost.total is not None
    return Rated(
        status,
        _rounded(cost.unit_price_input), _rounded(cost.unit_price_output),
        cost.amount_input if is_known else None, cost.amount_output if is_known else None, cost.total,
        charged, currency, tuple(dict.fromkeys([rate for part in charges for rate in part.rate_ids])),
        None if status == "priced" else _missing(usage, charges),
    )  # fmt: skip


def served_only(usage: Usage) -> Usage:
    """Of several models, the parts of the one that gave the answer; all of them where none is known to be its."""
    parts = tuple(part for part in usage.parts if (part.model or usage.model) == usage.model)
    return msgspec.structs.replace(usage, parts=parts) if parts else usage


def _in_currency(charge: Charge, currency: str) -> Charge:
    """The charge where it is in this currency; else as if there were no prices, but for why. Without a line it is 0 in any."""
    if not currency or not charge.lines or charge.currency == currency:
        return charge
    return Charge(charge.book, "", "unpriced", unpriced=(OTHER_CURRENCY + charge.currency,))


def _pricing_status(cost: Charge, charge: Charge) -> PricingStatus:
    if charge.status == "priced" and cost.status == "priced":
        return "priced"
    return "unpriced" if charge.status == "unpriced" and cost.status == "unpriced" else "partial"


def _missing(usage: Usage, charges: Iterable[Charge]) -> dict[str, list[str]] | None:
    """Only what a rate can heal: usage that nobody reported stays unknown at any price. No bucket at all: the model has no
    rate, and nothing was used."""
    if usage.source == "none":
        return None
    missing = {
        charge.book: list(charge.unpriced)
        for charge in charges
        if charge.unpriced or (charge.status == "unpriced" and len(usage.unknown_sides) < 2)
    }
    return missing or None


def _rounded(price: Decimal | None) -> Decimal | None:
    """A unit price as the column holds it; the amounts beside it were made from the exact one."""
    return None if price is None else round_amount(price)
