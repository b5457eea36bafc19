"""Billing periods. Pure.

A period is half-open `[start, end)` in UTC. The periods of one anchor tile time, before it and after it, without gap or
overlap. Each start is counted from the anchor itself, never from the start before: from the 31st the starts are 31 January,
28 February, 31 March, and not 28 March for ever after. A local time zone plays no part, so no clock change does either.
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec

Interval = Literal["day", "week", "month", "quarter", "year"]
MONTHS: dict[Interval, int] = {"month": 1, "quarter": 3, "year": 12}
DAYS: dict[Interval, int] = {"day": 1, "week": 7}


class Period(msgspec.Struct, frozen=True, order=True):
    """The time `[start, end)`, both aware and in UTC."""

    start: datetime
    end: datetime

    def __contains__(self, at: datetime) -> bool:
        return self.start <= at < self.end


def period_at(anchor: datetime, interval: Interval, at: datetime) -> Period:
    """The period that the instant `at` lies in. Both instants are aware; a naive one raises ValueError."""
    anchor, at = _utc(anchor), _utc(at)
    number = _guess(anchor, interval, at)
    # The guess is off by one at most: where the anchor's day or hour has not come yet in the month of `at`.
    if _start(anchor, interval, number) > at:
        number -= 1
    return Period(_start(anchor, interval, number), _start(anchor, interval, number + 1))


def _guess(anchor: datetime, interval: Interval, at: datetime) -> int:
    if interval in DAYS:
        return (at - anchor) // timedelta(days=DAYS[interval])
    months = (at.year - anchor.year) * 12 + at.month - anchor.month
    return months // MONTHS[interval]


def _start(anchor: datetime, interval: Interval, number: int) -> datetime:
    """The start of the period with that number; the one that starts at the anchor has number 0."""
    if interval in DAYS:
        return anchor + timedelta(days=DAYS[interval] * number)
    years, month = divmod(anchor.month - 1 + MONTHS[interval] * number, 12)
    year = anchor.year + years
    day = min(anchor.day, monthrange(year, month + 1)[1])
    return anchor.replace(year=year, month=month + 1, day=day)


def _utc(instant: datetime) -> datetime:
    if instant.tzinfo is None:
        raise ValueError(f"{instant.isoformat()} has no time zone")
    return instant.astimezone(UTC)
