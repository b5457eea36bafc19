"""The gate: who is behind a key, and may they call. No Django; what a key opens is loaded by a function passed in.

A key's snapshot is kept in the process. Its age counts from before it was read, so an answer rests on facts that are at most
`STALE_S` old: a revoked key or a suspended customer is refused everywhere within five seconds. Between `FRESH_S` and
`STALE_S` a call is answered from the snapshot while a fresh one is being read, so that no call waits for it.
While the database is away, callers known before stay known for `max_stale_s`.

One `BillingGate` belongs to one event loop.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec

from billing import keys, ledger_sql, periods
from billing.bounded import Bounded
from billing.limit_rules import Rule, at_once, limits_at
from billing.rate_limits import Limited, RateLimits, limited_by
from metering.gate import Account, Contribution, Headers, Outage, WhenShort
from metering.limits import Limit
from metering.problem import Refusal, customer_suspended, invalid_api_key, metering_unavailable
from metering.rows import EventRow, HoldRow

if TYPE_CHECKING:
    from billing.shared_rate_limits import SharedRateLimits

log = logging.getLogger("billing.admission")

FRESH_S = 3.0
STALE_S = 4.5
UNKNOWN_FRESH_S = 1.0
LOAD_S_MAX = 4.0
FREE_S_MAX = 2.0
RETRY_AFTER_FAILURE_S = 1.0
KNOWN_MAX = 10_000
UNKNOWN_MAX = 1_000

BEARER = b"bearer "
KEY_HEADERS = (b"x-api-key", b"x-goog-api-key")


class Snapshot(msgspec.Struct, frozen=True):
    """What a live key opens, as read from the database at one moment: the customer, and what its plan says."""

    customer_id: UUID
    api_key_id: UUID
    is_active: bool
    plan: str
    currency: str
    period_anchor: datetime
    period_interval: periods.Interval = "month"
    shows_cost: bool = False
    blocks_unpriced: bool = False
    cost_book: str = "cost"
    list_book: str = "list"
    hard_limit: bool = False  # calls that the customer's credits do not cover are refused
    when_short: WhenShort = "refuse"
    outage: Outage = "open"
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrent_calls: int | None = None
    key_requests_per_minute: int | None = None  # these three: of this API key alone, beside the plan's
    key_tokens_per_minute: int | None = None
    key_concurrent_calls: int | None = None  # of this key alone
    on_credit: bool = False  # has a balance, which its calls move
    rules: tuple[Rule, ...] = ()  # what its calls have to fit under, besides those at once
    processes: int = 1  # that share the rate limits


Load = Callable[[str], Awaitable[Snapshot | None]]
"""The snapshot for the SHA-256 (hex) of a key; None for an unknown or revoked one. Raises while the database is away."""


Free = Callable[[UUID], Awaitable[Decimal | None]]
"""What of a customer's credits is free; None where it has none. Raises while the database is away."""


class Standing(msgspec.Struct, frozen=True):
    """Where a customer stands just now."""

    external_id: str
    free: Decimal  # of its credits; 0 where it has none
    rooms: tuple[Decimal, ...]  # what there is left under each limit that was asked for


Stand = Callable[[UUID, Sequence[Limit]], Awaitable[Standing]]
"""Where a customer stands. Raises while the database is away."""


