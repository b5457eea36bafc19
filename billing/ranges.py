"""Ranges of UTC days, as a caller writes them. Pure."""

import re
from datetime import date, timedelta

import msgspec

DAYS_MAX = 366
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}\Z", re.ASCII)
ONE_DAY = timedelta(days=1)


class RangeError(ValueError):
    """The range cannot be used; the text says why and may be shown to the caller."""


class Days(msgspec.Struct, frozen=True):
    """The UTC days from `first` to `last`, both included."""

    first: date
    last: date

    @property
    def end(self) -> date:
        """The day after the last, for half-open queries."""
        return self.last + ONE_DAY

    def __len__(self) -> int:
        return (self.last - self.first).days + 1

    def each(self) -> list[date]:
        return [self.first + timedelta(days=offset) for offset in range(len(self))]


def parse(start: str, end: str, *, names: tuple[str, str] = ("start_date", "end_date")) -> Days:
    """The days from `start` to `end`, as YYYY-MM-DD. Raises RangeError."""
    first, last = _day(names[0], start), _day(names[1], end)
    if last < first:
        raise RangeError(f"{names[1]} {end} lies before {names[0]} {start}.")
    days = Days(first, last)
    if len(days) > DAYS_MAX:
        raise RangeError(f"{len(days)} days are too many at once; at most {DAYS_MAX}.")
    return days


def _day(name: str, written: str) -> date:
    if not _DAY.match(written):
        raise RangeError(f"{name}={written[:40]!r} is not a day as in 2026-11-20.")
    try:
        day = date.fromisoformat(written)
    except ValueError:
        raise RangeError(f"{name}={written!r} is not a day of the calendar.") from None
    if day == date.max:
        raise RangeError(f"{name}={written!r} is the end of the calendar.")
    return day
