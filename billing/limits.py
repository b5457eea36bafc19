"""Which rules hold for the calls of a key: its plan's quotas, its customer's overrides and budgets."""

from collections.abc import Iterator
from typing import cast
from uuid import UUID

from billing.limit_rules import Reset, Rule, quota
from billing.models import Budget, PlanFeature, QuotaOverride


def rules_of(customer_id: UUID, version_id: UUID | None, api_key_id: UUID, currency: str) -> tuple[Rule, ...]:
    """What calls of this key have to fit under. Soft limits are not among them: they are told of, and refuse nothing."""
    return (*_quotas(customer_id, version_id), *_budgets(customer_id, api_key_id, currency))


def _quotas(customer_id: UUID, version_id: UUID | None) -> Iterator[Rule]:
    said: dict[str, PlanFeature | QuotaOverride] = {
        one.feature: one for one in PlanFeature.objects.filter(version_id=version_id)
    }
    names = {name: one.display_name for name, one in said.items() if isinstance(one, PlanFeature)}
    said |= {one.feature: one for one in QuotaOverride.objects.filter(customer_id=customer_id)}
    for name, one in said.items():
        if one.hard and one.included is not None:
            yield quota(name, names.get(name) or name, one.included, cast(Reset, one.reset_period))


def _budgets(customer_id: UUID, api_key_id: UUID, currency: str) -> Iterator[Rule]:
    for budget in Budget.objects.running().filter(customer_id=customer_id, hard=True).order_by("id"):
        if budget.api_key_id not in (None, api_key_id):
            continue
        yield Rule(
            code="budget_exceeded", title=currency if budget.measure == Budget.Measure.MONEY else "tokens",
            measure="charge" if budget.measure == Budget.Measure.MONEY else "tokens", most=budget.amount,
            reset=cast(Reset, budget.reset_period), api_key_id=budget.api_key_id, user_id=budget.user_id,
            each_user=budget.scope == Budget.Scope.END_USER and not budget.user_id,
        )  # fmt: skip
