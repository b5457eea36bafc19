"""Prices of a quantity over a period: the arithmetic below, at and above each edge, and what holds of any quantity."""

from decimal import Decimal

import pytest
from hypothesis import given, strategies as st

from pricing.price_models import (
    InvalidQuantity,
    InvalidTiers,
    Rated,
    Tier,
    bounded,
    tiers_of,
)
from pricing.rating import (
    calculate_flat,
    calculate_package,
    calculate_percentage,
    calculate_tiered,
    calculate_volume,
)

D = Decimal
# up to 100 at 0.10, up to 1,000 at 0.05, beyond at 0.01
TIERS = (Tier(D(100), D("0.10")), Tier(D(1000), D("0.05")), Tier(None, D("0.01")))

quantities = st.decimals(0, 10**9, places=6)
prices = st.decimals(0, 1000, places=6)
counts = st.integers(0, 10**6).map(Decimal)


@st.composite
def some_tiers(draw: st.DrawFn) -> tuple[Tier, ...]:
    edges = sorted(draw(st.sets(st.integers(1, 10**6), max_size=5)))
    return tuple(Tier(D(edge) if edge else None, draw(prices)) for edge in [*edges, None])


def said(rated: Rated) -> tuple[Decimal, list[str]]:
    return rated.total, [line.text for line in rated.lines]


@pytest.mark.parametrize(
    ("quantity", "total", "text"),
    [
        (49, "0", []),
        (50, "0", []),
        (51, "0.05", ["1 × 0.05 = 0.05"]),
        (75, "1.25", ["25 × 0.05 = 1.25"]),
    ],
)
def test_flat_charges_each_beyond_what_is_included(quantity: int, total: str, text: list[str]) -> None:
    assert said(calculate_flat(D(quantity), D("0.05"), included=D(50))) == (D(total), text)


def test_flat_without_anything_included() -> None:
    assert said(calculate_flat(D(175), D("0.01"))) == (D("1.75"), ["175 × 0.01 = 1.75"])


@pytest.mark.parametrize(
    ("quantity", "total", "text"),
    [
        (0, "0", []),
        (99, "9.90", ["99 × 0.1 = 9.9"]),
        (100, "10", ["100 × 0.1 = 10"]),
        (101, "10.05", ["100 × 0.1 = 10", "1 × 0.05 = 0.05"]),
        (1000, "55", ["100 × 0.1 = 10", "900 × 0.05 = 45"]),
        (1001, "55.01", ["100 × 0.1 = 10", "900 × 0.05 = 45", "1 × 0.01 = 0.01"]),
    ],
)
def test_graduated_charges_each_part_at_its_tier(quantity: int, total: str, text: list[str]) -> None:
    assert said(calculate_tiered(D(quantity), TIERS)) == (D(total), text)


