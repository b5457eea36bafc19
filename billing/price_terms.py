"""How a plan prices a feature over a period, as a value: what a quantity comes to, beyond what is included. Pure."""

from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

from pricing.price_models import (
    InvalidTiers,
    Rated,
    Tier,
    bounded,
    calculate_flat,
    calculate_package,
    calculate_percentage,
    calculate_tiered,
    calculate_volume,
    tiers_of,
)

PriceModel = Literal["book", "flat", "graduated", "volume", "package", "percentage"]
ZERO = Decimal(0)


class PriceTerms(msgspec.Struct, frozen=True):
    """The price of a feature. Which of the fields count depends on `model`; see `PlanFeature`."""

    model: PriceModel
    unit_price: Decimal = ZERO
    tiers: tuple[Tier, ...] = ()
    package_size: Decimal = Decimal(1)
    percent: Decimal = ZERO
    minimum: Decimal | None = None
    maximum: Decimal | None = None

    @property
    def by_plan(self) -> bool:
        """Whether the plan prices it by the period. Otherwise the price book did, event by event."""
        return self.model != "book"

    def rate(self, beyond: Decimal, cost: Decimal = ZERO) -> Rated:
        """What so many beyond what is included come to; `cost`: what the period's usage of it cost."""
        return bounded(self._rate(beyond, cost), self.minimum, self.maximum)

    def _rate(self, beyond: Decimal, cost: Decimal) -> Rated:
        if self.model == "flat":
            return calculate_flat(beyond, self.unit_price)
        if self.model == "graduated":
            return calculate_tiered(beyond, self.tiers)
        if self.model == "volume":
            return calculate_volume(beyond, self.tiers)
        if self.model == "package":
            return calculate_package(beyond, self.package_size, self.unit_price)
        if self.model == "percentage":
            return calculate_percentage(max(ZERO, cost), self.percent, self.unit_price, beyond)
        raise ValueError("the price book prices this feature, event by event")


def price_terms_of(said: Any) -> PriceTerms:
    """The terms of a plan's feature. Raises InvalidTiers."""
    model: PriceModel = said.price_model
    return PriceTerms(
        model=model,
        unit_price=said.unit_price or ZERO,
        tiers=read_tiers(said.tiers) if model in ("graduated", "volume") else (),
        package_size=said.package_size or Decimal(1),
        percent=said.percent or ZERO,
        minimum=said.minimum,
        maximum=said.maximum,
    )


def read_tiers(given: Sequence[Mapping[str, Any]]) -> tuple[Tier, ...]:
    """Tiers as they are kept: a list of `{"up_to": "100" or null, "unit_price": "0.05", "flat_fee": "0"}`. Raises InvalidTiers."""
    if not isinstance(given, Sequence) or not all(isinstance(one, Mapping) for one in given):
        raise InvalidTiers('Tiers are a list, as in [{"up_to": null, "unit_price": "0.05"}].')
    tiers = []
    for place, one in enumerate(given, 1):
        unknown = set(one) - {"up_to", "unit_price", "flat_fee"}
        if unknown or "unit_price" not in one:
            raise InvalidTiers(f"Tier {place} has up_to, unit_price and flat_fee, and nothing else.")
        up_to = one.get("up_to")
        tiers.append(
            Tier(
                None if up_to is None else _number(up_to, place),
                _number(one["unit_price"], place),
                _number(one.get("flat_fee", "0"), place),
            )
        )
    return tiers_of(tiers)


def _number(value: Any, place: int) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise InvalidTiers(
            f'Tier {place}: numbers are written as text, as in "0.05", so that they stay exact.'
        )
    try:
        return Decimal(value)
    except InvalidOperation:
        raise InvalidTiers(f"Tier {place}: {value!r} is no number.") from None
