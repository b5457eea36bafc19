"""What a plan, an override and a budget limit, as rules that hold for any instant; and the limits that they are at one. Pure."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal
from uuid import UUID

import msgspec

from billing.periods import Period
from metering.limits import Code, Limit, Measure

Reset = Literal["day", "week", "month", "billing"]

TOKENS = "tokens"  # the feature whose quantity is the tokens of all calls


class Rule(msgspec.Struct, frozen=True):
    """So much of something, anew in each period; without a `reset`, so much at once. The scope is that of `Limit`."""

    code: Code
    title: str
    measure: Measure
    most: Decimal
    reset: Reset | None
    feature: str = ""
    api_key_id: UUID | None = None
    user_id: str = ""
    each_user: bool = False


def quota(feature: str, display_name: str, included: Decimal, reset: Reset) -> Rule:
    """What is included of a feature, and no more."""
    of_tokens = feature == TOKENS
    return Rule(
        code="quota_exceeded", title=display_name, measure="tokens" if of_tokens else "quantity", most=included, reset=reset,
        feature="" if of_tokens else feature,
    )  # fmt: skip


def at_once(calls: int, api_key_id: UUID | None = None) -> Rule:
    """So many calls in flight."""
    return Rule(
        code="rate_limited",
        title="calls",
        measure="calls",
        most=Decimal(calls),
        reset=None,
        api_key_id=api_key_id,
    )


def window(reset: Reset, billing_period: Period, at: datetime) -> Period:
    """The period of `at` for what is reset so. Days, weeks (from Monday) and months are those of UTC."""
    if reset == "billing":
        return billing_period
    day = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if reset == "day":
        return Period(day, day + timedelta(days=1))
    if reset == "week":
        monday = day - timedelta(days=day.weekday())
        return Period(monday, monday + timedelta(days=7))
    first = day.replace(day=1)
    return Period(first, (first + timedelta(days=32)).replace(day=1))


def limits_at(rules: Iterable[Rule], billing_period: Period, at: datetime) -> tuple[Limit, ...]:
    """The limits of the instant `at`, which lies in `billing_period`."""
    return tuple(_limit_at(rule, billing_period, at) for rule in rules)


def _limit_at(rule: Rule, billing_period: Period, at: datetime) -> Limit:
    period = window(rule.reset, billing_period, at) if rule.reset is not None else None
    return Limit(
        code=rule.code, title=rule.title, measure=rule.measure, most=rule.most,
        since=period.start if period else None, until=period.end if period else None, by_period=rule.reset == "billing",
        feature=rule.feature, api_key_id=rule.api_key_id, user_id=rule.user_id, each_user=rule.each_user,
    )  # fmt: skip
