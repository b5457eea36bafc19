"""Hours of the week hold by the clock of their place, on the days of a clock change too."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import example, given, strategies as st

from pricing.hours import WEEKDAYS, Hours, first_shared, is_zone, weekday_set, zone_of

NIGHT = Hours(begins=time(22), ends=time(6), zone="Europe/Berlin")
ZONES = sorted(name for name in available_timezones() if is_zone(name))
START = datetime(2026, 1, 1, tzinfo=UTC)


def berlin(day: int, hour: int, minute: int = 0, month: int = 11) -> datetime:
    return datetime(2026, month, day, hour, minute, tzinfo=ZoneInfo("Europe/Berlin"))


@pytest.mark.parametrize(
    ("hour", "minute", "holds"),
    [
        (21, 59, False),
        (22, 0, True),
        (23, 59, True),
        (0, 0, True),
        (5, 59, True),
        (6, 0, False),
        (12, 0, False),
    ],
)
def test_a_window_crosses_midnight_where_it_ends_before_it_begins(
    hour: int, minute: int, holds: bool
) -> None:
    assert NIGHT.hold_at(berlin(20, hour, minute)) is holds


def test_the_clock_that_counts_is_the_one_of_the_place() -> None:
    office = Hours(begins=time(9), ends=time(17), zone="Asia/Shanghai")  # eight hours ahead of UTC
    assert office.hold_at(datetime(2026, 11, 20, 1, tzinfo=UTC))
    assert not office.hold_at(datetime(2026, 11, 20, 9, tzinfo=UTC))


def test_at_three_on_a_saturday_it_is_saturday() -> None:
    fridays = Hours("fri", time(22), time(6), "Europe/Berlin")
    assert fridays.hold_at(berlin(20, 23))  # a Friday
    assert fridays.hold_at(berlin(20, 3))
    assert not fridays.hold_at(berlin(21, 3))


def test_the_hour_that_comes_twice_is_inside_twice_and_the_one_left_out_is_not() -> None:
    early = Hours(begins=time(2), ends=time(3), zone="Europe/Berlin")
    autumn = [datetime(2026, 10, 25, 0, 30, tzinfo=UTC) + timedelta(hours=hour) for hour in range(-1, 3)]
    assert [early.hold_at(at) for at in autumn] == [False, True, True, False]  # 01:30 02:30 02:30 03:30
    spring = [datetime(2026, 3, 29, 0, 30, tzinfo=UTC) + timedelta(hours=hour) for hour in range(2)]
    assert [early.hold_at(at) for at in spring] == [False, False]  # 01:30 03:30


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("", ""), ("fri", "fri"), ("fri, mon-wed", "mon,tue,wed,fri"), ("SAT-mon", "mon,sat,sun"), ("mon,mon", "mon"),
        ("mon-sun", "mon,tue,wed,thu,fri,sat,sun"),
    ],
)  # fmt: skip
def test_weekdays_are_stored_in_one_form(text: str, stored: str) -> None:
    assert weekday_set(text) == stored
    assert weekday_set(stored) == stored


@pytest.mark.parametrize("text", ["monday", "1", "mon-", "-mon", "mon fri", "mon-wed-fri"])
def test_what_is_no_weekday_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no weekday"):
        weekday_set(text)


@pytest.mark.parametrize(
    "name", ["Mars/Olympus", "", "localtime", "../etc/passwd", "/etc/passwd", "europe\0berlin"]
)
def test_what_is_no_zone_is_refused(name: str) -> None:
    assert not is_zone(name)


def test_a_zone_that_this_machine_does_not_know_has_a_clear_error() -> None:
    with pytest.raises(ValueError, match="Mars/Olympus"):
        zone_of("Mars/Olympus")


# Windows that tile the day tile it everywhere.


edges = st.lists(st.times(), min_size=2, max_size=6, unique=True).map(sorted)
instants = st.datetimes(datetime(2000, 1, 1), datetime(2037, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001


@given(edges, st.sampled_from(ZONES), instants)
@example([time(2, 30), time(3)], "Europe/Berlin", datetime(2026, 10, 25, 0, 45, tzinfo=UTC))
@example([time(0), time(12)], "Australia/Lord_Howe", datetime(2026, 4, 4, 15, 15, tzinfo=UTC))
def test_of_windows_that_tile_the_day_one_holds_at_any_instant(
    at: list[time], zone: str, instant: datetime
) -> None:
    windows = [
        Hours(begins=begins, ends=ends, zone=zone) for begins, ends in zip(at, at[1:] + at[:1], strict=True)
    ]
    assert sum(window.hold_at(instant) for window in windows) == 1


def test_the_halves_of_a_day_tile_it_in_every_zone_at_every_hour_of_two_days_of_change() -> None:
    halves = (time(2, 30), time(14, 30))
    hours = [datetime(2026, month, day, tzinfo=UTC) + timedelta(minutes=30 * step)
             for month, day in ((3, 29), (10, 25)) for step in range(48)]  # fmt: skip
    for zone in ZONES:
        one, other = (
            Hours(begins=halves[0], ends=halves[1], zone=zone),
            Hours(begins=halves[1], ends=halves[0], zone=zone),
        )
        assert all(one.hold_at(at) is not other.hold_at(at) for at in hours), zone


@given(st.sampled_from(ZONES), instants, st.sets(st.sampled_from(WEEKDAYS), min_size=1, max_size=6))
def test_some_weekdays_and_the_others_tile_the_week(zone: str, instant: datetime, some: set[str]) -> None:
    one = Hours(",".join(day for day in WEEKDAYS if day in some), zone=zone)
    others = Hours(",".join(day for day in WEEKDAYS if day not in some), zone=zone)
    assert one.hold_at(instant) is not others.hold_at(instant)


# Whether two ever hold at once.


def shared(one: Hours, other: Hours, start: datetime = START, end: datetime | None = None) -> datetime | None:
    return first_shared(one, other, start, end)


def test_windows_that_touch_do_not_meet_and_those_that_overlap_do() -> None:
    morning = Hours(begins=time(6), ends=time(12))
    assert shared(morning, Hours(begins=time(12), ends=time(6))) is None
    assert shared(morning, Hours(begins=time(11, 59), ends=time(13))) == datetime(
        2026, 1, 1, 11, 59, tzinfo=UTC
    )


def test_weekdays_that_have_none_in_common_do_not_meet() -> None:
    assert shared(Hours("mon,tue"), Hours("wed")) is None
    assert shared(Hours("mon,tue"), Hours("tue,wed")) == datetime(2026, 1, 6, tzinfo=UTC)


def test_the_same_window_in_zones_far_apart_does_not_meet_and_in_near_ones_it_does() -> None:
    shanghai, berlin_, london = (
        Hours("", time(9), time(17), zone) for zone in ("Asia/Shanghai", "Europe/Berlin", "Europe/London")
    )
    assert shared(shanghai, Hours(begins=time(9), ends=time(17), zone="America/New_York")) is None
    assert shared(shanghai, berlin_) is not None  # 17:00 in Shanghai is 10:00 in Berlin
    assert shared(berlin_, london) == datetime(2026, 1, 1, 9, tzinfo=UTC)


def test_two_that_meet_only_while_one_clock_is_changed_already_are_found() -> None:
    """From 8 to 29 March New York is four hours behind UTC and Berlin one ahead of it, else they are six apart."""
    berlin_ = Hours(begins=time(14), ends=time(15), zone="Europe/Berlin")
    new_york = Hours(begins=time(9), ends=time(10), zone="America/New_York")
    assert shared(berlin_, new_york) == datetime(2026, 3, 8, 13, tzinfo=UTC)
    assert shared(berlin_, new_york, START, datetime(2026, 3, 8, 13, tzinfo=UTC)) is None
    assert (
        shared(berlin_, new_york, datetime(2026, 3, 29, 13, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC))
        is None
    )


def test_two_that_would_meet_only_after_one_of_them_ended_do_not_meet() -> None:
    mondays, early = Hours("mon"), Hours("mon", time(0), time(1))
    assert shared(mondays, early, START, datetime(2026, 1, 5, tzinfo=UTC)) is None
    assert shared(mondays, early, START, datetime(2026, 1, 5, 0, 1, tzinfo=UTC)) == datetime(
        2026, 1, 5, tzinfo=UTC
    )


hours = st.builds(
    lambda days, window, zone: Hours(",".join(day for day in WEEKDAYS if day in days), window[0], window[1], zone),
    st.sets(st.sampled_from(WEEKDAYS), max_size=6),
    st.lists(st.sampled_from([time(hour, minute) for hour in range(24) for minute in (0, 30)]), min_size=2, max_size=2, unique=True),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Africa/Casablanca"]),
)  # fmt: skip


@given(
    hours,
    hours,
    st.integers(0, 365 * 24).map(lambda hour: START + timedelta(hours=hour)),
    st.integers(1, 8),
)
def test_the_search_agrees_with_looking_at_every_quarter_of_an_hour(
    one: Hours, other: Hours, start: datetime, days: int
) -> None:
    steps = [start + timedelta(minutes=15) * step for step in range(days * 96)]
    expected = next((at for at in steps if one.hold_at(at) and other.hold_at(at)), None)
    found = shared(one, other, start, start + timedelta(days=days))
    assert (found is None) is (expected is None)
    if found is not None:
        assert one.hold_at(found) and other.hold_at(found)
