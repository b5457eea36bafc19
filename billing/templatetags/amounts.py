"""How numbers look on a page. The full digits stay within reach: a page shows them in a title."""

from decimal import ROUND_HALF_EVEN, Decimal

from django import template

from pricing.money import decimal_string

register = template.Library()

CENT = Decimal("0.01")
ONE = Decimal(1)
SHOWN_DIGITS = 3


@register.filter
def money(amount: Decimal) -> str:
    """Two places from one on; below, three significant digits, so that a small amount never looks like nothing."""
    if amount == 0 or abs(amount) >= ONE:
        return f"{amount.quantize(CENT, ROUND_HALF_EVEN):,f}"
    last_place = ONE.scaleb(amount.adjusted() - SHOWN_DIGITS + 1)
    return f"{amount.quantize(last_place, ROUND_HALF_EVEN):f}"


@register.filter
def exact(amount: Decimal) -> str:
    """Every digit there is."""
    return decimal_string(amount)


@register.filter
def thousands(count: int | Decimal) -> str:
    """A count with separators."""
    return f"{count:,}" if isinstance(count, int) else f"{Decimal(decimal_string(count)):,f}"
