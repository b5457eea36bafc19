"""The bulk path: many events at once from an ingest, on PostgreSQL, by way of a staging table.

`COPY` into a temporary table costs no WAL and takes no lock that anybody waits for; one statement then moves what is new
into `usage_events` and daily usage. The unique key (customer, hash of the idempotency key) decides what is new: a repeated
event is a duplicate when its payload is the same and a conflict when it is not, whoever sent it and whenever.
"""

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Literal
from uuid import UUID

import msgspec
import psycopg

from metering.rows import EVENT_COLUMNS, EventRow
from metering.store.base import Unavailable
from metering.store.postgres import CALL_TIMEOUT_S, PostgresLane, translated
from metering.store.sql import DAILY_ADD, DAILY_KEY_LIST, DAILY_SUM_LIST, EVENT_LIST, WRITER_UPSERT, event_sums

Result = Literal["accepted", "duplicate", "conflict"]
HASH_BYTES = 16

_STAGED = (*EVENT_COLUMNS, "period_start", "day", "key_hash", "payload_hash", "place")
_encode = msgspec.json.Encoder(decimal_format="string").encode
_CREATE = f"""create temp table if not exists staged_events as
select {EVENT_LIST}, created_at as period_start, current_date as day, ''::bytea as key_hash, ''::bytea as payload_hash, 0 as place
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
rolled as (insert into daily_usage as t ({DAILY_KEY_LIST}, currency, {DAILY_SUM_LIST})
    select {_KEYS}, min(s.currency), {", ".join(f"sum({text})" for text in event_sums("s").values())}
    from staged_events s join fresh f on f.event_id = s.id where (select count(*) from events) > 0
    group by {_KEYS} order by {_KEYS}
    on conflict ({DAILY_KEY_LIST}) do update set {DAILY_ADD})
select s.place from staged_events s join fresh f on f.event_id = s.id"""
_JUDGE = """select s.place, k.event_id = s.id, k.payload_hash = s.payload_hash from staged_events s
join idempotency_keys k on k.customer_id = s.customer_id and k.key_hash = s.key_hash"""


def hash_of(value: bytes) -> bytes:
    """128 bits of SHA-256: what stands for an idempotency key and for a payload."""
    return hashlib.sha256(value).digest()[:HASH_BYTES]


class BulkLane(PostgresLane):
    """A lane that also takes whole batches of events which no hold precedes."""

    @classmethod
    async def connect(cls, conninfo: dict[str, Any]) -> "BulkLane":
        """A connection with its staging table. Raises Unavailable."""
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                connection = await psycopg.AsyncConnection.connect(
                    autocommit=True, application_name="tollgate bulk", **conninfo
                )
                await connection.execute(_CREATE)
        except Exception as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        return cls(connection)

    async def ingest(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], payload_hashes: Sequence[bytes]
    ) -> list[Result]:
        """Write what is new as batch `seq` of `writer`; what became of each row, in order. Raises StoreError; after an
        unknown outcome the same batch is sent again under the same number, or, once that is refused, judged by `judge`."""
        try:
            await self._stage(rows, payload_hashes)
            cursor = await self._connection.execute(_MOVE, {"writer": writer, "seq": seq})
            accepted = {found[0] for found in await cursor.fetchall()}
        except Exception as error:
            raise translated(error) from error
        if len(accepted) == len(rows):
            return ["accepted"] * len(rows)
        return await self._judge(len(rows))

    async def judge(self, rows: Sequence[EventRow], payload_hashes: Sequence[bytes]) -> list[Result]:
        """What became of a batch that was applied although its answer was lost."""
        try:
            await self._stage(rows, payload_hashes)
            return await self._judge(len(rows))
        except Exception as error:
            raise translated(error) from error

    async def _stage(self, rows: Sequence[EventRow], payload_hashes: Sequence[bytes]) -> None:
        await self._connection.execute("truncate staged_events")
        async with self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            await copy.write("".join(map(_line, rows, payload_hashes, range(len(rows)))))

    async def _judge(self, count: int) -> list[Result]:
        results: list[Result] = ["conflict"] * count
        for place, own, same in await (await self._connection.execute(_JUDGE)).fetchall():
            results[place] = "accepted" if own else "duplicate" if same else "conflict"
        return results


def _line(row: EventRow, payload_hash: bytes, place: int) -> str:
    """A row as COPY's text format takes it."""
    fields = [_field(getattr(row, name)) for name in EVENT_COLUMNS]
    key = hash_of(row.idempotency_key.encode())
    fields += [_field(row.period_start), _field(row.day), f"\\\\x{key.hex()}", f"\\\\x{payload_hash.hex()}", str(place)]
    return "\t".join(fields) + "\n"


def _field(value: Any) -> str:
    if value is None:
        return "\\N"
    kind = type(value)
    if kind is str:
        return _escaped(value) if not value.isalnum() else value
    if kind is dict or kind is tuple or kind is msgspec.Raw or kind is list:
        return _escaped(_encode(value).decode())
    return str(value)


def _escaped(text: str) -> str:
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if "\t" in text or "\n" in text or "\r" in text:
        text = text.replace("\t", "\\t").replace("\n", "\\n").replace("\r", "\\r")
    return text
