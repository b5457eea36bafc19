"""What a period will come to: at the rate so far, or by weekdays once there are four weeks to go by."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from billing.periods import Period
from billing.projection import Projection, project

D = Decimal
JUNE = Period(datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC))
JUNE_1 = date(2026, 6, 1)  # a Monday


def by_day(*used: int, first: date = JUNE_1) -> dict[date, Decimal]:
    return {first + timedelta(days=number): D(one) for number, one in enumerate(used)}


def test_a_third_of_the_period_at_ten_a_day_comes_to_three_hundred() -> None:
    """10 of 30 days: 100 × 30 / 10. The least day was 5, the most 15: 100 + 20 × 5, 100 + 20 × 15."""
    days = by_day(5, 15, 10, 10, 10, 10, 10, 10, 10, 10)
    found = project(days, D(100), JUNE, JUNE.start + timedelta(days=10), since=JUNE_1)
    assert found == Projection("elapsed", D(300), D(200), D(400))


def test_within_the_first_day_there_is_no_range_yet() -> None:
    found = project({JUNE_1: D(3)}, D(3), JUNE, JUNE.start + timedelta(hours=12), since=JUNE_1)
    assert found == Projection("elapsed", D(180), D(3), D(180))


def test_at_the_first_instant_nothing_is_projected() -> None:
    assert project({}, D(0), JUNE, JUNE.start, since=None).expected == 0


@pytest.mark.parametrize(("since", "method"), [(28, "weekdays"), (27, "elapsed")])
def test_weekdays_count_from_four_weeks_of_history_on(since: int, method: str) -> None:
    at = JUNE.start + timedelta(days=9)
    found = project({}, D(1), JUNE, at, since=at.date() - timedelta(days=since))
    assert found.method == method


def test_by_weekdays_a_weekend_that_is_left_is_like_the_weekends_before() -> None:
    """Friday 26 June, 00:00. Weekdays were 10, weekends 0; Friday, Monday and Tuesday are left with their 10, the weekend with 0."""
    first = date(2026, 5, 25)
    days = {first + timedelta(days=n): D(10 if n % 7 < 5 else 0) for n in range(32)}
    used = D(10) * 19  # 1 to 25 June: nineteen weekdays
    found = project(days, used, JUNE, datetime(2026, 6, 26, tzinfo=UTC), since=first)
    assert found == Projection("weekdays", D(220), D(220), D(220))


def test_by_weekdays_of_today_the_part_is_left_that_is_left_of_the_day() -> None:
    """18:00 on the last day: a quarter of a day like 4, 8, 12 and 16 (10 in the mean) is left."""
    last = date(2026, 6, 30)
    days = {last - timedelta(weeks=week): D(4 * week) for week in (1, 2, 3, 4)}
    found = project(days, D(50), JUNE, datetime(2026, 6, 30, 18, tzinfo=UTC), since=date(2026, 5, 1))
    assert found == Projection("weekdays", D("52.5"), D(51), D(54))


@given(
    st.dictionaries(st.dates(date(2026, 4, 1), date(2026, 6, 30)), st.integers(0, 1000).map(D)),
    st.integers(0, 30 * 86_400 - 1),
    st.none() | st.dates(date(2026, 4, 1), date(2026, 6, 1)),
)
def test_what_is_expected_lies_in_its_range_and_is_no_less_than_what_was_used(
    days: dict[date, Decimal], second: int, since: date | None
) -> None:
    at = JUNE.start + timedelta(seconds=second)
    used = sum((one for day, one in days.items() if JUNE_1 <= day <= at.date()), D(0))
    found = project(days, used, JUNE, at, since=since)
    assert found.low <= found.expected <= found.high
    assert used <= found.low
