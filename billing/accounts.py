"""Reads what a key opens, for the gate; notes when a key was used.

The reads run in one thread of their own with a connection that stays open: a load is one query on a unique index, and
Django would open a connection for each of them otherwise.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import TypeVar
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection, transaction
from django.db.models import Q

from billing.admission import BillingGate, Snapshot
from billing.models import ApiKey, Balance
from pricing import clock

log = logging.getLogger("billing.accounts")

# Until customers have subscriptions, all are on this one.
PLAN = "payg"
USED_NOTED_EVERY = timedelta(minutes=1)

_T = TypeVar("_T")


class AccountLoader:
    """Loads snapshots off the event loop, in threads of its own."""

    def __init__(self) -> None:
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="accounts")
        # A write may have to queue for the database, and no read should queue behind it.
        self._noter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="last-used")
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

    def close(self) -> None:
        """Write what is waiting, then end. Nothing can be loaded any more; closing twice is harmless."""
        if not self._closed:
            self._closed = True
            for thread in (self._reader, self._noter):
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
    return BillingGate(AccountLoader().load, max_stale_s=options.get("SNAPSHOT_MAX_STALE_S", 300))


def _read(digest: str) -> tuple[Snapshot, bool] | None:
    keys = ApiKey.objects.select_related("customer__balance")
    key = keys.filter(sha256=digest, revoked_at=None).first()
    if key is None:
        return None
    customer = key.customer
    balance: Balance | None = getattr(customer, "balance", None)
    snapshot = Snapshot(
        customer_id=customer.pk,
        api_key_id=key.pk,
        is_active=customer.is_active,
        plan=PLAN,
        currency=customer.currency,
        period_anchor=customer.period_anchor,
        blocks_unpriced=customer.blocks_unpriced,
        hard_limit=balance is not None and balance.is_hard,
    )
    return snapshot, key.last_used_at is None or key.last_used_at < clock.now() - USED_NOTED_EVERY


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
