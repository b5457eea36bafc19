"""Rate limits: requests and tokens a minute, by token buckets in the process. No Django.

A customer has a limit, and each of its API keys may have one of its own beside it: a call needs room in every bucket that
stands above it, and takes from all of them or from none. A bucket holds a minute's worth and fills steadily, so calls may come
in bursts. Each process has its share of the limit, as many as live by the database's count: calls that are spread unevenly
over the processes are refused a little early, and for as long as a process that died is not fenced its share is missing. A
call takes one request when it comes; its tokens are known when it is settled, so they are taken then, and the next call waits
until the bucket is out of its debt.

This is a limit on load, not on money: what may be spent is decided in the database (`billing.ledger_sql`).
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple
from uuid import UUID

import msgspec

from billing.bounded import Bounded
from metering.problem import Fields, Refusal, rate_limited

BUCKETS_MAX = 20_000  # whoever was not seen for longest begins with a full bucket
COUNTED_MAX = 20_000  # events whose tokens were taken: a batch that is written again takes them once
MINUTE_S = 60.0


class RateLimit(msgspec.Struct, frozen=True, gc=False):
    """So much a minute, of one bucket."""

    bucket: str
    name: str  # how it is called in the answer's headers
    per_minute: int
    takes: int  # what a call takes when it comes: one request; or nothing, where tokens are taken when they are known
    said: str  # to whoever is beyond it


class Limited(msgspec.Struct, frozen=True, gc=False):
    """What the calls with one API key have to fit under."""

    limits: tuple[RateLimit, ...]
    policy: bytes  # the RateLimit-Policy field, which every answer has alike


class Standing(NamedTuple):
    """Where a call stands: what its answer says of the limits, and why it is refused where it is."""

    headers: Fields
    refusal: Refusal | None


def limited_by(
    customer_id: UUID,
    api_key_id: UUID,
    *,
    requests: int | None = None,
    tokens: int | None = None,
    key_requests: int | None = None,
    key_tokens: int | None = None,
) -> Limited | None:
    """The limits that hold for calls with this key, its own after the customer's; None where there is none."""
    customer, key = customer_id.hex, api_key_id.hex
    limits = tuple(
        RateLimit(bucket, name, per_minute, takes, f"The limit{whose} is {per_minute:,} {unit} a minute.")
        for bucket, name, per_minute, takes, whose, unit in (
            (f"{customer}:requests", "requests", requests, 1, "", "requests"),
            (f"{customer}:tokens", "tokens", tokens, 0, "", "tokens"),
            (f"{key}:requests", "key-requests", key_requests, 1, " of this API key", "requests"),
            (f"{key}:tokens", "key-tokens", key_tokens, 0, " of this API key", "tokens"),
        )
        if per_minute is not None
    )
    if not limits:
        return None
    policy = ", ".join(f'"{limit.name}";q={limit.per_minute};w=60' for limit in limits)
    return Limited(limits, policy.encode())


def standing(
    limited: Limited, levels: Sequence[float], shares: Sequence[float], *, admitted: bool
) -> Standing:
    """What is told of buckets that hold so much, each of which fills by its share a minute: `r` is what is left in it, `t` the
    seconds until it is full."""
    left = ", ".join(
        f'"{limit.name}";r={max(0, math.floor(level))};t={max(0, _ceil((share - level) * MINUTE_S / share))}'
        for limit, level, share in zip(limited.limits, levels, shares, strict=True)
    )
    headers = ((b"ratelimit-policy", limited.policy), (b"ratelimit", left.encode()))
    if admitted:
        return Standing(headers, None)
    wait_ms, said = max(
        (_ceil((limit.takes - level) * MINUTE_S * 1000 / share), limit.said)
        for limit, level, share in zip(limited.limits, levels, shares, strict=True)
    )
    wait_ms = max(1, wait_ms)
    return Standing(headers, rate_limited(math.ceil(wait_ms / 1000), said, wait_ms).with_headers(headers))


def _ceil(number: float) -> int:
    """Up to the next whole number, save for what binary fractions add to one that is whole."""
    return math.ceil(number - 1e-6)


class Bucket:
    """This process's share of a limit; what is in it may be negative, for as long as more was taken than came in."""

    __slots__ = ("at", "level", "limit", "share")

    def __init__(self, limit: RateLimit, share: float, at: float) -> None:
        self.limit, self.share, self.level, self.at = limit, share, share, at

    def fill(self, limit: RateLimit, share: float, at: float) -> None:
        """Up to `at`, at the limit that holds now."""
        self.limit, self.share = limit, share
        self.level = min(share, self.level + (at - self.at) * share / MINUTE_S)
        self.at = at

    @property
    def level_of_all(self) -> float:
        """What that is in the limit as a whole, were all processes alike."""
        return self.level * self.limit.per_minute / self.share

    @property
    def has_room(self) -> bool:
        return self.level >= self.limit.takes


class RateLimits:
    """The buckets of this process."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._requests: Bounded[Bucket] = Bounded(BUCKETS_MAX)
        self._tokens: Bounded[Bucket] = Bounded(BUCKETS_MAX)
        self._counted: Bounded[bool] = Bounded(COUNTED_MAX)

    def admit(self, limited: Limited, processes: int) -> Standing:
        """Take one request, or say how long to wait. The limits are those of a minute, for all processes together."""
        now = self._monotonic()
        buckets = [self._bucket(limit, processes, now) for limit in limited.limits]
        admitted = all(bucket.has_room for bucket in buckets)
        if admitted:
            for bucket in buckets:
                bucket.level -= bucket.limit.takes
        levels, shares = [bucket.level for bucket in buckets], [bucket.share for bucket in buckets]
        return standing(limited, levels, shares, admitted=admitted)

    def used(self, customer_id: UUID, api_key_id: UUID, tokens: int | None, event_id: UUID) -> None:
        """Take the tokens of a settled call, where they are limited; once, however often it is settled."""
        for bucket in self.drawn_on(customer_id, api_key_id, tokens, event_id):
            bucket.level -= tokens or 0

    def drawn_on(
        self, customer_id: UUID, api_key_id: UUID, tokens: int | None, event_id: UUID
    ) -> Sequence[Bucket]:
        """The buckets that the tokens of this event are still to be taken from."""
        if not tokens or not len(self._tokens):
            return ()
        found = [self._tokens.get(f"{whose.hex}:tokens") for whose in (customer_id, api_key_id)]
        buckets = [bucket for bucket in found if bucket is not None]
        if not buckets or self._counted.get(event_id.hex):
            return ()
        self._counted.put(event_id.hex, True)
        return buckets

    def known(self, limited: Limited, processes: int) -> list[float]:
        """How much is left of each limit as a whole, as far as this process knows."""
        now = self._monotonic()
        return [self._bucket(limit, processes, now).level_of_all for limit in limited.limits]

    def take_over(self, limited: Limited, processes: int, levels: Sequence[float]) -> None:
        """So much is left of each limit as a whole, says who knows better."""
        now = self._monotonic()
        for limit, level in zip(limited.limits, levels, strict=True):
            bucket = self._bucket(limit, processes, now)
            bucket.level = level * bucket.share / limit.per_minute

    def _bucket(self, limit: RateLimit, processes: int, now: float) -> Bucket:
        # Each process may let one call through, where the limit has fewer requests than there are processes.
        share = max(limit.takes, limit.per_minute / processes)
        buckets = self._requests if limit.takes else self._tokens
        bucket = buckets.get(limit.bucket)
        if bucket is None:
            bucket = Bucket(limit, share, now)
            buckets.put(limit.bucket, bucket)
        bucket.fill(limit, share, now)
        return bucket
