"""Reads what a key opens, for the gate; notes when a key was used.

The reads run in one thread of their own with a connection that stays open: a load is one query on a unique index, and
Django would open a connection for each of them otherwise.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import UUID

import msgspec
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Q

from billing.admission import BillingGate, Snapshot, Standing
from billing.limits import rules_of
from billing.models import ApiKey, Balance
from billing.models.customer import anchor_of
from billing.plans import default_slug
from metering.limits import Limit
from metering.reports import rooms_under
from pricing import clock
from pricing.money import from_scaled

if TYPE_CHECKING:
    from billing.shared_rate_limits import SharedRateLimits

log = logging.getLogger("billing.accounts")

USED_NOTED_EVERY = timedelta(minutes=1)

_T = TypeVar("_T")


class AccountLoader:
    """Loads snapshots off the event loop, in threads of its own."""

    def __init__(self) -> None:
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="accounts")
        # A write may have to queue for the database, and no read should queue behind it.
        self._noter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="last-used")
        self._stander = ThreadPoolExecutor(max_workers=1, thread_name_prefix="standings")
        self._used: set[UUID] = set()
        self._closed = False

    async def load(self, digest: str) -> Snapshot | None:
        """The snapshot of the live key with this SHA-256. Raises DatabaseError while the database is away."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._reader, _on_a_sound_connection, partial(_read, digest))
        if found is None:
            return None
        snapshot, note = found
        if note:
            self._note(snapshot.api_key_id)
        return snapshot

    async def free(self, customer_id: UUID) -> Decimal | None:
        """What of the customer's credits no call has reserved. Raises DatabaseError while the database is away."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._reader, _on_a_sound_connection, partial(_free, customer_id))

    async def stand(self, customer_id: UUID, limits: Sequence[Limit]) -> Standing:
        """Where the customer stands just now. Raises DatabaseError while the database is away."""
        loop = asyncio.get_running_loop()
        read = partial(_standing, customer_id, limits)
        return await loop.run_in_executor(self._stander, _on_a_sound_connection, read)

    def close(self) -> None:
        """Write what is waiting, then end. Nothing can be loaded any more; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            for thread in (self._reader, self._noter, self._stander):
                thread.submit(_close_connection)
                thread.shutdown(wait=True)

    def _note(self, api_key_id: UUID) -> None:
        """Have the use of a key written behind the calls, together with whatever else is waiting by then."""
        self._used.add(api_key_id)
        if len(self._used) == 1:
            self._noter.submit(self._write_notes)

    def _write_notes(self) -> None:
        used, self._used = self._used, set()
        try:
            _on_a_sound_connection(partial(note_use, used))
        except DatabaseError as error:
            log.warning("the last use of %d keys could not be noted: %s", len(used), error)


def build_gate() -> BillingGate:
    """The gate over this project's database."""
    options = getattr(settings, "TOLLGATE", {})
    loader = AccountLoader()
    return BillingGate(
        loader.load,
        loader.free,
        loader.stand,
        max_stale_s=options.get("SNAPSHOT_MAX_STALE_S", 300),
        shared_limits=_shared_limits(options.get("REDIS_URL", "")),
    )


def _shared_limits(url: str) -> "SharedRateLimits | None":
    if not url:
        return None
    from billing.shared_rate_limits import SharedRateLimits  # the client, which nobody else needs

    return SharedRateLimits(url)


