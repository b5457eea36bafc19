"""Rate limits: requests and tokens a minute, by token buckets in the process. No Django.

A bucket holds a minute's worth and fills steadily, so a customer may come in bursts. Each process has its share of the limit,
as many as live by the database's count: calls that are spread unevenly over the processes are refused a little early, and for
as long as a process that died is not fenced its share is missing. A call takes one request when it comes; its tokens are
known when it is settled, so they are taken then, and the customer waits until the bucket is out of its debt.

This is a limit on load, not on money: what may be spent is decided in the database (`billing.ledger_sql`).
"""

import math
from collections.abc import Callable
from uuid import UUID

from billing.bounded import Bounded
from metering.problem import Refusal, rate_limited

CUSTOMERS_MAX = 10_000  # whoever was not seen for longest begins with a full bucket
MINUTE_S = 60.0


class Bucket:
    """So much a minute; what is in it may be negative, for as long as more was taken than came in."""

    __slots__ = ("at", "level", "per_minute")

    def __init__(self, per_minute: float, at: float) -> None:
        self.per_minute, self.level, self.at = per_minute, per_minute, at

    def fill(self, per_minute: float, at: float) -> None:
        """Up to `at`, at the limit that holds now."""
        self.per_minute = per_minute
        self.level = min(per_minute, self.level + (at - self.at) * per_minute / MINUTE_S)
        self.at = at

    def seconds_until(self, level: float) -> float:
        """How long until so much is in it."""
        return max(0.0, (level - self.level) * MINUTE_S / self.per_minute)


class RateLimits:
    """The buckets of this process."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._requests: Bounded[Bucket] = Bounded(CUSTOMERS_MAX)
        self._tokens: Bounded[Bucket] = Bounded(CUSTOMERS_MAX)

    def admit(
        self, customer_id: UUID, *, requests: int | None, tokens: int | None, processes: int
    ) -> Refusal | None:
        """Take one request, or say how long to wait. The limits are those of a minute, for all processes together."""
        now, customer = self._monotonic(), customer_id.hex
        if tokens is not None:
            debt = self._bucket(self._tokens, customer, tokens / processes, now).seconds_until(0.0)
            if debt > 0:
                return _wait(debt, f"The limit is {tokens:,} tokens a minute.")
        if requests is not None:
            bucket = self._bucket(self._requests, customer, max(1.0, requests / processes), now)
            if bucket.level < 1:
                return _wait(bucket.seconds_until(1.0), f"The limit is {requests:,} requests a minute.")
            bucket.level -= 1
        return None

    def used(self, customer_id: UUID, tokens: int | None) -> None:
        """Take the tokens of a settled call, where they are limited."""
        if tokens and len(self._tokens):
            bucket = self._tokens.get(customer_id.hex)
            if bucket is not None:
                bucket.level -= tokens

    def _bucket(self, buckets: Bounded[Bucket], customer: str, per_minute: float, now: float) -> Bucket:
        bucket = buckets.get(customer)
        if bucket is None:
            bucket = Bucket(per_minute, now)
            buckets.put(customer, bucket)
        bucket.fill(per_minute, now)
        return bucket


def _wait(seconds: float, limit: str) -> Refusal:
    return rate_limited(max(1, math.ceil(seconds)), limit)