class BillingGate:
    """Implements `metering.gate.Gate` over snapshots of keys."""

    def __init__(
        self,
        load: Load,
        free: Free | None = None,
        stand: Stand | None = None,
        *,
        max_stale_s: float = 300,  # how long a known caller is admitted while the database is away
        monotonic: Callable[[], float] = time.monotonic,
        shared_limits: "SharedRateLimits | None" = None,  # rate limits by Redis; else each process has its share
    ) -> None:
        self._load, self._free, self._stand = load, free, stand
        self._max_stale_s, self._monotonic = max_stale_s, monotonic
        self._known: Bounded[_Entry] = Bounded(KNOWN_MAX)
        self._unknown: Bounded[float] = Bounded(UNKNOWN_MAX)  # digest → when it was found unknown
        self._loading: dict[str, asyncio.Task[bool]] = {}
        self._loading_since: dict[
            str, float
        ] = {}  # a database that hangs is waited for once, and not by each call anew
        self._failed_at = -math.inf
        self._rate_limits, self._shared_limits = RateLimits(monotonic), shared_limits

    async def resolve(self, headers: Headers, at: datetime) -> Account | Refusal:
        """The account behind the key in `headers`, in the billing period of `at`; or the refusal."""
        found = await self._find(headers, at)
        if isinstance(found, Refusal):
            return found
        entry, account = found
        if entry.limited is None:
            return account
        if self._shared_limits is None:
            standing = self._rate_limits.admit(entry.limited, entry.snapshot.processes)
        else:
            standing = await self._shared_limits.admit(entry.limited, entry.snapshot.processes)
        return standing.refusal or account.with_rate_headers(standing.headers)

    async def account_of(self, headers: Headers, at: datetime) -> Account | Refusal:
        """The same for one who does not make a call: it is not counted among the calls of the minute."""
        found = await self._find(headers, at)
        return found if isinstance(found, Refusal) else found[1]

    async def standing(self, account: Account, limits: Sequence[Limit]) -> Standing | None:
        """Where the account's customer stands just now; None where that cannot be read."""
        if self._stand is None:
            return None
        try:
            async with asyncio.timeout(FREE_S_MAX):
                return await self._stand(account.customer_id, limits)
        except Exception as error:  # noqa: BLE001  (whatever the driver raises, the caller gets an answer)
            log.warning("usage cannot be read: %s: %s", type(error).__name__, error)
            return None

    async def _find(self, headers: Headers, at: datetime) -> "tuple[_Entry, Account] | Refusal":
        """What is known of the key in `headers`, read first where that is too old."""
        secret = key_in(headers)
        if secret is None:
            return invalid_api_key()
        digest = keys.digest(secret)
        entry = self._known.get(digest)
        if entry is None and self._recently_unknown(digest):
            return invalid_api_key()
        age = self._monotonic() - entry.read_at if entry else math.inf
        if age > FRESH_S:
            loading = self._reload(digest)
            if age > STALE_S and loading is not None:
                waited = self._monotonic() - self._loading_since[digest]
                await asyncio.wait([loading], timeout=max(0.0, LOAD_S_MAX - waited))
                entry = self._known.get(digest)
                if entry is None and loading.done() and loading.result():
                    return invalid_api_key()
        if entry is None:
            return metering_unavailable()
        answer = self._answer(digest, entry, at)
        return answer if isinstance(answer, Refusal) else (entry, answer)

    async def free(self, account: Account) -> Decimal | None:
        """What of the account's credits no call has reserved."""
        if self._free is None:
            return None
        try:
            async with asyncio.timeout(FREE_S_MAX):
                return await self._free(account.customer_id)
        except Exception as error:  # noqa: BLE001  (whatever the driver raises, the call gets an answer)
            log.warning("credits cannot be read: %s: %s", type(error).__name__, error)
            return None

    def hold(self, batch: Sequence[HoldRow]) -> Contribution | None:
        """Reserve what the calls may cost from their customers' credits; nothing where no call reserves anything."""
        return ledger_sql.HOLD if any(row.amount for row in batch) else None

    def settle(self, batch: Sequence[EventRow]) -> Contribution | None:
        """Free what the calls had reserved, and charge what they came to; nothing where nobody has credits. Names the
        posting on the events."""
        postings: dict[UUID, UUID] = {}
        limits = self._shared_limits or self._rate_limits
        for row in batch:
            limits.used(row.customer_id, row.api_key_id, row.tokens_total, row.id)
            if row.on_credit:
                row.posting_id = postings.setdefault(row.customer_id, row.id)
        return ledger_sql.BOOKS if postings else None

    def _answer(self, digest: str, entry: "_Entry", at: datetime) -> Account | Refusal:
        if self._monotonic() - entry.read_at > max(STALE_S, self._max_stale_s):
            return metering_unavailable()
        snapshot = entry.snapshot
        if not snapshot.is_active:
            return customer_suspended()
        account = entry.account
        if account is None or not entry.since <= at < entry.until:
            account = _account(digest, snapshot, at)
            entry.take(account)
        return account

    def _recently_unknown(self, digest: str) -> bool:
        since = self._unknown.get(digest)
        return since is not None and self._monotonic() - since <= UNKNOWN_FRESH_S

    def _reload(self, digest: str) -> "asyncio.Task[bool] | None":
        """The one running load of this key; None right after a failed one, so that an outage is not made worse."""
        task = self._loading.get(digest)
        if task is None and self._monotonic() - self._failed_at > RETRY_AFTER_FAILURE_S:
            task = self._loading[digest] = asyncio.create_task(self._read(digest))
            self._loading_since[digest] = self._monotonic()
            task.add_done_callback(lambda _task: self._loaded(digest))
        return task

    def _loaded(self, digest: str) -> None:
        self._loading.pop(digest, None)
        self._loading_since.pop(digest, None)

    async def _read(self, digest: str) -> bool:
        """Take over what the database says of this key. False when it said nothing."""
        began = self._monotonic()
        try:
            snapshot = await self._load(digest)
        except Exception as error:  # noqa: BLE001  (whatever the driver raises, callers get an answer)
            self._failed_at = self._monotonic()
            log.warning("keys cannot be read: %s: %s", type(error).__name__, error)
            return False
        if snapshot is None:
            self._known.pop(digest)
            self._unknown.put(digest, began)
        else:
            self._unknown.pop(digest)
            self._known.put(digest, _Entry(snapshot, began))
        return True


