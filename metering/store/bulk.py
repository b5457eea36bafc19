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

from metering.rows import EVENT_COLUMNS, EventRow, PricingStatus, Status
from metering.store.base import BadRow, Unavailable
from metering.store.postgres import translated
from metering.store.sql import (
    DAILY_ADD,
    DAILY_KEY_LIST,
    DAILY_SUM_LIST,
    EVENT_LIST,
    UNPRICED_LIST,
    USER_ADD,
    USER_KEY,
    USER_KEY_LIST,
    USER_SUM_LIST,
    USER_SUMS,
    WRITER_UPSERT,
    event_sums,
    unpriced_values,
)

Result = Literal["accepted", "duplicate", "conflict"]
HASH_BYTES = 16

_STAGED = (*EVENT_COLUMNS, "missing", "day", "key_hash", "payload_hash", "place")
_encode_lines = msgspec.json.Encoder(decimal_format="string").encode_lines
_CREATE = f"""create temp table if not exists staged_events on commit delete rows as
select {EVENT_LIST}, context as missing, current_date as day, ''::bytea as key_hash, ''::bytea as payload_hash, 0 as place
from usage_events with no data"""
_COPY = f"copy staged_events ({', '.join(_STAGED)}) from stdin"
_KEYS = ", ".join("s." + name for name in DAILY_KEY_LIST.split(", "))
_USER_KEYS = ", ".join("s." + name for name in USER_KEY)
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
    on conflict ({DAILY_KEY_LIST}) do update set {DAILY_ADD} returning 1),
users_rolled as (insert into daily_user_usage as t ({USER_KEY_LIST}, currency, {USER_SUM_LIST})
    select {_USER_KEYS}, min(s.currency), {", ".join(f"sum({event_sums('s')[name]})" for name in USER_SUMS)}
    from staged_events s join fresh f on f.event_id = s.id where s.user_id <> '' and (select count(*) from rolled) > 0
    group by {_USER_KEYS} order by {_USER_KEYS}
    on conflict ({USER_KEY_LIST}) do update set {USER_ADD})
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
        text = copy_text(rows, payload_hashes)
        self._connection.execute("begin")
        with self._connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            copy.write(text)

    def _judge(self, rows: Sequence[EventRow], payload_hashes: Sequence[bytes]) -> list[Result]:
        results: list[Result] = ["conflict"] * len(rows)
        self._stage(rows, payload_hashes)
        for place, own, same in self._connection.execute(_JUDGE).fetchall():
            results[place] = "accepted" if own else "duplicate" if same else "conflict"
        self._connection.execute("commit")
        return results


_values = operator.attrgetter(*EVENT_COLUMNS, "missing", "day", "idempotency_key")
_DOCUMENTS = frozenset({"buckets", "rate_ids", "raw_usage", "context", "tags", "metadata", "missing"})
_TEXTS = frozenset(
    name for name in EVENT_COLUMNS if EventRow.__annotations__[name] in (str, Status, PricingStatus)
)
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})
_NULL = "\\N"


def copy_text(rows: Sequence[EventRow], payload_hashes: Sequence[bytes]) -> bytes:
    """A batch in COPY's text format, in the order of the staged columns. It is made column by column, each by a few calls
    that take all its values: a value at a time costs several times as much. Raises BadRow."""
    if not rows:
        return b""
    try:
        *columns, keys = zip(*map(_values, rows), strict=True)
        texts = [_column(name, values) for name, values in zip(_STAGED, columns, strict=False)]
        texts.append([_bytea(hash_of(key.encode())) for key in keys])
        texts.append([_bytea(payload_hash) for payload_hash in payload_hashes])
        texts.append([str(place) for place in range(len(rows))])
        return "".join(["\t".join(fields) + "\n" for fields in zip(*texts, strict=True)]).encode()
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise BadRow(f"cannot be written as text: {error}") from error


def _column(name: str, values: Sequence[Any]) -> Sequence[str]:
    """The fields of one column."""
    if name in _TEXTS:
        together = "\n".join(values)
        if together.count("\n") < len(values) and not any(mark in together for mark in "\\\t\r"):
            return values
        return [value.translate(_ESCAPES) for value in values]
    lines = _encode_lines(values).decode()  # JSON holds no bare newline
    if name in _DOCUMENTS:
        lines = lines.replace("\\", "\\\\")
        return [_NULL if line == "null" else line for line in lines.split("\n")[:-1]]
    return (
        lines.replace('"', "").replace("null", _NULL).split("\n")[:-1]
    )  # ids, instants, numbers, truth values


def _bytea(value: bytes) -> str:
    return "\\\\x" + value.hex()
