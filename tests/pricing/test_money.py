"""Amounts are exact, rounded in one place, and written without surprises."""

from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from pricing.money import (
    SQLITE_AMOUNT_LIMIT,
    AmountTooLarge,
    decimal_string,
    from_scaled,
    round_amount,
    to_scaled,
)

amounts = st.decimals(min_value=-9_000_000, max_value=9_000_000, places=12)
numbers = st.decimals(
    allow_nan=False, allow_infinity=False, min_value=Decimal("-1e18"), max_value=Decimal("1e18")
)
not_finite = pytest.mark.parametrize(
    "value", [Decimal("NaN"), Decimal("Infinity"), Decimal("-Infinity"), Decimal("sNaN")]
)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        ("0.0000000000005", "0"),  # halfway, to the even neighbour below
        ("0.0000000000015", "0.000000000002"),  # halfway, to the even neighbour above
        ("0.0000000000025", "0.000000000002"),
        ("0.00000000000250000000000001", "0.000000000003"),
        ("-0.0000000000015", "-0.000000000002"),
        ("123456789012345678.1234567890125", "123456789012345678.123456789012"),
    ],
)
def test_halves_go_to_the_even_neighbour(value: str, rounded: str) -> None:
    assert round_amount(Decimal(value)) == Decimal(rounded)


@given(numbers)
def test_rounding_moves_by_at_most_half_a_unit_and_only_once(value: Decimal) -> None:
    rounded = round_amount(value)
    assert abs(rounded - value) <= Decimal("0.0000000000005")
    assert round_amount(rounded) == rounded


@not_finite
def test_what_is_not_finite_is_no_amount(value: Decimal) -> None:
    for act in (round_amount, decimal_string, to_scaled):
        with pytest.raises(ValueError, match="finite"):
            act(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0.000123000000", "0.000123"),
        ("0E-12", "0"),
        ("-0.00", "0"),
        ("1E+3", "1000"),
        ("2.5E-7", "0.00000025"),
        ("100", "100"),
    ],
)
def test_text_is_plain(value: str, text: str) -> None:
    assert decimal_string(Decimal(value)) == text


@given(numbers)
def test_text_reads_back_as_the_same_number(value: Decimal) -> None:
    text = decimal_string(value)
    assert Decimal(text) == value
    assert "E" not in text
    assert not ("." in text and text.endswith(("0", ".")))


@given(amounts)
def test_scaling_there_and_back_loses_nothing(amount: Decimal) -> None:
    assert from_scaled(to_scaled(amount)) == amount


@given(st.lists(amounts, max_size=20))
def test_scaled_amounts_sum_like_amounts(parts: list[Decimal]) -> None:
    assert from_scaled(sum(to_scaled(part) for part in parts)) == sum(parts, Decimal(0))


def test_the_limit_of_sqlite_is_the_largest_64_bit_integer() -> None:
    assert to_scaled(SQLITE_AMOUNT_LIMIT) == 2**63 - 1
    assert to_scaled(-SQLITE_AMOUNT_LIMIT) == -(2**63 - 1)
    with pytest.raises(AmountTooLarge, match="PostgreSQL"):
        to_scaled(SQLITE_AMOUNT_LIMIT + Decimal("0.000000000001"))


def test_scaling_never_rounds() -> None:
    with pytest.raises(ValueError, match="round_amount"):
        to_scaled(Decimal("0.0000000000001"))