class _Entry:
    """A snapshot, when it began to be read, and the account last made of it, with the time that it holds for."""

    __slots__ = ("account", "limited", "read_at", "since", "snapshot", "until")

    def __init__(self, snapshot: Snapshot, read_at: float) -> None:
        self.snapshot, self.read_at = snapshot, read_at
        self.limited = _limited(snapshot)
        self.account: Account | None = None
        self.since = self.until = datetime.min.replace(tzinfo=UTC)

    def take(self, account: Account) -> None:
        """Keep the account for as long as it is the same: until a period ends that one of its limits counts in."""
        self.account = account
        self.since = max([account.period_start, *(one.since for one in account.limits if one.since)])
        self.until = min([account.period_end, *(one.until for one in account.limits if one.until)])


def key_in(headers: Headers) -> bytes | None:
    """The API key among the headers, as the official clients of OpenAI, Anthropic and Google send it.

    A header that holds something else (a host application's own token) does not hide a key in another one.
    """
    for name, value in headers:
        lowered = name.lower()
        if lowered == b"authorization":
            candidate = value[len(BEARER) :].strip() if value[: len(BEARER)].lower() == BEARER else b""
        elif lowered in KEY_HEADERS:
            candidate = value.strip()
        else:
            continue
        if candidate.startswith(b"tg_") and len(candidate) <= keys.LENGTH_MAX:
            return bytes(candidate)
    return None


def _account(digest: str, snapshot: Snapshot, at: datetime) -> Account:
    period = periods.period_at(snapshot.period_anchor, snapshot.period_interval, at.astimezone(UTC))
    return Account(
        customer_id=snapshot.customer_id,
        api_key_id=snapshot.api_key_id,
        api_key_hash=digest,
        plan=snapshot.plan,
        currency=snapshot.currency,
        period_start=period.start,
        period_end=period.end,
        cost_book=snapshot.cost_book,
        list_book=snapshot.list_book,
        shows_cost=snapshot.shows_cost,
        blocks_unpriced=snapshot.blocks_unpriced,
        hard_limit=snapshot.hard_limit,
        when_short=snapshot.when_short,
        outage=snapshot.outage,
        requests_per_minute=snapshot.requests_per_minute,
        tokens_per_minute=snapshot.tokens_per_minute,
        concurrent_calls=snapshot.concurrent_calls,
        key_concurrent_calls=snapshot.key_concurrent_calls,
        limits=limits_at(_rules(snapshot), period, at),
        on_credit=snapshot.on_credit,
    )


def _limited(snapshot: Snapshot) -> Limited | None:
    return limited_by(
        snapshot.customer_id,
        snapshot.api_key_id,
        requests=snapshot.requests_per_minute,
        tokens=snapshot.tokens_per_minute,
        key_requests=snapshot.key_requests_per_minute,
        key_tokens=snapshot.key_tokens_per_minute,
    )


def _rules(snapshot: Snapshot) -> tuple[Rule, ...]:
    rules = snapshot.rules
    if snapshot.concurrent_calls is not None:
        rules = (*rules, at_once(snapshot.concurrent_calls))
    if snapshot.key_concurrent_calls is not None:
        rules = (*rules, at_once(snapshot.key_concurrent_calls, snapshot.api_key_id))
    return rules
