"""What the running period will come to: each feature projected to its end, priced as its invoice will price it."""

from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import msgspec

from billing.allowances import Allowance, allowances_of
from billing.models import Customer
from billing.period_rating import fees, total_of
from billing.periods import Period
from billing.projection import HISTORY, Projection, project
from metering import reports
from metering.reports import FeatureDay
from pricing.money import EXACT, round_amount

ZERO = Decimal(0)


class FeatureEstimate(msgspec.Struct, frozen=True):
    """One feature: how much so far and by the end; `amount`: what the plan asks for that, and the price book for its calls."""

    feature: str
    used: Decimal
    quantity: Projection
    amount: Projection


class Estimate(msgspec.Struct, frozen=True):
    """The whole period. `total` is what the features come to and the fees, without credits and taxes."""

    period: Period
    calls: Projection
    fees: Decimal
    total: Projection
    features: list[FeatureEstimate]


def estimate(customer: Customer, at: datetime) -> Estimate:
    """The period that runs at `at`. A few queries, however much was used."""
    period, today = customer.period_at(at), at.astimezone(UTC).date()
    first = min(period.start.astimezone(UTC).date(), today - HISTORY - timedelta(days=1))
    rows = reports.by_feature_and_day(customer.pk, first, today + timedelta(days=1))
    since = reports.first_day(customer.pk)
    by_feature: defaultdict[str, list[FeatureDay]] = defaultdict(list)
    for row in rows:
        by_feature[row.feature].append(row)
    used = {one.feature: one for one in reports.by_period(customer.pk, period.start)}
    allowances = {one.feature: one for one in allowances_of(customer, at)}

    def ahead(found: list[FeatureDay], column: str, so_far: Decimal) -> Projection:
        days: defaultdict[date, Decimal] = defaultdict(lambda: ZERO)
        for row in found:
            days[row.day] += Decimal(getattr(row, column))
        return project(days, so_far, period, at, since=since)

    features = []
    for name, one in sorted(used.items()):
        quantity = ahead(by_feature[name], "quantity", one.quantity)
        charge = ahead(by_feature[name], "charge", one.charge)
        features.append(
            FeatureEstimate(name, one.quantity, quantity, _priced(charge, quantity, allowances.get(name)))
        )
    calls = ahead(rows, "calls", Decimal(sum(one.calls for one in used.values())))
    fee = total_of(fees(customer, period))
    total = _each(lambda name: sum((getattr(one.amount, name) for one in features), fee), calls)
    return Estimate(period, calls, fee, total, features)


def _priced(charge: Projection, quantity: Projection, allowance: Allowance | None) -> Projection:
    """What the price book asks, and what the plan asks for what is beyond its allowance."""
    if allowance is None or allowance.terms is None:
        return charge
    return _each(
        lambda name: EXACT.add(getattr(charge, name), _by_plan(getattr(quantity, name), allowance)), charge
    )


def _by_plan(quantity: Decimal, allowance: Allowance) -> Decimal:
    """Where it is included anew within the period, what is beyond grows as the quantity does."""
    if allowance.terms is None:
        return ZERO
    if allowance.included is None:
        beyond = ZERO
    elif allowance.reset == "billing" or not allowance.used:
        beyond = max(ZERO, quantity - allowance.included)
    else:
        beyond = round_amount(EXACT.divide(EXACT.multiply(allowance.overage, quantity), allowance.used))
    return allowance.terms.rate(beyond).total


def _each(of: Callable[[str], Decimal], like: Projection) -> Projection:
    """The same of what is expected, of the least and of the most."""
    return Projection(like.method, of("expected"), of("low"), of("high"))
