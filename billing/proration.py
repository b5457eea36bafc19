"""Parts of a fee by time. Pure.

A part is what the fee has come to by its end less what it had come to by its start, each rounded once. So parts that tile a
period add up to its fee, to the last digit, in whatever order they are asked for.
"""

from datetime import datetime, timedelta
from decimal import Decimal

from billing.periods import Period
from pricing.money import EXACT, round_amount

_MICROSECOND = timedelta(microseconds=1)


def prorate(fee: Decimal, period: Period, part: Period) -> Decimal:
    """What of the fee for `period` falls to the part of it that lies within. 0 where none does."""
    start, end = max(part.start, period.start), min(part.end, period.end)
    if end <= start:
        return Decimal(0)
    return EXACT.subtract(_by(fee, period, end), _by(fee, period, start))


def _by(fee: Decimal, period: Period, at: datetime) -> Decimal:
    """What the fee has come to by an instant of its period."""
    gone, whole = (at - period.start) // _MICROSECOND, (period.end - period.start) // _MICROSECOND
    return round_amount(EXACT.divide(EXACT.multiply(fee, Decimal(gone)), Decimal(whole)))
