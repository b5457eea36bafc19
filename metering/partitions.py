"""Monthly partitions of `usage_events` on PostgreSQL, made ahead of time. SQLite has one table and nothing to do.

The default partition catches what no month takes, so that an insert never fails for want of a partition; rows that it
caught are moved when their month is made.
"""

from datetime import UTC, datetime

from django.db import connection, transaction

TABLE = "usage_events"
MONTHS_AHEAD = 3


def ensure(now: datetime, months_ahead: int = MONTHS_AHEAD) -> list[str]:
    """Make the partitions of this month and the next ones; the names of those that were missing."""
    if connection.vendor != "postgresql":
        return []
    start = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    made = []
    for _ in range(months_ahead + 1):
        end = next_month(start)
        name = f"{TABLE}_{start:%Y_%m}"
        if not _exists(name):
            _make(name, start, end)
            made.append(name)
        start = end
    return made


def next_month(start: datetime) -> datetime:
    """The first of the month after `start`, which is the first of one."""
    return start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)


def _exists(name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("select to_regclass(%s) is not null", [name])
        row = cursor.fetchone()
    return bool(row and row[0])


def _make(name: str, start: datetime, end: datetime) -> None:
    """Attach a month. Two jobs at once: the second one waits for the lock and finds it made."""
    span = [start.isoformat(), end.isoformat()]
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "set local lock_timeout = '2s'"
        )  # writers queue behind this lock: give up rather than stop them
        cursor.execute("select pg_advisory_xact_lock(hashtext(%s))", [TABLE])
        if _exists(name):
            return
        cursor.execute(f'create table "{name}" (like "{TABLE}" including defaults including constraints)')
        cursor.execute(
            f'with moved as (delete from "{TABLE}_default" where created_at >= %s and created_at < %s returning *) '
            f'insert into "{name}" select * from moved',
            span,
        )
        cursor.execute(
            f"alter table \"{TABLE}\" attach partition \"{name}\" for values from ('{span[0]}') to ('{span[1]}')"
        )
