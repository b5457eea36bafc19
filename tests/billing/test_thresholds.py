"""When a threshold is reached, and when what is left will be used up."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from billing.thresholds import DEFAULTS, Threshold, exhausted_at

START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)
amounts = st.decimals(min_value=0, max_value=10**6, places=12)


@pytest.mark.parametrize(
    ("percent", "used", "reached"),
    [("80", "7.999999999999", False), ("80", "8", True), ("80", "8.1", True), ("100", "9.999999999999", False), ("100", "10", True)],
)  # fmt: skip
def test_a_percentage_is_reached_to_the_last_digit(percent: str, used: str, reached: bool) -> None:
    assert Threshold(Decimal(percent)).reached("allowance", Decimal(used), Decimal(10)) is reached


@pytest.mark.parametrize(("used", "reached"), [("4.9", False), ("5", True), ("6", True)])
def test_an_amount_is_reached_when_so_much_is_used(used: str, reached: bool) -> None:
    assert Threshold(amount=Decimal(5)).reached("budget", Decimal(used), Decimal(100)) is reached


@pytest.mark.parametrize(("used", "reached"), [("94.9", False), ("95", True), ("100", True)])
def test_of_credits_an_amount_is_what_is_left(used: str, reached: bool) -> None:
    assert Threshold(amount=Decimal(5)).reached("credit", Decimal(used), Decimal(100)) is reached


def test_of_nothing_all_is_used() -> None:
    assert all(one.reached("budget", Decimal(0), Decimal(0)) for one in DEFAULTS)


@given(used=amounts, limit=amounts)
def test_who_has_reached_a_threshold_has_reached_those_below(used: Decimal, limit: Decimal) -> None:
    found = [one.reached("allowance", used, limit) for one in DEFAULTS]
    assert found == sorted(found, reverse=True)


@pytest.mark.parametrize(
    ("used", "after", "when"),
    [
        (4, timedelta(days=4), START + timedelta(days=10)),  # one a day: ten after ten days
        (8, timedelta(days=4), START + timedelta(days=5)),  # two a day
        (1, timedelta(days=4), None),  # a quarter a day: forty days, and the period has thirty
        (0, timedelta(days=4), None),
        (4, timedelta(0), None),
        (10, timedelta(days=4), START + timedelta(days=4)),  # it is used up
    ],
)
def test_what_is_left_is_used_up_at_the_pace_so_far(used: int, after: timedelta, when: Any) -> None:
    assert exhausted_at(Decimal(used), Decimal(10), START, END, START + after) == when


def test_credits_have_no_end_and_an_end_in_ten_years_is_none() -> None:
    assert exhausted_at(Decimal(1), Decimal(41), START, None, START + timedelta(days=1)) == START + timedelta(
        days=41
    )
    assert exhausted_at(Decimal("0.001"), Decimal(10**6), START, None, START + timedelta(days=1)) is None
