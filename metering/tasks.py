"""Jobs of metering. Each is a sweep over the state of the database: it may run twice at once, die anywhere, or lose its
message; the next tick repeats what is left."""

import logging
from datetime import timedelta
from pathlib import Path

from celery import shared_task
from django.db import connection

from metering import metrics, partitions, rollups, sweeper, unpriced
from metering.spool import drain_abandoned
from metering.wiring import current_store, option
from pricing import catalog, clock
from pricing.models import ONE_ROW, CatalogueVersion, ClockOffset

log = logging.getLogger("metering.tasks")

HOT_TABLES = ("usage_holds", "daily_usage", "usage_writers", "usage_unpriced", "billing_balances")
DEAD_ROWS_MIN = 2_000


def _now_everywhere() -> None:
    """Take over the clock's offset: a worker is a process of its own."""
    clock.set_offset(ClockOffset.read())


@shared_task(name="metering.sweep", ignore_result=True)
def sweep() -> int:
    """Drain the spools of dead processes, and end their holds; how many."""
    _now_everywhere()
    store = current_store()
    try:
        card = catalog.load_rate_card()
        if spool := option("SPOOL_DIR", ""):  # first, so that what dead processes have spooled is not swept
            drain_abandoned(store, Path(spool), lambda rows: metrics.observe_settled(rows, card))
        return sweeper.sweep(store, card, clock.now)
    finally:
        store.close()


@shared_task(name="metering.rate_unpriced", ignore_result=True)
def rate_unpriced() -> int:
    """Rate the events for which there is a price by now; how many. Nothing is read while the catalogue stays as it is."""
    _now_everywhere()
    version = CatalogueVersion.objects.filter(id=ONE_ROW).values_list("version", flat=True).first()
    if not unpriced.waits_for(version or 0):
        return 0
    store = current_store()
    try:
        return unpriced.rate_open(store, catalog.load_rate_card(), clock.now)
    finally:
        store.close()


@shared_task(name="metering.vacuum", ignore_result=True)
def vacuum() -> list[str]:
    """Vacuum the hot tables that have gathered dead rows; autovacuum's minute is too long under load. Their names."""
    if connection.vendor != "postgresql":
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "select relname from pg_stat_user_tables where relname = any(%s) and n_dead_tup >= %s",
            [list(HOT_TABLES), DEAD_ROWS_MIN],
        )
        tables = [row[0] for row in cursor.fetchall()]
        for table in tables:
            cursor.execute(f'vacuum (skip_locked) "{table}"')
    return tables


@shared_task(name="metering.partitions", ignore_result=True)
def make_partitions() -> list[str]:
    """Make the partitions of the coming months; the names of the new ones."""
    _now_everywhere()
    return partitions.ensure(clock.now())


@shared_task(name="metering.check_rollups", ignore_result=True)
def check_rollups() -> int:
    """Compare events with daily usage for today and yesterday; how many sums differ."""
    _now_everywhere()
    today = clock.now().date()
    drifts = [drift for day in (today - timedelta(days=1), today) for drift in rollups.check_day(day)]
    for drift in drifts:
        log.error("daily usage differs from the events: %s", drift)
    return len(drifts)
