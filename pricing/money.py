"""Exact amounts: the one place where an amount is rounded, written as text, or scaled to an integer.

Amounts are `Decimal` everywhere. The databases keep 12 decimal places: PostgreSQL as numeric(30,12), SQLite as a 64-bit
integer of 10⁻¹² units, which is where SQLite's limit comes from.
"""

from collections.abc import Iterable
from decimal import ROUND_HALF_EVEN, Context, Decimal

AMOUNT_PLACES = 12
AMOUNT_DIGITS = 30  # of numeric(30,12): 18 before the point

_UNIT = Decimal(1).scaleb(-AMOUNT_PLACES)
_INT64_MAX = 2**63 - 1

# Python's default context keeps 28 digits, fewer than a numeric(30,12) has: a product would be rounded a second time.
EXACT = Context(prec=200, rounding=ROUND_HALF_EVEN)
_quantize = EXACT.quantize

SQLITE_AMOUNT_LIMIT = Decimal(_INT64_MAX).scaleb(-AMOUNT_PLACES, context=EXACT)  # 9223372.036854775807
POSTGRES_AMOUNT_LIMIT = EXACT.subtract(
    Decimal(10 ** (AMOUNT_DIGITS - AMOUNT_PLACES)), _UNIT
)  # 18 nines, 12 nines


class AmountTooLarge(ValueError):
    """An amount is beyond what the database can hold exactly. Nothing was written."""


# Decimal places of the smallest coin, where they are not two (ISO 4217).
COIN_PLACES = {
    **dict.fromkeys(("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}  # fmt: skip


def round_amount(value: Decimal, *, coin_of: str = "") -> Decimal:
    """`value` with 12 decimal places, or with those of the smallest coin of the currency `coin_of`; halves to even.
    ValueError when it is not finite."""
    if not value.is_finite():
        raise ValueError(f"an amount must be finite, not {value}")
    return _quantize(value, Decimal(1).scaleb(-COIN_PLACES.get(coin_of, 2)) if coin_of else _UNIT)


def in_coins(exact: Iterable[Decimal], currency: str) -> tuple[list[Decimal], Decimal]:
    """Amounts that a bill can show: each rounded to the smallest coin, together with what rounding has left of those before
    it. And what is left in the end: the amounts and that are together what was given, to the last digit."""
    amounts, left = [], Decimal(0)
    for one in exact:
        left = EXACT.add(left, one)
        amounts.append(round_amount(left, coin_of=currency))
        left = EXACT.subtract(left, amounts[-1])
    return amounts, left


def decimal_string(value: Decimal) -> str:
    """`value` as plain text: no exponent, no trailing zeros, no "-0". ValueError when it is not finite."""
    if not value.is_finite():
        raise ValueError(f"an amount must be finite, not {value}")
    text = f"{value:f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def to_scaled(value: Decimal) -> int:
    """`value` in units of 10⁻¹², as SQLite keeps it.

    AmountTooLarge beyond 64 bits; ValueError when not finite or finer than 12 places: nothing is rounded here.
    """
    if not value.is_finite():
        raise ValueError(f"an amount must be finite, not {value}")
    if value.copy_abs() > SQLITE_AMOUNT_LIMIT:  # abs() would round to 28 digits
        raise AmountTooLarge(
            f"SQLite holds amounts up to ±{SQLITE_AMOUNT_LIMIT}, not {value}; use PostgreSQL"
        )
    if value != value.quantize(_UNIT, context=EXACT):
        raise ValueError(f"{value} has more than {AMOUNT_PLACES} decimal places; round_amount() it first")
    return int(value.scaleb(AMOUNT_PLACES, context=EXACT))


def from_scaled(units: int) -> Decimal:
    """The amount that SQLite keeps as `units` of 10⁻¹²."""
    return Decimal(units).scaleb(-AMOUNT_PLACES, context=EXACT)
