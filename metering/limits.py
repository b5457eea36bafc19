"""Limits on what calls may use: of a feature, of tokens, of money in a period, or of calls at once. Pure.

A limit is a value that the gate hands over with the account. Whether a call fits is decided in the statement that writes its
hold, from daily usage and the holds in flight, while the customer is locked against other holds: there is no counter that
could lag, drift or be reset. See `metering.store.postgres_limits`.
"""

import math
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec

from metering.problem import Refusal, budget_exceeded, quota_exceeded, rate_limited

Measure = Literal["quantity", "tokens", "charge", "calls"]
Code = Literal["quota_exceeded", "budget_exceeded", "rate_limited"]

ONE = Decimal(1)
AT_ONCE_RETRY_S = 1  # a call in flight ends whenever it ends


class Limit(msgspec.Struct, frozen=True, gc=False):
    """So much and no more, for those calls that its scope names.

    What is measured: `quantity` of a feature, `tokens` in and out, `charge` in the customer's currency, or `calls` in
    flight. Usage counts from `since` to `until`, both in UTC; calls in flight count whenever they began.
    """

    code: Code
    title: str  # what is limited, for people
    measure: Measure
    most: Decimal
    since: datetime | None = None
    until: datetime | None = None
    by_period: bool = False  # [since, until) is the billing period; otherwise whole UTC days
    feature: str = ""  # of this feature alone
    api_key_id: UUID | None = None  # of calls with this key alone
    user_id: str = ""  # of this end user alone; such usage is kept neither by feature nor by key
    each_user: bool = False  # of each end user, so much for every one of them

    def for_user(self, user_id: str) -> "Limit":
        """The limit of one of those whom it holds for one by one."""
        return msgspec.structs.replace(self, user_id=user_id, each_user=False)

    @property
    def amount(self) -> str:
        """How much it is, for people: without the zeros that a database adds."""
        return f"{self.most.normalize():,f}"

    def refusal(self, at: datetime) -> Refusal:
        """What a call is told at the instant `at` that does not fit."""
        if self.until is None:
            return rate_limited(AT_ONCE_RETRY_S, f"The limit is {self.amount} {self.title} at once.")
        until = f"it resets at {self.until:%Y-%m-%dT%H:%M:%SZ}."
        if self.code == "quota_exceeded":
            return self.without_bound(
                at, f"This call does not fit into the quota of {self.amount} {self.title}; {until}"
            )
        return self.without_bound(
            at, f"This call does not fit into the budget of {self.amount} {self.title}; {until}"
        )

    def without_bound(self, at: datetime, detail: str) -> Refusal:
        """The same for a call that nobody can say of whether it fits."""
        wait_s = max(1, math.ceil((self.until - at).total_seconds())) if self.until else AT_ONCE_RETRY_S
        refuse = quota_exceeded if self.code == "quota_exceeded" else budget_exceeded
        return refuse(wait_s, detail)


class Exceeded(NamedTuple):
    """A limit that a hold does not fit under, and how much it has room for."""

    limit: Limit
    room: Decimal


class LimitExceeded(Exception):
    """A call does not fit under a limit of its customer. The call must not go out."""

    def __init__(self, limit: Limit, room: Decimal) -> None:
        super().__init__(limit.title)
        self.limit, self.room = limit, room


def applying(limits: tuple[Limit, ...], feature: str, user_id: str) -> tuple[Limit, ...]:
    """Those of a caller's limits that a call of this feature, made for this end user, has to fit under; each once."""
    found = []
    for limit in limits:
        if limit.feature and limit.feature != feature:
            continue
        if limit.each_user:
            if not user_id:  # whose it is nobody said
                continue
            limit = limit.for_user(user_id)
        elif limit.user_id and limit.user_id != user_id:
            continue
        found.append(limit)
    return tuple(dict.fromkeys(found))


def part_of(limit: Limit, row: Any) -> Decimal:
    """What a hold takes of a limit until its call is settled: the most that the call can come to."""
    if limit.measure == "tokens":
        return Decimal(row.tokens_most or 0)
    if limit.measure == "charge":
        return row.charge_most or Decimal(0)
    return ONE
