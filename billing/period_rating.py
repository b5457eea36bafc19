"""What a period comes to: its base fee, what the plan prices, what the price book has made of each call. Reads, writes nothing.

A plan's features are rated by the plan that runs at the end of the period. What is included is taken off in each window of
its reset (a day, a week, a month, the period); what is beyond is priced over the whole period.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any, cast

import msgspec

from billing.allowances import terms_beyond
from billing.limit_rules import Reset, window
from billing.models import Customer, InvoiceLine, PlanFeature, PlanVersion, QuotaOverride
from billing.periods import Period
from billing.price_terms import PriceTerms
from billing.proration import prorate
from metering import reports
from metering.reports import Charged, DayUse
from pricing.money import EXACT, decimal_string
from pricing.price_models import RatedLine

ZERO = Decimal(0)
Kind = InvoiceLine.Kind


class Item(msgspec.Struct, frozen=True):
    """One thing that is charged. `exact` has 12 places; `source` says what was added up."""

    kind: str
    description: str
    exact: Decimal
    period: Period
    feature: str = ""
    quantity: Decimal | None = None
    unit_price: Decimal | None = None
    source: dict[str, Any] = {}

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is for, whatever it comes to."""
        kind = Kind.FEATURE if self.kind == Kind.TRUE_UP else self.kind
        return (kind, self.feature, self.source.get("provider", ""), self.source.get("model", ""))


def rate_period(
    customer: Customer,
    version: PlanVersion | None,
    period: Period,
    *,
    overrides: list[QuotaOverride] | None = None,
) -> list[Item]:
    """Everything that `period` comes to, in the order of an invoice. `version`: the plan at its end; `overrides`: what the
    customer got instead (None: what it gets now)."""
    if overrides is None:
        overrides = list(customer.quota_overrides.all())
    return [
        *fees(customer, period),
        *_features(customer, version, period, {one.feature: one for one in overrides}),
        *_usage(customer, period),
    ]


def fees(customer: Customer, period: Period) -> Iterator[Item]:
    """The base fee of each subscription for the part of the period that it ran."""
    running = customer.subscriptions.filter(started_at__lt=period.end).exclude(ended_at__lte=period.start)
    for subscription in running.select_related("plan_version__plan").order_by("started_at"):
        fee = subscription.plan_version.base_fee
        begins = max(
            subscription.started_at, subscription.trial_ends_at or subscription.started_at, period.start
        )
        part = Period(begins, min(subscription.ended_at or period.end, period.end))
        while fee and part.start < part.end:
            interval = subscription.period_at(part.start)
            run = Period(part.start, min(part.end, interval.end))
            amount = prorate(fee, interval, run)
            is_whole = run == interval
            share = "" if is_whole else f", {run.start:%d %b %H:%M} to {run.end:%d %b %H:%M}"
            text = f"{decimal_string(fee)} × {(run.end - run.start) / (interval.end - interval.start):.6f}"
            yield Item(
                Kind.BASE_FEE, f"{subscription.plan_version.plan.name}{share}", amount, run, quantity=Decimal(1), unit_price=fee,
                source={
                    "subscription": str(subscription.pk), "plan": subscription.plan_version.plan.slug,
                    "version": subscription.plan_version.number, "text": decimal_string(fee) if is_whole else text,
                    "interval": [interval.start.isoformat(), interval.end.isoformat()],
                },
            )  # fmt: skip
            part = Period(run.end, part.end)


def overrides_document(customer: Customer) -> dict[str, list[str | None]]:
    """What the customer gets instead of what its plan says, as an invoice keeps it: what comes late to its period is priced by
    that, whatever was agreed since."""
    return {
        one.feature: [_text(one.included), _text(one.unit_price), one.reset_period]
        for one in customer.quota_overrides.all()
    }


def said_then(kept: dict[str, list[str | None]]) -> list[QuotaOverride]:
    """The overrides that an invoice has kept."""
    return [
        QuotaOverride(
            feature=feature,
            included=_number(included),
            unit_price=_number(price),
            reset_period=reset or "billing",
        )
        for feature, (included, price, reset) in kept.items()
    ]


def _text(value: Decimal | None) -> str | None:
    return None if value is None else decimal_string(value)


def _number(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)


