"""Which rules hold for the calls of a key: its plan's quotas, its customer's overrides and budgets."""

from collections.abc import Iterator
from decimal import Decimal
from typing import Any
from uuid import UUID

from django.db import connection

from billing.limit_rules import Rule, quota
from pricing.money import from_scaled

# One query, written out: it is asked every few seconds for every key that calls, and three of Django's own cost three times
# as much. What each column says: of a quota its feature, its name, whether it is hard, what is included; of a budget its
# measure, its end user, whether each of them has it, its amount.
_RULES = """select 'plan' as source, feature, display_name, hard, included, reset_period, cast(null as uuid) as api_key_id, '' as id
    from billing_plan_features where version_id = %s
union all select 'override', feature, '', hard, included, reset_period, null, '' from billing_quota_overrides where customer_id = %s
union all select 'budget', measure, user_id, scope = 'end_user' and user_id = '', amount, reset_period, api_key_id, cast(id as varchar)
    from billing_budgets where customer_id = %s and ended_at is null and hard order by 8"""


def rules_of(customer_id: UUID, version_id: UUID | None, api_key_id: UUID, currency: str) -> tuple[Rule, ...]:
    """What calls of this key have to fit under. Soft limits are not among them: they are told of, and refuse nothing."""
    said: dict[str, list[Any]] = {"plan": [], "override": [], "budget": []}
    for source, *row in _rows(customer_id, version_id):
        said[source].append(row)
    return (*_quotas(said["plan"], said["override"]), *_budgets(said["budget"], api_key_id, currency))


def _rows(customer_id: UUID, version_id: UUID | None) -> list[tuple[Any, ...]]:
    asked: list[Any] = [version_id, customer_id, customer_id]
    if connection.vendor == "sqlite":
        asked = [UUID(str(one)).hex if one else None for one in asked]  # which has it as text of either kind
    with connection.cursor() as cursor:
        cursor.execute(_RULES, asked)
        return list(cursor.fetchall())


def _quotas(of_plan: list[Any], overrides: list[Any]) -> Iterator[Rule]:
    """An override stands in the place of what the plan says of the same feature, and keeps its name."""
    names = {feature: name for feature, name, *_ in of_plan}
    said = {
        feature: (hard, included, reset) for feature, _, hard, included, reset, *_ in (*of_plan, *overrides)
    }
    for feature, (hard, included, reset) in said.items():
        if hard and included is not None:
            yield quota(feature, names.get(feature) or feature, _amount(included), reset)


def _budgets(budgets: list[Any], api_key_id: UUID, currency: str) -> Iterator[Rule]:
    for measure, user_id, each_user, amount, reset, key, _ in budgets:
        of_key = UUID(key) if isinstance(key, str) else key
        if of_key not in (None, api_key_id):
            continue
        is_money = measure == "money"
        yield Rule(
            code="budget_exceeded", title=currency if is_money else "tokens", measure="charge" if is_money else "tokens",
            most=_amount(amount), reset=reset, api_key_id=of_key, user_id=user_id, each_user=bool(each_user),
        )  # fmt: skip


def _amount(stored: Any) -> Decimal:
    """SQLite keeps amounts as whole numbers."""
    return from_scaled(stored) if isinstance(stored, int) else Decimal(stored)
