"""What a quantity will come to by the end of its period, from what was used so far. Pure.

Two methods, and the answer names the one it used:

    elapsed    the rate of the part of the period that has passed goes on to its end
    weekdays   once there are four whole weeks of history: each day that is left is like the same weekday of those weeks

The range goes from what it comes to if every day that is left were like the least of the days it was made from, to the most.
"""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Literal

import msgspec

from billing.periods import Period
from pricing.money import EXACT, round_amount

ZERO = Decimal(0)
WEEKS = 4
HISTORY = timedelta(weeks=WEEKS)
_DAY = timedelta(days=1)
_MICROSECOND = timedelta(microseconds=1)
Method = Literal["elapsed", "weekdays"]


class Projection(msgspec.Struct, frozen=True):
    """What it comes to at the end of the period, and between what."""

    method: Method
    expected: Decimal
    low: Decimal
    high: Decimal


def project(
    days: Mapping[date, Decimal], used: Decimal, period: Period, at: datetime, *, since: date | None
) -> Projection:
    """`days`: what was used on each UTC day, days without use left out; `used`: so far in the period; `since`: the first day of
    which anything is known (None: nothing is)."""
    today = at.astimezone(UTC).date()
    if since is not None and since <= today - HISTORY:
        return _by_weekdays(days, used, period, at, today)
    return _by_elapsed(days, used, period, at, today)


def _by_elapsed(
    days: Mapping[date, Decimal], used: Decimal, period: Period, at: datetime, today: date
) -> Projection:
    gone, whole = (at - period.start) // _MICROSECOND, (period.end - period.start) // _MICROSECOND
    expected = _share(used, whole, gone) if gone > 0 else used
    over = _days_between(period.start.astimezone(UTC).date(), today)
    if not over:
        return Projection("elapsed", expected, min(used, expected), expected)
    left = Decimal((period.end - at) // _MICROSECOND)
    whole_day = Decimal(_DAY // _MICROSECOND)
    least, most = (bound(days.get(day, ZERO) for day in over) for bound in (min, max))
    low, high = (EXACT.add(used, EXACT.divide(EXACT.multiply(one, left), whole_day)) for one in (least, most))
    return Projection(
        "elapsed", expected, min(round_amount(low), expected), max(round_amount(high), expected)
    )


def _by_weekdays(
    days: Mapping[date, Decimal], used: Decimal, period: Period, at: datetime, today: date
) -> Projection:
    """Of today the same part is still to come as of the day itself."""
    sums = {"expected": used, "low": used, "high": used}
    day = today
    while _start_of(day) < period.end:
        part = _part(day, at, period.end)
        weeks_back = (day - today).days // 7 + 1  # to the last one like it that is over
        like = [days.get(day - timedelta(weeks=weeks_back + week), ZERO) for week in range(WEEKS)]
        mean = EXACT.divide(sum(like, ZERO), Decimal(WEEKS))
        for name, one in (("expected", mean), ("low", min(like)), ("high", max(like))):
            sums[name] = EXACT.add(sums[name], EXACT.multiply(one, part))
        day += _DAY
    return Projection("weekdays", **{name: round_amount(total) for name, total in sums.items()})


def _part(day: date, at: datetime, end: datetime) -> Decimal:
    """What of the day is still to come, and within the period."""
    start = max(_start_of(day), at)
    until = min(_start_of(day) + _DAY, end)
    return EXACT.divide(Decimal((until - start) // _MICROSECOND), Decimal(_DAY // _MICROSECOND))


def _share(amount: Decimal, numerator: int, denominator: int) -> Decimal:
    return round_amount(EXACT.divide(EXACT.multiply(amount, Decimal(numerator)), Decimal(denominator)))


def _days_between(first: date, end: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((end - first).days)]


def _start_of(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
