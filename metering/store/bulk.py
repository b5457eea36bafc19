"""The bulk path: many events at once from an ingest, on PostgreSQL, by way of a staging table.

`COPY` into a temporary table costs no WAL and takes no lock that anybody waits for; one statement, sent together with the
COMMIT, then moves what is new into `usage_events` and daily usage. The unique key (customer, hash of the idempotency key) decides what is new: a repeated
event is a duplicate when its payload is the same and a conflict when it is not, whoever sent it and whenever.
"""

import asyncio
import hashlib
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Literal
from uuid import UUID

import msgspec
import psycopg

from metering.rows import EVENT_COLUMNS, EventRow
from metering.store.base import Unavailable
from metering.store.postgres import translated
from metering.store.sql import (
    DAILY_ADD,
    DAILY_KEY_LIST,
    DAILY_SUM_LIST,
    EVENT_LIST,
    UNPRICED_LIST,
    WRITER_UPSERT,
    event_sums,
    unpriced_values,
)

Result = Literal["accepted", "duplicate", "conflict"]
HASH_BYTES = 16

_STAGED = (*EVENT_COLUMNS, "missing", "day", "key_hash", "payload_hash", "place")
_DOCUMENTS = tuple(
    EVENT_COLUMNS.index(name) for name in ("buckets", "rate_ids", "raw_usage", "context", "tags", "metadata")
)
_INSTANTS = tuple(EVENT_COLUMNS.index(name) for name in ("created_at", "occurred_at", "period_start"))
_IDS = tuple(EVENT_COLUMNS.index(name) for name in ("customer_id", "id", "api_key_id"))
_encode = msgspec.json.Encoder(decimal_format="string").encode
_CREATE = f"""create temp table if not exists staged_events on commit delete rows as
select {EVENT_LIST}, context as missing, current_date as day, ''::bytea as key_hash, ''::bytea as payload_hash, 0 as place
from usage_events with no data"""
_COPY = f"copy staged_events ({', '.join(_STAGED)}) from stdin"
_KEYS = ", ".join("s." + name for name in DAILY_KEY_LIST.split(", "))
_MOVE = f"""
with w as ({WRITER_UPSERT.format(writer="%(writer)s", seq="%(seq)s")} returning id),
fresh as (insert into idempotency_keys (customer_id, key_hash, payload_hash, event_id, occurred_at)
    select customer_id, key_hash, payload_hash, id, occurred_at from staged_events where exists (select 1 from w)
    order by customer_id, key_hash on conflict (customer_id, key_hash) do nothing returning event_id),
events as (insert into usage_events ({EVENT_LIST})
    select {", ".join("s." + name for name in EVENT_COLUMNS)} from staged_events s join fresh f on f.event_id = s.id
    order by s.customer_id, s.created_at, s.id returning id),
listed as (insert into usage_unpriced ({UNPRICED_LIST})
    select {unpriced_values("s.")} from staged_events s join fresh f on f.event_id = s.id where s.missing is not null),
rolled as (insert into daily_usage as t ({DAILY_KEY_LIST}, currency, {DAILY_SUM_LIST})
    select {_KEYS}, min(s.currency), {", ".join(f"sum({text})" for text in event_sums("s").values())}
    from staged_events s join fresh f on f.event_id = s.id where (select count(*) from events) > 0
    group by {_KEYS} order by {_KEYS}
    on conflict ({DAILY_KEY_LIST}) do update set {DAILY_ADD})
select count(*) from fresh"""
_JUDGE = """select s.place, k.event_id = s.id, k.payload_hash = s.payload_hash from staged_events s
join idempotency_keys k on k.customer_id = s.customer_id and k.key_hash = s.key_hash"""


def hash_of(value: bytes) -> bytes:
    """128 bits of SHA-256: what stands for an idempotency key and for a payload."""
    return hashlib.sha256(value).digest()[:HASH_BYTES]


class BulkLane:
    """One connection with its staging table, used by one caller at a time, in a thread of its own: formatting thousands of
    rows must not hold up an event loop. After Unavailable it is closed for good."""

    def __init__(self, conninfo: dict[str, Any]) -> None:
        """Connect. Raises Unavailable. Blocks for as long as connecting takes."""
        try:
            self._connection = psycopg.connect(autocommit=True, application_name="tollgate bulk", **conninfo)
            self._connection.execute(_CREATE)
        except Exception as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="tollgate-bulk")

    async def ingest(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], payload_hashes: Sequence[bytes]
    ) -> list[Result]:
        """Write what is new as batch `seq` of `writer`; what became of each row, in order. Raises StoreError; after an
        unknown outcome the same batch is sent again under the same number, or, once that is refused, judged by `judge`."""
        return await self._run(lambda: self._ingest(writer, seq, rows, payload_hashes))

    async def judge(self, rows: Sequence[EventRow], payload_hashes: Sequence[bytes]) -> list[Result]:
        """What became of a batch that was applied although its answer was lost."""

        return await self._run(lambda: self._judge(rows, payload_hashes))

    async def close(self) -> None:
        """Throw the connection away."""
        await asyncio.get_running_loop().run_in_executor(self._executor, self._connection.close)
        self._executor.shutdown(wait=False)

    async def _run(self, act: Callable[[], list[Result]]) -> list[Result]:
        def translated_act() -> list[Result]:
            try:
                return act()
            except Exception as error:
                with suppress(psycopg.Error):
                    self._connection.rollback()
                raise translated(error) from error

        return await asyncio.get_running_loop().run_in_executor(self._executor, translated_act)

    def _ingest(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], payload_hashes: Sequence[bytes]
    ) -> list[Result]:
        self._stage(rows, payload_hashes)
        with self._connection.pipeline():
            moved = self._connection.execute(_MOVE, {"writer": writer, "seq": seq})
            self._connection.execute("commit")
        accepted = moved.fetchone()
        return ["accepted"] * len(rows) if accepted == (len(rows),) else self._judge(rows, payload_hashes)

    def _stage(self, rows: Sequence[EventRow], payload_hashes: Sequence[bytes]) -> None:
        """Begin a transaction and fill the staging table, which is empty again when it ends."""
        self._connection.execute("begin")
        with self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for place, (row, payload_hash) in enumerate(zip(rows, payload_hashes, strict=True)):
                copy.write_row(_fields(row, payload_hash, place))

    def _judge(self, rows: Sequence[EventRow], payload_hashes: Sequence[bytes]) -> list[Result]:
        results: list[Result] = ["conflict"] * len(rows)
        self._stage(rows, payload_hashes)
        for place, own, same in self._connection.execute(_JUDGE).fetchall():
            results[place] = "accepted" if own else "duplicate" if same else "conflict"
        self._connection.execute("commit")
        return results


_values = operator.attrgetter(*EVENT_COLUMNS)


def _fields(row: EventRow, payload_hash: bytes, place: int) -> list[Any]:
    """A row as COPY takes it, in the order of the staged columns. Instants and ids go in as text: psycopg's own way with
    them costs as much as all other columns together."""
    fields = list(_values(row))
    for number in _INSTANTS:
        fields[number] = fields[number].isoformat()
    for number in _IDS:
        fields[number] = fields[number].hex
    for number in _DOCUMENTS:
        value = fields[number]
        if value is not None:
            fields[number] = _encode(value).decode() if value else "[]" if type(value) is tuple else "{}"
    missing = None if row.missing is None else _encode(row.missing).decode()
    fields += (missing, row.day.isoformat(), hash_of(row.idempotency_key.encode()), payload_hash, place)
    return fields
