"""Ranges of days, as callers write them."""

from datetime import date

import pytest

from billing import ranges


def test_both_days_are_included() -> None:
    days = ranges.parse("2026-02-27", "2026-03-02")
    assert days.each() == [date(2026, 2, 27), date(2026, 2, 28), date(2026, 3, 1), date(2026, 3, 2)]
    assert days.end == date(2026, 3, 3)


def test_a_leap_year_is_not_too_long_and_a_day_more_is() -> None:
    assert len(ranges.parse("2028-01-01", "2028-12-31")) == 366
    with pytest.raises(ranges.RangeError, match="367 days are too many"):
        ranges.parse("2028-01-01", "2029-01-01")


@pytest.mark.parametrize(
    "written",
    [
        "",
        "2026-2-1",
        "20260201",
        "2026-W05-1",
        "2026-02-30",
        "2026-02-01T00:00",
        " 2026-02-01",
        "٢٠٢٦-٠٢-٠١",
        "9999-12-31",
    ],
)
def test_what_is_no_day_is_named(written: str) -> None:
    with pytest.raises(ranges.RangeError, match="start_date="):
        ranges.parse(written, "2026-02-02")


def test_a_range_does_not_run_backwards() -> None:
    with pytest.raises(ranges.RangeError, match="end_date 2026-02-01 lies before start_date 2026-02-02"):
        ranges.parse("2026-02-02", "2026-02-01")