def test_graduated_takes_off_what_is_included_first() -> None:
    assert said(calculate_tiered(D(160), TIERS, included=D(50))) == (
        D("10.50"), ["100 × 0.1 = 10", "10 × 0.05 = 0.5"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("quantity", "total"), [(100, "10"), (101, "5.05"), (1000, "50"), (1001, "10.01"), (0, "0")]
)
def test_volume_charges_all_at_the_tier_that_is_reached(quantity: int, total: str) -> None:
    assert calculate_volume(D(quantity), TIERS).total == D(total)


def test_more_can_cost_less_by_volume() -> None:
    assert calculate_volume(D(101), TIERS).total < calculate_volume(D(100), TIERS).total


def test_a_tier_may_have_a_fee_beside_its_price() -> None:
    tiers = (Tier(D(10), D(1), flat_fee=D(5)), Tier(None, D(2), flat_fee=D(7)))
    assert said(calculate_tiered(D(12), tiers)) == (D(26), ["10 × 1 + 5 = 15", "2 × 2 + 7 = 11"])
    assert said(calculate_volume(D(12), tiers)) == (D(31), ["12 × 2 + 7 = 31"])


@pytest.mark.parametrize(
    ("quantity", "packages"), [("0", 0), ("0.5", 1), ("1000", 1), ("1000.000001", 2), ("2000", 2)]
)
def test_a_package_that_is_begun_counts_whole(quantity: str, packages: int) -> None:
    assert calculate_package(D(quantity), D(1000), D("2.50")).total == packages * D("2.50")


def test_a_package_says_its_arithmetic() -> None:
    [line] = calculate_package(D(2500), D(1000), D(2)).lines
    assert (line.quantity, line.unit_price, line.amount) == (3, 2, 6)
    assert line.text == "2500 in packages of 1000: 3 × 2 = 6"


def test_a_percentage_of_what_it_cost_and_a_price_for_each() -> None:
    assert said(calculate_percentage(D("8.40"), D(120), D("0.01"), D(30))) == (
        D("10.38"), ["120 % of 8.4 = 10.08", "30 × 0.01 = 0.3"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("quantity", "minimum", "maximum", "total", "last"),
    [
        (10, "5", "9", "5", "minimum of 5, less 1 = 4"),
        (50, "5", "9", "5", "50 × 0.1 = 5"),
        (90, "5", "9", "9", "90 × 0.1 = 9"),
        (91, "5", "9", "9", "maximum of 9, less 9.1 = -0.1"),
    ],
)
def test_a_minimum_or_a_maximum_is_a_line_of_its_own(
    quantity: int, minimum: str, maximum: str, total: str, last: str
) -> None:
    rated = bounded(calculate_flat(D(quantity), D("0.1")), D(minimum), D(maximum))
    assert (rated.total, rated.lines[-1].text) == (D(total), last)


@pytest.mark.parametrize(
    "tiers",
    [
        (),
        (Tier(D(10), D(1)),),
        (Tier(None, D(1)), Tier(None, D(2))),
        (Tier(D(10), D(1)), Tier(D(10), D(2)), Tier(None, D(3))),
        (Tier(D(10), D(1)), Tier(D(9), D(2)), Tier(None, D(3))),
        (Tier(D(0), D(1)), Tier(None, D(3))),
        (Tier(None, D(-1)),),
        (Tier(None, D("NaN")),),
        (Tier(D("Infinity"), D(1)), Tier(None, D(3))),
    ],
)
def test_tiers_that_do_not_cover_every_quantity_once_are_refused(tiers: tuple[Tier, ...]) -> None:
    with pytest.raises(InvalidTiers):
        tiers_of(tiers)


@pytest.mark.parametrize("quantity", ["-1", "NaN", "Infinity"])
def test_a_quantity_that_cannot_be_is_refused(quantity: str) -> None:
    with pytest.raises(InvalidQuantity):
        calculate_flat(D(quantity), D(1))
    with pytest.raises(InvalidQuantity):
        calculate_tiered(D(quantity), TIERS)
    with pytest.raises(InvalidQuantity):
        calculate_percentage(D(quantity), D(1))
    with pytest.raises(InvalidQuantity):
        calculate_package(D(1), D(quantity), D(1))


@given(quantities, quantities, prices, some_tiers(), counts)
def test_more_never_costs_less_flat_graduated_or_by_package(
    one: Decimal, other: Decimal, price: Decimal, tiers: tuple[Tier, ...], included: Decimal
) -> None:
    less, more = sorted((one, other))
    assert calculate_flat(less, price, included).total <= calculate_flat(more, price, included).total
    assert calculate_tiered(less, tiers, included).total <= calculate_tiered(more, tiers, included).total
    assert calculate_package(less, D(7), price).total <= calculate_package(more, D(7), price).total


@given(st.lists(counts, min_size=1, max_size=8), some_tiers())
def test_a_graduated_total_is_the_same_however_its_quantity_is_split(
    parts: list[Decimal], tiers: tuple[Tier, ...]
) -> None:
    before, posted = D(0), D(0)
    for part in parts:
        posted += calculate_tiered(before + part, tiers).total - calculate_tiered(before, tiers).total
        before += part
    assert posted == calculate_tiered(sum(parts, D(0)), tiers).total


@given(some_tiers(), st.integers(0, 4))
def test_graduated_is_continuous_at_its_edges(tiers: tuple[Tier, ...], place: int) -> None:
    """A step of a millionth costs a millionth of a unit's price on either side."""
    step, edge = D("0.000001"), tiers[min(place, len(tiers) - 1)].up_to or D(1000)
    dearest = max(tier.unit_price for tier in tiers)
    for at in (edge - step, edge):
        assert calculate_tiered(at + step, tiers).total - calculate_tiered(at, tiers).total <= step * dearest


@given(quantities, some_tiers(), st.none() | prices, st.none() | prices)
def test_the_lines_add_up_and_each_is_its_own_arithmetic(
    quantity: Decimal, tiers: tuple[Tier, ...], minimum: Decimal | None, maximum: Decimal | None
) -> None:
    if minimum is not None and maximum is not None:
        minimum, maximum = sorted((minimum, maximum))
    for rated in (calculate_tiered(quantity, tiers), calculate_volume(quantity, tiers)):
        assert sum((line.amount for line in rated.lines), D(0)) == rated.total
        for line in rated.lines:
            assert line.amount == line.quantity * line.unit_price
        within = bounded(rated, minimum, maximum).total
        assert minimum is None or within >= minimum
        assert maximum is None or within <= maximum
