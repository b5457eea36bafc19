"""What a customer may use of each feature, and what it has used, from daily usage and the calls in flight."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import cast
from uuid import UUID

import msgspec

from billing.features import FEATURES, canonical
from billing.limit_rules import TOKENS, Reset, window
from billing.models import Customer, PlanFeature, QuotaOverride
from billing.periods import Period
from billing.price_terms import PriceTerms, price_terms_of
from billing.subscriptions import version_of
from metering import reports
from metering.reports import FeatureUsage
from pricing.money import EXACT, round_amount

ZERO = Decimal(0)


class Allowance(msgspec.Struct, frozen=True):
    """One feature of one customer in the period of an instant. Quantities are in the feature's unit."""

    feature: str
    display_name: str
    unit: str
    included: Decimal | None  # None: unlimited
    hard: bool
    unit_price: (
        Decimal | None
    )  # beyond what is included, in the customer's currency, where each has one price
    terms: PriceTerms | None  # how the plan prices what is beyond; None: as the price book says
    reset: Reset
    period: Period
    used: Decimal
    in_flight: Decimal

    @property
    def limit(self) -> Decimal | None:
        """What it cannot go beyond; None where it can."""
        return self.included if self.hard else None

    @property
    def remaining(self) -> Decimal | None:
        """What is left of what is included; None where that is unlimited. What calls in flight have taken is not."""
        return None if self.included is None else max(ZERO, self.included - self.used - self.in_flight)

    @property
    def overage(self) -> Decimal:
        """What was used beyond."""
        return ZERO if self.included is None else max(ZERO, self.used - self.included)

    @property
    def overage_amount(self) -> Decimal | None:
        """What that comes to; None where the price book says it, event by event."""
        return None if self.terms is None else self.terms.rate(self.overage).total

    @property
    def percent_used(self) -> Decimal | None:
        """Of what is included; None where that is unlimited or nothing."""
        if not self.included:
            return None
        return round_amount(EXACT.divide(EXACT.multiply(self.used, Decimal(100)), self.included))


def allowances_of(customer: Customer, at: datetime) -> list[Allowance]:
    """By feature: those of its plan, those that were set for it, and whatever else it has used in its billing period."""
    billing_period = customer.period_at(at)
    version = version_of(customer)
    said: dict[str, PlanFeature | QuotaOverride] = {}
    if version is not None:
        said |= {one.feature: one for one in version.features.all()}
    shown = dict(said)
    said |= {one.feature: one for one in customer.quota_overrides.all()}
    usage = _Usage(customer.pk, billing_period, at)
    found = [
        _allowance(name, one, shown.get(name), usage.of(name, cast(Reset, one.reset_period)), usage)
        for name, one in said.items()
    ]
    others = usage.features() - said.keys()
    found += [_unlimited(name, usage.of(name, "billing"), billing_period) for name in others]
    return sorted(found, key=lambda one: one.feature)


class _Usage:
    """Usage by feature, read once for each way of resetting."""

    def __init__(self, customer_id: UUID, billing_period: Period, at: datetime) -> None:
        self._customer_id, self._billing_period, self._at = customer_id, billing_period, at
        self._read: dict[Reset, dict[str, FeatureUsage]] = {}

    def of(self, feature: str, reset: Reset) -> FeatureUsage:
        if feature == TOKENS:
            tokens = sum(one.tokens for one in self._all(reset).values())
            return FeatureUsage(quantity=Decimal(tokens))
        return self._all(reset).get(feature, FeatureUsage())

    def features(self) -> set[str]:
        """Those that were used in the billing period."""
        return set(self._all("billing"))

    def period(self, reset: Reset) -> Period:
        return window(reset, self._billing_period, self._at)

    def _all(self, reset: Reset) -> dict[str, FeatureUsage]:
        if reset not in self._read:
            period = self.period(reset)
            self._read[reset] = reports.usage_by_feature(
                self._customer_id, period.start, period.end, by_period=reset == "billing"
            )
        return self._read[reset]


def _allowance(
    name: str, said: PlanFeature | QuotaOverride, shown: PlanFeature | QuotaOverride | None, used: FeatureUsage, usage: _Usage
) -> Allowance:  # fmt: skip
    known = FEATURES.get(name)
    display_name, unit = (known.display_name, known.unit) if known else (name, "")
    if isinstance(shown, PlanFeature):
        display_name, unit = shown.display_name or display_name, shown.unit or unit
    reset = cast(Reset, said.reset_period)
    terms = terms_beyond(said, shown)
    return Allowance(
        feature=name, display_name=display_name, unit=unit, included=said.included, hard=said.hard,
        unit_price=terms.unit_price if terms and terms.model == "flat" else None, terms=terms, reset=reset, period=usage.period(reset), used=used.quantity, in_flight=Decimal(used.in_flight),
    )  # fmt: skip


def terms_beyond(
    said: PlanFeature | QuotaOverride, of_plan: PlanFeature | QuotaOverride | None
) -> PriceTerms | None:
    """How what is beyond is priced: an override's own unit price, else as the plan says of the feature."""
    if isinstance(said, QuotaOverride) and said.unit_price is not None:
        return PriceTerms("flat", said.unit_price)
    if not isinstance(of_plan, PlanFeature):
        return None
    terms = price_terms_of(of_plan)
    return terms if terms.by_plan else None


def _unlimited(name: str, used: FeatureUsage, period: Period) -> Allowance:
    known = FEATURES.get(name)
    return Allowance(
        feature=name, display_name=known.display_name if known else name, unit=known.unit if known else "", included=None,
        hard=False, unit_price=None, terms=None, reset="billing", period=period, used=used.quantity, in_flight=Decimal(used.in_flight),
    )  # fmt: skip


class Quota(msgspec.Struct, frozen=True):
    """Whether so much more of a feature would be let through now."""

    has_quota: bool
    remaining: Decimal | None  # None: unlimited
    reset_date: datetime | None


def check_quota(customer: Customer, feature: str, quantity: Decimal | int = 1, *, at: datetime) -> Quota:
    """Whether `quantity` more of `feature` fits into what the customer's plan and overrides allow at `at`. A soft allowance
    always has room. Nothing is reserved by asking."""
    name = canonical(feature)
    found = next((one for one in allowances_of(customer, at) if one.feature == name), None)
    if found is None:
        return Quota(True, None, None)
    fits = not found.hard or found.remaining is None or quantity <= found.remaining
    return Quota(fits, found.remaining, found.period.end)


def named(allowances: Iterable[Allowance], names: Iterable[str]) -> list[Allowance]:
    """Those of these features, whatever spelling they are asked by."""
    wanted = {canonical(name) for name in names}
    return [one for one in allowances if one.feature in wanted]
