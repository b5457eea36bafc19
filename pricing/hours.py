"""The hours of the week in which a rate holds, by the clock on the wall of some place.

An instant is looked at as it reads there, so a window is right on the days on which the clocks change: an hour that comes
twice is inside it twice, one that is left out is not.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

import msgspec

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_NO_PLACE = (
    "localtime",
    "Factory",
)  # names of files of the database that mean something else on each machine
_DAY, _SECOND = timedelta(days=1), timedelta(seconds=1)
_CALENDAR = timedelta(days=28 * 365 + 7)  # after 28 years dates fall on the same weekdays again
_ONE_CLOCK = timedelta(days=28)  # by one clock each week is like the next, but for an hour left out


class Hours(msgspec.Struct, frozen=True):
    """When a rate holds within a week: on some weekdays, in a window of the day, or both; by the clock of `zone`.

    A window is half-open and crosses midnight where it ends before it begins. Both are judged by the same local instant:
    at three on a Saturday it is Saturday, whenever the window began.
    """

    weekdays: str = ""  # "mon,tue"; "": any
    begins: time | None = None
    ends: time | None = None
    zone: str = "UTC"

    def hold_at(self, instant: datetime) -> bool:
        """Whether the rate holds at `instant` (aware)."""
        return self.hold_locally(instant.astimezone(zone_of(self.zone)))

    def hold_locally(self, local: datetime) -> bool:
        """The same, of an instant that already reads as in `zone`."""
        if self.weekdays and WEEKDAYS[local.weekday()] not in self.weekdays:
            return False
        if self.begins is None or self.ends is None:
            return True
        at = local.time()
        if self.begins < self.ends:
            return self.begins <= at < self.ends
        return at >= self.begins or at < self.ends


def zone_of(name: str) -> tzinfo:
    """The IANA time zone `name`. ValueError when this machine does not know it."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError(f"{name!r} is no time zone that this machine knows") from error


@cache
def is_zone(name: str) -> bool:
    """Whether `name` is an IANA time zone, the same on every machine."""
    return name not in _NO_PLACE and name in available_timezones()


def weekday_set(text: str) -> str:
    """The weekdays of "fri, mon-wed" as they are stored: "mon,tue,wed,fri". ValueError for anything else."""
    days: set[int] = set()
    for part in filter(None, (part.strip().lower() for part in text.split(","))):
        first, dash, last = part.partition("-")
        if first not in WEEKDAYS or (dash and last not in WEEKDAYS):
            raise ValueError(
                f"{part!r} is no weekday: mon, tue, wed, thu, fri, sat, sun, or a span such as mon-fri"
            )
        begin = WEEKDAYS.index(first)
        span = (WEEKDAYS.index(last) - begin) % 7 if dash else 0
        days.update((begin + step) % 7 for step in range(span + 1))
    return ",".join(WEEKDAYS[day] for day in sorted(days))


def first_shared(one: Hours, other: Hours, start: datetime, end: datetime | None) -> datetime | None:
    """An instant in [start, end) at which both hold, the first of its kind; None when there is none.

    While neither clock is changed both repeat themselves every week, so the first week after each change tells. Without
    an end the search stops when the calendar begins again.
    """
    start = start.astimezone(UTC)
    until = start + (_ONE_CLOCK if one.zone == other.zone else _CALENDAR)
    until = until if end is None else min(end.astimezone(UTC), until)
    zones = (zone_of(one.zone), zone_of(other.zone))
    for begin, stop in _stretches(zones, start, until):
        for instant in sorted(
            {begin, *_beginnings(one, zones[0], begin), *_beginnings(other, zones[1], begin)}
        ):
            if begin <= instant < stop and one.hold_at(instant) and other.hold_at(instant):
                return instant
    return None


def _stretches(
    zones: tuple[tzinfo, tzinfo], start: datetime, until: datetime
) -> Iterator[tuple[datetime, datetime]]:
    """[start, until) cut at each instant at which one of the clocks is changed."""

    def offsets(instant: datetime) -> tuple[timedelta | None, ...]:
        return tuple(instant.astimezone(zone).utcoffset() for zone in zones)

    begin, current = start, offsets(start)
    day = start
    while day < until:
        next_day = min(day + _DAY, until)
        if (found := offsets(next_day)) != current:
            low, high = day, next_day
            while high - low > _SECOND:
                middle = low + (high - low) / 2
                low, high = (low, middle) if offsets(middle) != current else (middle, high)
            change = high.replace(microsecond=0)
            yield begin, change
            begin, current = change, found
        day = next_day
    yield begin, until


def _beginnings(hours: Hours, zone: tzinfo, begin: datetime) -> Iterator[datetime]:
    """The instants at which `hours` may begin to hold in the week from `begin` on, by the offset at `begin`."""
    local = begin.astimezone(zone)
    offset = local.utcoffset() or timedelta(0)
    for at in {time(), hours.begins or time()}:
        for step in range(9):
            day = local.date() + timedelta(days=step)
            yield datetime.combine(day, at, tzinfo=UTC) - offset