# Written out, since Django takes three times as long to put it together as the database to answer it. One row by unique
# indexes: the key, its customer, the balance, the subscription that runs, its version; where none runs, the default plan's last version.
_READ = """select v.id as version_id, coalesce((select true from billing_plan_features f where f.version_id = v.id and f.hard limit 1), false)
        or exists (select 1 from billing_quota_overrides o where o.customer_id = c.id)
        or exists (select 1 from billing_budgets g where g.customer_id = c.id and g.ended_at is null) as has_limits,
    k.id as api_key_id, k.last_used_at, c.id as customer_id, c.is_active, c.currency, c.created_at,
    c.blocks_unpriced or coalesce(v.blocks_unpriced, false) as blocks_unpriced, s.anchor, coalesce(p.slug, %s) as plan,
    coalesce(v.hard_credits, false) or coalesce(b.is_hard, false) as hard_limit, b.customer_id is not null as on_credit,
    v.interval as period_interval, v.shows_cost, v.when_short, v.cost_book, v.list_book,
    v.requests_per_minute, v.tokens_per_minute, v.concurrent_calls, k.requests_per_minute as key_requests_per_minute,
    k.tokens_per_minute as key_tokens_per_minute, k.concurrent_calls as key_concurrent_calls,
    case when coalesce(b.is_hard, false) and not coalesce(v.hard_credits, false) then 'closed' else v.outage end as outage,
    case when coalesce(v.requests_per_minute, v.tokens_per_minute, k.requests_per_minute, k.tokens_per_minute) is not null
        then (select (count(*) + 1) / 2 from usage_writers where fenced_at is null) end as processes
from billing_api_keys k join billing_customers c on c.id = k.customer_id
left join billing_balances b on b.customer_id = c.id
left join billing_subscriptions s on s.customer_id = c.id and s.ended_at is null
left join billing_plan_versions v on v.id = coalesce(s.plan_version_id, (select w.id from billing_plan_versions w
    join billing_plans d on d.id = w.plan_id where d.slug = %s and w.published_at is not null order by w.number desc limit 1))
left join billing_plans p on p.id = v.plan_id
where k.sha256 = %s and k.revoked_at is null"""


def _read(digest: str) -> tuple[Snapshot, bool] | None:
    with connection.cursor() as cursor:
        cursor.execute(_READ, [default_slug(), default_slug(), digest])
        row = cursor.fetchone()
        columns = [column[0] for column in cursor.description or ()]
    if row is None:
        return None
    # A plan that nobody has published says nothing, so its columns are left to the defaults.
    # A process has a writer for holds and one for settlements; one that has made no call yet has none.
    said = {name: _utc(value) for name, value in zip(columns, row, strict=True) if value is not None}
    noted_at = said.pop("last_used_at", None)
    anchor, created_at = said.pop("anchor", None), said.pop("created_at")
    if anchor is None:
        said["period_interval"] = "month"
    said["period_anchor"] = anchor or anchor_of(created_at)
    said["processes"] = max(1, said.get("processes", 1))
    version_id, has_limits = said.pop("version_id", None), said.pop("has_limits")
    snapshot = msgspec.convert(said, Snapshot, strict=False)  # SQLite knows ids as text, and true as 1
    if has_limits:
        rules = rules_of(snapshot.customer_id, version_id, snapshot.api_key_id, snapshot.currency)
        snapshot = msgspec.structs.replace(snapshot, rules=rules)
    return snapshot, noted_at is None or noted_at < clock.now() - USED_NOTED_EVERY


def _free(customer_id: UUID) -> Decimal | None:
    balance = Balance.objects.filter(pk=customer_id).values_list("available", "held").first()
    return None if balance is None else balance[0] - balance[1]


_STANDING = """select c.external_id, b.available - b.held from billing_customers c
left join billing_balances b on b.customer_id = c.id where c.id = %s"""


def _standing(customer_id: UUID, limits: Sequence[Limit]) -> Standing:
    with connection.cursor() as cursor:
        cursor.execute(_STANDING, [customer_id.hex if connection.vendor == "sqlite" else customer_id])
        external_id, free = cursor.fetchone()
    if isinstance(free, int):
        free = from_scaled(free)
    return Standing(external_id, free or Decimal(0), tuple(rooms_under(customer_id, limits)))


def _utc(value: Any) -> Any:
    """SQLite keeps an instant without its zone, which is UTC."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def note_use(api_key_ids: Iterable[UUID]) -> int:
    """Set the last use of these keys, save those for which that was done within the minute. How many were set.

    Rows that another process is noting are left to it: waiting for them in different orders would deadlock.
    """
    now = clock.now()
    long_ago = Q(last_used_at=None) | Q(last_used_at__lt=now - USED_NOTED_EVERY)
    with transaction.atomic():
        due = ApiKey.objects.filter(long_ago, pk__in=list(api_key_ids)).select_for_update(skip_locked=True)
        return ApiKey.objects.filter(pk__in=[key.pk for key in due]).update(last_used_at=now)


def _close_connection() -> None:
    """Close the connection of the thread that runs this. (`connection.close` itself would be the submitter's.)"""
    connection.close()


def _on_a_sound_connection(work: Callable[[], _T]) -> _T:
    """Do `work`; throw the connection away after an error, so that the next attempt gets a new one."""
    try:
        return work()
    except (DatabaseError, InterfaceError):
        connection.close()
        raise
