"""Prices of a quantity over a period: flat, graduated, volume, package, percentage. Pure.

Each function takes what was used, takes off what is included, and answers lines that say their arithmetic. A line is rounded
once, to the 12 places of an amount; the total is the sum of its lines.

A tier reaches up to its `up_to`, that quantity included, from where the one before it ends; the last is open. So there can be
no gap and no overlap.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec

from pricing.money import EXACT, decimal_string, round_amount

ZERO, ONE, HUNDRED = Decimal(0), Decimal(1), Decimal(100)
_times, _plus, _minus = EXACT.multiply, EXACT.add, EXACT.subtract


class InvalidTiers(ValueError):
    """Tiers that do not cover every quantity once. The text says which."""


class InvalidQuantity(ValueError):
    """A quantity, a price or a percentage that is negative or no number."""


class Tier(msgspec.Struct, frozen=True):
    """One step of a price: `unit_price` for each of it, and `flat_fee` once where anything falls into it."""

    up_to: Decimal | None  # None: the last, open one
    unit_price: Decimal
    flat_fee: Decimal = ZERO


class RatedLine(msgspec.Struct, frozen=True):
    """A part of a charge: so many at a price, what that comes to, and how, in words."""

    quantity: Decimal
    unit_price: Decimal
    amount: Decimal
    text: str
    is_bound: bool = False  # what a minimum adds, or a maximum takes off


class Rated(msgspec.Struct, frozen=True):
    """What a quantity comes to."""

    lines: tuple[RatedLine, ...]

    @property
    def total(self) -> Decimal:
        """The sum of the lines, exactly."""
        return _sum(line.amount for line in self.lines)


NOTHING = Rated(())


def tiers_of(given: Iterable[Tier]) -> tuple[Tier, ...]:
    """The tiers, once they are known to cover every quantity once. Raises InvalidTiers."""
    tiers = tuple(given)
    if not tiers:
        raise InvalidTiers("There has to be a tier.")
    below = ZERO
    for place, tier in enumerate(tiers, 1):
        for name, price in (("unit_price", tier.unit_price), ("flat_fee", tier.flat_fee)):
            if not price.is_finite() or price < 0:
                raise InvalidTiers(f"Tier {place}: {name} cannot be {price}.")
        if (tier.up_to is None) != (place == len(tiers)):
            raise InvalidTiers(f"Tier {place}: the last tier, and no other, is open at the top.")
        if tier.up_to is not None:
            if not tier.up_to.is_finite() or tier.up_to <= below:
                raise InvalidTiers(f"Tier {place}: up_to has to be above {below}.")
            below = tier.up_to
    return tiers


def calculate_flat(quantity: Decimal, unit_price: Decimal, included: Decimal = ZERO) -> Rated:
    """Each at one price: 75 with 50 included at 0.05 are 25 × 0.05 = 1.25. Raises InvalidQuantity."""
    _check(unit_price=unit_price)
    return _lines([_line(_beyond(quantity, included), unit_price)])


def calculate_tiered(quantity: Decimal, tiers: Sequence[Tier], included: Decimal = ZERO) -> Rated:
    """Graduated: each part at the price of the tier that it falls into. Raises InvalidQuantity, InvalidTiers."""
    left, below, lines = _beyond(quantity, included), ZERO, []
    for tier in tiers_of(tiers):
        part = left if tier.up_to is None else min(left, _minus(tier.up_to, below))
        if part <= 0:
            break
        lines.append(_line(part, tier.unit_price, tier.flat_fee))
        left, below = _minus(left, part), tier.up_to or below
    return _lines(lines)


def calculate_volume(quantity: Decimal, tiers: Sequence[Tier], included: Decimal = ZERO) -> Rated:
    """All at the price of the tier that the quantity reaches: more can cost less. Raises InvalidQuantity, InvalidTiers."""
    used = _beyond(quantity, included)
    tier = next(one for one in tiers_of(tiers) if one.up_to is None or used <= one.up_to)
    return _lines([_line(used, tier.unit_price, tier.flat_fee)] if used else [])


def calculate_package(
    quantity: Decimal, package_size: Decimal, package_price: Decimal, included: Decimal = ZERO
) -> Rated:
    """By packages, of which one that is begun counts whole. Raises InvalidQuantity."""
    _check(package_price=package_price)
    if not package_size.is_finite() or package_size <= 0:
        raise InvalidQuantity(f"package_size cannot be {package_size}.")
    used = _beyond(quantity, included)
    whole, rest = EXACT.divmod(used, package_size)
    packages = _plus(whole, ONE) if rest else whole
    text = f"{_words(used)} in packages of {_words(package_size)}: "
    line = _line(packages, package_price)
    return _lines([msgspec.structs.replace(line, text=text + line.text)] if packages else [])


def calculate_percentage(
    amount: Decimal, percent: Decimal, fixed_per_unit: Decimal = ZERO, quantity: Decimal = ZERO
) -> Rated:
    """A percentage of an amount (120: 20 % on top of what it cost), and a fixed price for each of a quantity. Raises
    InvalidQuantity."""
    _check(percent=percent, fixed_per_unit=fixed_per_unit, amount=amount, quantity=quantity)
    share = round_amount(EXACT.divide(_times(amount, percent), HUNDRED))
    text = f"{_words(percent)} % of {_words(amount)} = {_words(share)}"
    lines = [RatedLine(amount, EXACT.divide(percent, HUNDRED), share, text)] if share else []
    return _lines([*lines, _line(quantity, fixed_per_unit)] if fixed_per_unit else lines)


def bounded(rated: Rated, minimum: Decimal | None = None, maximum: Decimal | None = None) -> Rated:
    """The same with a line that brings it up to the minimum or down to the maximum, where it needs one."""
    total = rated.total
    if minimum is not None and total < minimum:
        bound, name = minimum, "minimum"
    elif maximum is not None and total > maximum:
        bound, name = maximum, "maximum"
    else:
        return rated
    difference = _minus(bound, total)
    text = f"{name} of {_words(bound)}, less {_words(total)} = {_words(difference)}"
    return Rated((*rated.lines, RatedLine(ONE, difference, difference, text, is_bound=True)))


def _line(quantity: Decimal, unit_price: Decimal, fee: Decimal = ZERO) -> RatedLine:
    amount = round_amount(_plus(_times(quantity, unit_price), fee))
    flat = f" + {_words(fee)}" if fee else ""
    text = f"{_words(quantity)} × {_words(unit_price)}{flat} = {_words(amount)}"
    return RatedLine(quantity, unit_price, amount, text)


def _lines(lines: Iterable[RatedLine]) -> Rated:
    """Without those that say nothing."""
    return Rated(tuple(line for line in lines if line.amount or (line.quantity and not line.unit_price)))


def _beyond(quantity: Decimal, included: Decimal) -> Decimal:
    """What is used beyond what is included."""
    _check(quantity=quantity, included=included)
    return max(ZERO, _minus(quantity, included))


def _check(**values: Decimal) -> None:
    for name, value in values.items():
        if not value.is_finite() or value < 0:
            raise InvalidQuantity(f"{name} cannot be {value}.")


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    total = ZERO
    for amount in amounts:
        total = _plus(total, amount)
    return total


def _words(value: Decimal) -> str:
    return decimal_string(value)
