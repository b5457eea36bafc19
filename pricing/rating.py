"""Rating: usage × rates = charge. Pure; the same input gives the same charge for ever.

Amounts are exact until the end and rounded once. The side that is rounded last takes the remainder, so that input and
output (and units that are neither) always add up to the total.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from operator import attrgetter
from typing import Literal

import msgspec

from pricing.money import EXACT, round_amount
from pricing.price_models import (
    calculate_flat,
    calculate_package,
    calculate_percentage,
    calculate_tiered,
    calculate_volume,
)
from pricing.pricelist import COST_BOOK, ModelPrices, RateCard
from pricing.units import REQUEST, Side
from pricing.usage import Quantity, Usage, tokens_of

__all__ = [
    "Charge", "ChargeLine", "calculate_flat", "calculate_package", "calculate_percentage", "calculate_tiered", "calculate_volume",
    "rate_usage",
]  # fmt: skip

ChargeStatus = Literal["priced", "unpriced", "partial"]

_ZERO = Decimal(0)
_times, _plus, _minus = EXACT.multiply, EXACT.add, EXACT.subtract
_times_plus = EXACT.fma  # a product and the sum it goes to, in one step


class ChargeLine(msgspec.Struct, frozen=True, gc=False):
    """One bucket's part of a charge."""

    bucket: str
    quantity: Quantity
    unit_price: Decimal  # of a single one
    rate_id: int
    side: Side
    model: str = ""  # that it was billed at, where several models served the call

    @property
    def amount(self) -> Decimal:
        """Exact: quantity × unit price, not rounded."""
        return _times(self.unit_price, self.quantity)


_rate_id = attrgetter("rate_id")


class Charge(msgspec.Struct, frozen=True, gc=False):
    """A rated usage. `total` is None when nothing could be priced, which is not the same as 0.

    `partial`: some bucket has no price or a side of the usage is unknown; `total` is the sum of what could be priced.
    A side's amount is None when it is unknown. Amounts have at most 12 decimal places.
    """

    book: str
    currency: str  # "" when unpriced
    status: ChargeStatus
    lines: tuple[ChargeLine, ...] = ()
    amount_input: Decimal | None = None
    amount_output: Decimal | None = None
    total: Decimal | None = None
    rate_ids: tuple[int, ...] = ()  # of the lines, each once, in their order
    unit_price_input: Decimal | None = None  # base rate of one token, whatever this call used
    unit_price_output: Decimal | None = None
    unpriced: tuple[
        str, ...
    ] = ()  # what was used and has no price: buckets, with "model: " before where several served


def rate_usage(card: RateCard, usage: Usage, *, book: str, at: datetime) -> Charge:
    """The charge for `usage` by the rates of `book` that hold at `at` (aware). An unknown price is no error.

    What the caller's own upstream key pays for (`byok`) costs nothing in the book `cost`, but for what rates for such calls
    say: there nothing is left unpriced.
    """
    free = usage.byok and book == COST_BOOK
    if usage.source == "none" and not free:
        return Charge(book, "", "unpriced")
    tariff = card.tariff_for(book, usage.provider, usage.model, at)
    prices = None if tariff is None else tariff.prices_of(usage, at)
    exact: dict[Side, Decimal] = {"input": _ZERO, "output": _ZERO, "other": _ZERO}
    lines: list[ChargeLine] = []
    unpriced: list[str] = []
    if usage.parts:
        found = _price_parts(card, usage, book, at, exact, lines, unpriced)
        _price_call(prices, usage, exact, lines)
        prices = prices or found
    elif prices is not None:
        _price_buckets(prices, usage.buckets, "", exact, lines, unpriced)
        if prices.request is not None:
            _price_call(prices, usage, exact, lines)
    else:
        unpriced.extend([name for name, count in usage.buckets.items() if count])
    if free:
        return _of_own_key(book, prices, exact, lines)
    status = _status(lines, unpriced, usage) if prices is not None else "unpriced"
    if status == "unpriced" or prices is None:
        return Charge(book, "", "unpriced", unpriced=tuple(unpriced))
    amount_input, amount_output, total = _rounded(exact["input"], exact["output"], exact["other"])
    unknown = usage.unknown_sides
    return Charge(
        book, prices.currency, status, tuple(lines),
        amount_input if "input" not in unknown else None, amount_output if "output" not in unknown else None, total,
        tuple(dict.fromkeys(map(_rate_id, lines))),
        prices.unit_price_input, prices.unit_price_output, tuple(unpriced),
    )  # fmt: skip


