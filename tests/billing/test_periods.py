"""Periods tile time: no gap, no overlap, whatever the anchor."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given, strategies as st

from billing.periods import Interval, Period, period_at

INTERVALS: list[Interval] = ["day", "week", "month", "quarter", "year"]
ZONES = sorted(available_timezones())

instants = st.datetimes(
    min_value=datetime(1990, 1, 1),  # noqa: DTZ001  (the zone is drawn)
    max_value=datetime(2090, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
in_any_zone = st.builds(lambda at, name: at.astimezone(ZoneInfo(name)), instants, st.sampled_from(ZONES))


def utc(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=UTC)


def starts(anchor: datetime, interval: Interval, count: int) -> list[datetime]:
    found, at = [], anchor
    for _ in range(count):
        period = period_at(anchor, interval, at)
        found.append(period.start)
        at = period.end
    return found


def test_a_month_counts_from_its_anchor() -> None:
    assert period_at(utc(2026, 1, 15), "month", utc(2026, 3, 1)) == Period(utc(2026, 2, 15), utc(2026, 3, 15))


def test_the_end_belongs_to_the_next_period() -> None:
    assert period_at(utc(2026, 1, 1), "month", utc(2026, 2, 1)).start == utc(2026, 2, 1)
    just_before = utc(2026, 2, 1) - timedelta(microseconds=1)
    assert period_at(utc(2026, 1, 1), "month", just_before).start == utc(2026, 1, 1)


def test_an_anchor_on_the_31st_comes_back_to_the_31st() -> None:
    assert starts(utc(2026, 1, 31), "month", 5) == [
        utc(2026, 1, 31), utc(2026, 2, 28), utc(2026, 3, 31), utc(2026, 4, 30), utc(2026, 5, 31),
    ]  # fmt: skip


def test_february_of_a_leap_year_has_its_29th() -> None:
    assert starts(utc(2027, 12, 30), "month", 4)[2] == utc(2028, 2, 29)


def test_a_year_from_the_29th_of_february_starts_on_the_28th_where_there_is_no_29th() -> None:
    assert starts(utc(2024, 2, 29), "year", 5) == [
        utc(2024, 2, 29), utc(2025, 2, 28), utc(2026, 2, 28), utc(2027, 2, 28), utc(2028, 2, 29),
    ]  # fmt: skip


def test_time_before_the_anchor_is_tiled_as_well() -> None:
    assert period_at(utc(2026, 5, 31), "month", utc(2026, 2, 10)) == Period(
        utc(2026, 1, 31), utc(2026, 2, 28)
    )


def test_a_week_has_seven_days_and_a_quarter_three_months() -> None:
    assert starts(utc(2026, 1, 1), "week", 3)[2] == utc(2026, 1, 1) + timedelta(days=14)
    assert starts(utc(2025, 11, 30), "quarter", 3) == [utc(2025, 11, 30), utc(2026, 2, 28), utc(2026, 5, 30)]


def test_an_instant_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        period_at(utc(2026, 1, 1), "month", datetime(2026, 1, 2))  # noqa: DTZ001


@given(anchor=in_any_zone, at=in_any_zone, interval=st.sampled_from(INTERVALS))
def test_every_instant_lies_in_its_period(anchor: datetime, at: datetime, interval: Interval) -> None:
    period = period_at(anchor, interval, at)
    assert at in period
    assert period.start < period.end
    assert period.start.tzinfo is UTC


@given(anchor=in_any_zone, at=in_any_zone, interval=st.sampled_from(INTERVALS))
def test_neighbours_touch(anchor: datetime, at: datetime, interval: Interval) -> None:
    period = period_at(anchor, interval, at)
    assert period_at(anchor, interval, period.start) == period
    assert period_at(anchor, interval, period.end).start == period.end
    assert period_at(anchor, interval, period.start - timedelta(microseconds=1)).end == period.start


@given(anchor=instants)
def test_twelve_months_are_a_year(anchor: datetime) -> None:
    months = starts(anchor, "month", 13)
    assert months[12] == period_at(anchor, "year", anchor).end
    assert all(
        timedelta(days=28) <= later - earlier <= timedelta(days=31) for earlier, later in pairwise(months)
    )


def test_no_zone_moves_a_period() -> None:
    anchor = utc(2026, 3, 29, 1)  # the hour that Europe leaves out
    for zone in map(ZoneInfo, ZONES):
        for month in range(1, 13):
            at = utc(2026, month, 27, 1)
            period = period_at(anchor, "month", at)
            assert period_at(anchor.astimezone(zone), "month", at.astimezone(zone)) == period, zone
