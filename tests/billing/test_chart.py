"""The bars of the usage page, and how its numbers look."""

from datetime import date, timedelta
from decimal import Decimal

import pytest

from billing.portal import chart
from billing.templatetags import amounts


def days(count: int) -> list[date]:
    return [date(2026, 1, 1) + timedelta(days=index) for index in range(count)]


def test_the_largest_day_fills_the_drawing_and_the_rest_is_in_proportion() -> None:
    drawn = chart.bars(days(3), [Decimal(4), Decimal(1), Decimal(0)], [1, 1, 0])
    assert [bar.height for bar in drawn] == [chart.HEIGHT, chart.HEIGHT // 4, 0]
    assert all(bar.y + bar.height == chart.HEIGHT for bar in drawn)


def test_a_day_with_any_amount_is_visible() -> None:
    drawn = chart.bars(days(2), [Decimal(1_000_000), Decimal("0.000000000001")], [1, 1])
    assert drawn[1].height == 2


@pytest.mark.parametrize("count", [1, 7, 31, 90, 366])
def test_bars_stay_within_the_drawing_and_labels_are_few(count: int) -> None:
    drawn = chart.bars(days(count), [Decimal(1)] * count, [1] * count)
    assert all(bar.width >= 1 and bar.x + bar.width <= chart.WIDTH for bar in drawn)
    assert 1 <= sum(bool(bar.label) for bar in drawn) <= chart.LABELS_MAX


def test_no_amount_at_all_draws_nothing() -> None:
    assert [bar.height for bar in chart.bars(days(2), [Decimal(0)] * 2, [0, 0])] == [0, 0]


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        ("0", "0.00"), ("1234567.895", "1,234,567.90"), ("1", "1.00"), ("0.5", "0.500"), ("0.0123456", "0.0123"),
        ("0.000000012345", "0.0000000123"), ("0.000000000001", "0.00000000000100"), ("-0.0123456", "-0.0123"),
    ],
)  # fmt: skip
def test_a_small_amount_never_looks_like_nothing(amount: str, shown: str) -> None:
    assert amounts.money(Decimal(amount)) == shown


def test_every_digit_is_within_reach() -> None:
    assert amounts.exact(Decimal("0.000000012345")) == "0.000000012345"


def test_counts_have_separators() -> None:
    assert [amounts.thousands(21698), amounts.thousands(Decimal("1500.500000"))] == ["21,698", "1,500.5"]
