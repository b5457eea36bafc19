"""What a provider says a call cost: evidence beside our own rating, and never our price."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from metering.extract.exact import as_written, digits_of
from pricing.money import EXACT

_TICKS_PER_USD = Decimal(10) ** 10  # xAI
_COST_MAX = Decimal(10) ** 17  # what the columns beside it can hold
_DIGITS_MAX = 64
_FIELDS = digits_of("cost", "total_cost")


def reported_cost(usage: Mapping[str, Any], text: bytes = b"") -> Decimal | None:
    """The amount in USD that a usage object names, None where it names none that makes sense.

    `text` is the JSON that the object was decoded from: the number is taken from there, digit by digit, since a float
    no longer says all of them. Without it the shortest text that means the float is taken.
    """
    value: Any = usage.get("cost")
    divisor = None
    if value is None:
        value, divisor = usage.get("cost_in_usd_ticks"), _TICKS_PER_USD
        if value is None:
            return None
    if isinstance(value, dict):
        value = value.get("total_cost")
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    cost = as_written(value, _FIELDS, text) if isinstance(value, float) else Decimal(value)
    if not cost.is_finite() or not 0 <= cost < _COST_MAX or len(str(cost)) > _DIGITS_MAX:
        return None
    return EXACT.divide(cost, divisor) if divisor else cost
