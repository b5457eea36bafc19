"""How much of what they have customers have used: of allowances, budgets and credits, for many customers in a few queries."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, cast
from uuid import UUID

import msgspec
from django.db.models import Sum

from billing import periods
from billing.features import FEATURES
from billing.limit_rules import TOKENS, Reset, window
from billing.models import Balance, Budget, Customer, PlanFeature, QuotaOverride, Subscription
from billing.periods import Period
from billing.plans import default_slug
from billing.thresholds import Subject
from metering.models import DailyUsage, DailyUserUsage

ZERO = Decimal(0)
CALENDAR: tuple[Reset, ...] = ("day", "week", "month")


class Standing(msgspec.Struct, frozen=True):
    """Of one thing of one customer in one period: what is used and what there is. `about` names it among its kind."""

    customer: Customer
    subject: Subject
    about: str
    title: str  # for people
    unit: str
    used: Decimal
    limit: Decimal
    start: datetime
    end: datetime | None
    is_soft_allowance: bool = False


class _Sums(msgspec.Struct):
    quantity: Decimal = ZERO
    tokens: int = 0
    charge: Decimal = ZERO

    def add(self, row: dict[str, Any]) -> None:
        self.quantity += row["quantity_sum"] or ZERO
        self.tokens += row["tokens_sum"] or 0
        self.charge += row["charge_sum"] or ZERO


Key = tuple[UUID, Reset]


class _Used:
    """Usage of these customers, by each way of resetting: by feature, by key and by end user."""

    def __init__(
        self, billing: dict[UUID, Period], at: datetime, resets: set[Reset], by_user: set[UUID]
    ) -> None:
        self.features: defaultdict[Key, defaultdict[str, _Sums]] = defaultdict(lambda: defaultdict(_Sums))
        self.keys: defaultdict[Key, defaultdict[UUID, _Sums]] = defaultdict(lambda: defaultdict(_Sums))
        self.users: defaultdict[Key, defaultdict[str, _Sums]] = defaultdict(lambda: defaultdict(_Sums))
        for reset in resets:
            for customer_id, row in self._read(DailyUsage, reset, billing, at, ("feature", "api_key_id")):
                self.features[customer_id, reset][row["feature"]].add(row)
                self.keys[customer_id, reset][row["api_key_id"]].add(row)
            of_users = {one: period for one, period in billing.items() if one in by_user}
            if of_users:
                for customer_id, row in self._read(DailyUserUsage, reset, of_users, at, ("user_id",)):
                    self.users[customer_id, reset][row["user_id"]].add(row)

    @staticmethod
    def _read(
        model: Any, reset: Reset, billing: dict[UUID, Period], at: datetime, by: tuple[str, ...]
    ) -> Iterator[tuple[UUID, dict[str, Any]]]:
        rows = model.objects.filter(customer_id__in=list(billing))
        if reset == "billing":
            rows = rows.filter(period_start__in={period.start for period in billing.values()})
            by = (*by, "period_start")
        else:
            period = window(reset, Period(at, at), at)
            rows = rows.filter(day__gte=period.start.date(), day__lt=period.end.date())
        sums = {
            "quantity_sum": Sum("quantity"),
            "tokens_sum": Sum("tokens_total"),
            "charge_sum": Sum("charge_total"),
        }
        for row in rows.values("customer_id", *by).annotate(**sums).order_by():
            if reset != "billing" or row["period_start"] == billing[row["customer_id"]].start:
                yield row["customer_id"], row


def standings_of(customers: Sequence[Customer], at: datetime) -> list[Standing]:
    """Where these customers stand at `at`. Some ten queries, however many they are."""
    ids = [customer.pk for customer in customers]
    running = {
        one.customer_id: one
        for one in Subscription.objects.running_at(at)
        .filter(customer_id__in=ids)
        .select_related("plan_version")
    }
    billing = {one.pk: _period(one, running.get(one.pk), at) for one in customers}
    allowances = _allowances(ids, running)
    budgets = _by_customer(Budget.objects.running().filter(customer_id__in=ids).order_by("id"))
    resets: set[Reset] = {
        one.reset_period for listed in (*allowances.values(), *budgets.values()) for one in listed
    }
    by_user = {
        customer_id
        for customer_id, listed in budgets.items()
        if any(one.scope == Budget.Scope.END_USER for one in listed)
    }
    used = _Used(billing, at, resets, by_user)
    balances = {one.pk: one for one in Balance.objects.filter(pk__in=ids)}
    found: list[Standing] = []
    for customer in customers:
        period = billing[customer.pk]
        found += (_of_allowance(customer, one, period, used, at) for one in allowances[customer.pk])
        for budget in budgets[customer.pk]:
            found += _of_budget(customer, budget, period, used, at)
        balance = balances.get(customer.pk)
        if balance is not None and balance.full_since is not None and balance.full > 0:
            found.append(
                Standing(
                    customer, "credit", "credits", "credits", balance.currency, balance.full - balance.available, balance.full,
                    balance.full_since, None,
                )
            )  # fmt: skip
    return found


def _period(customer: Customer, subscription: Subscription | None, at: datetime) -> Period:
    if subscription is None:
        return customer.month_of(at)
    interval = cast(periods.Interval, subscription.plan_version.interval)
    return periods.period_at(subscription.anchor, interval, at)


def _allowances(ids: list[UUID], running: dict[UUID, Subscription]) -> "defaultdict[UUID, list[Any]]":
    """What each customer gets of each feature: its own where that was set, else what its plan says. Only what is bounded."""
    versions = {one.plan_version_id for one in running.values()}
    by_version: defaultdict[UUID, list[PlanFeature]] = defaultdict(list)
    for feature in PlanFeature.objects.filter(version_id__in=versions):
        by_version[feature.version_id].append(feature)
    default = list(
        PlanFeature.objects.filter(
            version__plan__slug=default_slug(), version__published_at__isnull=False
        ).order_by("version__number")
    )
    overrides: defaultdict[UUID, list[QuotaOverride]] = _by_customer(
        QuotaOverride.objects.filter(customer_id__in=ids)
    )
    found: defaultdict[UUID, list[Any]] = defaultdict(list)
    for customer_id in ids:
        said: dict[str, Any] = {}
        subscription = running.get(customer_id)
        of_plan = by_version[subscription.plan_version_id] if subscription else _newest(default)
        said |= {one.feature: one for one in of_plan}
        said |= {one.feature: one for one in overrides[customer_id]}
        found[customer_id] = [one for one in said.values() if one.included]
    return found


def _newest(features: list[PlanFeature]) -> list[PlanFeature]:
    return [one for one in features if one.version_id == features[-1].version_id] if features else []


def _by_customer(rows: Iterable[Any]) -> "defaultdict[UUID, list[Any]]":
    found: defaultdict[UUID, list[Any]] = defaultdict(list)
    for row in rows:
        found[row.customer_id].append(row)
    return found


def _of_allowance(customer: Customer, said: Any, billing: Period, used: _Used, at: datetime) -> Standing:
    reset = cast(Reset, said.reset_period)
    features, period = used.features[customer.pk, reset], window(reset, billing, at)
    if said.feature == TOKENS:
        amount = Decimal(sum(one.tokens for one in features.values()))
    else:
        amount = features[said.feature].quantity
    known = FEATURES.get(said.feature)
    title = getattr(said, "display_name", "") or (known.display_name if known else said.feature)
    return Standing(
        customer, "allowance", said.feature, title, getattr(said, "unit", "") or (known.unit if known else ""), amount, said.included, period.start, period.end,
        is_soft_allowance=not said.hard,
    )  # fmt: skip


def _of_budget(
    customer: Customer, budget: Budget, billing: Period, used: _Used, at: datetime
) -> Iterator[Standing]:
    reset = cast(Reset, budget.reset_period)
    key, period = (customer.pk, reset), window(reset, billing, at)
    sums: dict[str, _Sums]
    if budget.scope == Budget.Scope.END_USER:
        users = used.users[key]
        sums = {budget.user_id: users[budget.user_id]} if budget.user_id else dict(users)
    elif budget.api_key_id is not None:
        sums = {"": used.keys[key][budget.api_key_id]}
    else:
        total = _Sums()
        for one in used.features[key].values():
            total = _Sums(total.quantity + one.quantity, total.tokens + one.tokens, total.charge + one.charge)
        sums = {"": total}
    for user, one in sums.items():
        is_money = budget.measure == Budget.Measure.MONEY
        yield Standing(
            customer, "budget", f"{budget.pk} {user}".strip(), _title(budget, user),
            customer.currency if is_money else "tokens", one.charge if is_money else Decimal(one.tokens), budget.amount,
            period.start, period.end,
        )  # fmt: skip


def _title(budget: Budget, user: str) -> str:
    name = budget.name or "budget"
    return f"{name} of {user}" if user else name