def _features(
    customer: Customer, version: PlanVersion | None, period: Period, overrides: dict[str, QuotaOverride]
) -> Iterator[Item]:
    said: dict[str, PlanFeature] = {one.feature: one for one in version.features.all()} if version else {}
    wanted: list[tuple[str, PlanFeature | QuotaOverride, PlanFeature, PriceTerms]] = []
    for name, feature in said.items():
        of = overrides.get(name, feature)
        terms = terms_beyond(of, feature)
        if terms is not None:
            wanted.append((name, of, feature, terms))
    if not wanted:
        return
    use = _read_use(customer, period, [of for _, of, _, _ in wanted])
    for name, of, feature, terms in wanted:
        used, beyond = _quantity(customer, feature, of, period, use[name])
        cost = sum((one.cost for one in use[name] if one.period_start >= period.start), ZERO)
        for line in terms.rate(beyond, cost).lines:
            yield _feature_item(line, feature, of, period, used, beyond)


def _feature_item(
    line: RatedLine, feature: PlanFeature, of: PlanFeature | QuotaOverride, period: Period, used: Decimal, beyond: Decimal
) -> Item:  # fmt: skip
    included = "unlimited" if of.included is None else f"{decimal_string(of.included)} included"
    return Item(
        Kind.TRUE_UP if line.is_bound else Kind.FEATURE,
        f"{feature.display_name}: {decimal_string(used)} used, {included}", line.amount, period, feature=feature.feature,
        quantity=line.quantity, unit_price=line.unit_price,
        source={
            "used": decimal_string(used), "beyond": decimal_string(beyond), "price_model": feature.price_model, "text": line.text,
            "aggregation": feature.aggregation, "included": None if of.included is None else decimal_string(of.included),
        },
    )  # fmt: skip


def _read_use(
    customer: Customer, period: Period, said: Sequence[PlanFeature | QuotaOverride]
) -> "defaultdict[str, list[DayUse]]":
    """By feature, in the order of time: of the period, and of the days before it that share a window with its first."""
    starts = [window(cast(Reset, one.reset_period), period, period.start).start for one in said]
    since = min(starts)
    found: defaultdict[str, list[DayUse]] = defaultdict(list)
    for one in reports.used_by_day(
        customer.pk, period.start, period.end, since=since.date() if since < period.start else None
    ):
        found[one.feature].append(one)
    return found


def _quantity(
    customer: Customer,
    feature: PlanFeature,
    of: PlanFeature | QuotaOverride,
    period: Period,
    use: Iterable[DayUse],
) -> tuple[Decimal, Decimal]:
    """What was used in the period, and what of it is beyond what is included."""
    if feature.aggregation != PlanFeature.Aggregation.SUM:
        last = feature.aggregation == PlanFeature.Aggregation.LAST
        used = reports.level(customer.pk, feature.feature, period.start, period.end, last=last)
        return used, ZERO if of.included is None else max(ZERO, used - of.included)
    used = beyond = ZERO
    of_window: defaultdict[Any, Decimal] = defaultdict(lambda: ZERO)
    for one in use:
        begins = _window_of(cast(Reset, of.reset_period), period, one)
        before = of_window[begins]
        of_window[begins] = before + one.quantity
        if one.period_start >= period.start:
            used += one.quantity
            if of.included is not None:
                beyond += max(ZERO, of_window[begins] - of.included) - max(ZERO, before - of.included)
    return used, max(ZERO, beyond)


def _window_of(reset: Reset, period: Period, use: DayUse) -> Any:
    """What a day's use counts with: the first day of its window; the period itself where that is the window."""
    if reset == "billing":
        return use.period_start >= period.start
    if reset == "week":
        return use.day - timedelta(days=use.day.weekday())
    return use.day if reset == "day" else use.day.replace(day=1)


def _usage(customer: Customer, period: Period) -> Iterator[Item]:
    for one in reports.charged(customer.pk, period.start, period.end):
        if one.charge or one.unpriced_events:
            yield _usage_item(one, period)


def _usage_item(one: Charged, period: Period) -> Item:
    tokens = (
        f", {one.tokens_input:,} tokens in, {one.tokens_output:,} out"
        if one.tokens_input or one.tokens_output
        else ""
    )
    unpriced = f" ({one.unpriced_events:,} without a price yet)" if one.unpriced_events else ""
    name = one.model or one.feature
    return Item(
        Kind.USAGE, f"{name}: {one.calls:,} calls{tokens}{unpriced}"[:300], one.charge, period, feature=one.feature,
        quantity=one.quantity,
        source={
            "provider": one.provider, "model": one.model, "calls": one.calls, "tokens_input": one.tokens_input,
            "tokens_output": one.tokens_output, "unpriced_events": one.unpriced_events,
            "text": f"the sum of what {one.calls:,} calls were charged",
        },
    )  # fmt: skip


def total_of(items: Iterable[Item]) -> Decimal:
    """The sum, exactly."""
    total = ZERO
    for item in items:
        total = EXACT.add(total, item.exact)
    return total