def _of_own_key(
    book: str, prices: ModelPrices | None, exact: dict[Side, Decimal], lines: list[ChargeLine]
) -> Charge:
    """What a call that somebody else pays for costs: the fees for such calls, and nothing besides."""
    amount_input, amount_output, total = _rounded(exact["input"], exact["output"], exact["other"])
    return Charge(
        book, prices.currency if prices is not None else "", "priced", tuple(lines), amount_input, amount_output, total,
        tuple(dict.fromkeys(map(_rate_id, lines))),
    )  # fmt: skip


def _price_parts(
    card: RateCard,
    usage: Usage,
    book: str,
    at: datetime,
    exact: dict[Side, Decimal],
    lines: list[ChargeLine],
    unpriced: list[str],
) -> ModelPrices | None:
    """Price each part at its own model, as the call that it is; the prices of the first that has any."""
    first = None
    for part in usage.parts:
        model = part.model or usage.model
        tariff = card.tariff_for(book, part.provider or usage.provider, model, at)
        if tariff is None:
            unpriced.extend([f"{model}: {name}" for name, count in part.buckets.items() if count])
            continue
        prices = tariff.prices_of(usage, at)
        first = first or prices
        _price_buckets(prices, part.buckets, model, exact, lines, unpriced)
    return first


def _price_call(
    prices: ModelPrices | None, usage: Usage, exact: dict[Side, Decimal], lines: list[ChargeLine]
) -> None:
    """Add a line for the call itself where it has a price, once, unless the usage counts requests itself."""
    if prices is None or prices.request is None or REQUEST in usage.buckets:
        return
    unit_price, rate_id, side = prices.for_input(_tokens_read(usage.buckets)).request or prices.request
    exact[side] = _plus(exact[side], unit_price)
    lines.append(ChargeLine(REQUEST, 1, unit_price, rate_id, side, usage.model if usage.parts else ""))


def _tokens_read(buckets: Mapping[str, Quantity]) -> int:
    """What a threshold is compared with: the tokens that one call read, on average where many are summed up."""
    (tokens, _), requests = tokens_of(buckets), buckets.get(REQUEST, 1)
    return tokens // int(requests) if requests > 1 else tokens


def _price_buckets(
    prices: ModelPrices,
    buckets: Mapping[str, Quantity],
    model: str,
    exact: dict[Side, Decimal],
    lines: list[ChargeLine],
    unpriced: list[str],
) -> None:
    """Add a line for each bucket that has a price, its exact amount to its side; the others are unpriced."""
    if prices.tiers:
        prices = prices.for_input(_tokens_read(buckets))
    price_of = prices.buckets.get
    for bucket, quantity in buckets.items():
        if not quantity:
            continue  # zero costs nothing at any price
        price = price_of(bucket) or prices.price(bucket)
        if price is None and bucket == REQUEST:
            continue  # a call has no fee of its own unless a rate says so
        if price is None or quantity < 0:
            unpriced.append(f"{model}: {bucket}" if model else bucket)
            continue
        unit_price, rate_id, side = price
        exact[side] = _times_plus(unit_price, quantity, exact[side])
        lines.append(ChargeLine(bucket, quantity, unit_price, rate_id, side, model))


def _status(lines: list[ChargeLine], unpriced: list[str], usage: Usage) -> ChargeStatus:
    if not unpriced and not usage.unknown_sides:
        return "priced"
    if lines or (not unpriced and len(usage.unknown_sides) == 1):
        return "partial"
    return "unpriced"


def _rounded(
    exact_input: Decimal, exact_output: Decimal, exact_other: Decimal
) -> tuple[Decimal, Decimal, Decimal]:
    """Input, output and total, each with 12 places; without other units input + output = total to the last digit."""
    amount_input = round_amount(exact_input)
    if exact_other:
        total = round_amount(_plus(_plus(exact_input, exact_output), exact_other))
        return amount_input, round_amount(exact_output), total
    total = round_amount(_plus(exact_input, exact_output)) if exact_output else amount_input
    return amount_input, _minus(total, amount_input), total
