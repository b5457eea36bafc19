"""How fast events reach the table, against raw COPY of the same rows into the same table.

What it does not show: many writers at once, and tables of a hundred million rows.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg

from benchmarks.answers import USAGE
from benchmarks.figures import Figure, median
from benchmarks.servers import conninfo, postgresql
from metering.ids import instant_of, uuid7
from metering.rows import EVENT_COLUMNS, EventRow, HoldRow
from metering.store.bulk import BulkLane, hash_of
from metering.store.postgres import PostgresStore

CUSTOMERS = [UUID(int=number + 1) for number in range(100)]
PERIOD_START = datetime(2026, 11, 1, tzinfo=UTC)
ROUNDS = 3
_encode = msgspec.json.Encoder(decimal_format="string").encode


def measure() -> Iterator[Figure]:
    """Section (b)."""
    with postgresql() as url:
        yield from _against_copy(url, "settle path", 200, _settle, goal=0.30)
        yield from _against_copy(url, "bulk path", 2000, _bulk, goal=0.60)


def bare_commit_loop(url: str, *, batch: int, seconds: float) -> float:
    """Rows/s of the plainest durable writer: one connection, `INSERT` of a batch, commit, again."""
    statement = f"insert into usage_events ({', '.join(EVENT_COLUMNS)}) values ({', '.join(['%s'] * len(EVENT_COLUMNS))})"
    written, spent = 0, 0.0
    with psycopg.connect(**conninfo(url)) as connection, connection.cursor() as cursor:
        while spent < seconds:
            rows = [_plain(event) for event in events_of(batch)]
            began = time.perf_counter()
            cursor.executemany(statement, rows)
            connection.commit()
            spent += time.perf_counter() - began
            written += batch
    truncate(url)
    return written / spent


def _against_copy(
    url: str, name: str, batch: int, write: "Callable[[str, int, int], float]", *, goal: float
) -> Iterator[Figure]:
    """The path and raw COPY in turn, on empty tables each; the ratio of neighbours."""
    batches = max(10, 20_000 // batch)
    pairs = [(_copy(url, batch, batches), write(url, batch, batches)) for _ in range(ROUNDS)]
    yield Figure(
        f"{name} / raw COPY, batches of {batch}",
        median([path / copy for copy, path in pairs]),
        "ratio",
        goal=goal,
    )
    yield Figure(f"raw COPY, batches of {batch}", median([copy for copy, _ in pairs]), "rows/s")
    yield Figure(f"{name}, exactly once and with daily usage", median([path for _, path in pairs]), "rows/s")


def _copy(url: str, batch: int, batches: int) -> float:
    spent = 0.0
    with psycopg.connect(autocommit=True, **conninfo(url)) as connection, connection.cursor() as cursor:
        for _ in range(batches):
            rows = [_plain(event) for event in events_of(batch)]
            began = time.perf_counter()
            with cursor.copy(f"copy usage_events ({', '.join(EVENT_COLUMNS)}) from stdin") as copy:
                for row in rows:
                    copy.write_row(row)
            spent += time.perf_counter() - began
    truncate(url)
    return batch * batches / spent


def _settle(url: str, batch: int, batches: int) -> float:
    async def main() -> float:
        lane, writer, spent = await PostgresStore(conninfo(url)).open_lane("bench"), uuid4(), 0.0
        for number in range(batches):
            events = events_of(batch)
            await lane.hold(writer, 2 * number + 1, [hold_of(event) for event in events], None)
            began = time.perf_counter()
            ended = await lane.settle(writer, 2 * number + 2, events, None)
            spent += time.perf_counter() - began
            assert len(ended) == batch
        await lane.close()
        return spent

    spent = asyncio.run(main())
    _check(url, batch * batches)
    return batch * batches / spent


def _bulk(url: str, batch: int, batches: int) -> float:
    """Two lanes in turn, as an ingest with more than one request at a time uses them: while one batch is moved by the
    database, the next one is being formatted."""
    prepared = [events_of(batch) for _ in range(batches)]

    async def write(lane: BulkLane, share: list[list[EventRow]]) -> None:
        writer = uuid4()
        for number, events in enumerate(share, start=1):
            hashes = [hash_of(event.idempotency_key.encode()) for event in events]
            assert await lane.ingest(writer, number, events, hashes) == ["accepted"] * batch

    async def main() -> float:
        lanes = [BulkLane(conninfo(url)) for _ in range(2)]
        began = time.perf_counter()
        await asyncio.gather(*(write(lane, prepared[place::2]) for place, lane in enumerate(lanes)))
        spent = time.perf_counter() - began
        for lane in lanes:
            await lane.close()
        return spent

    spent = asyncio.run(main())
    _check(url, batch * batches)
    return batch * batches / spent


def _check(url: str, expected: int) -> None:
    """The books must agree, or the figure is worth nothing."""
    with psycopg.connect(**conninfo(url)) as connection:
        row = connection.execute("select count(*) from usage_events").fetchone()
        day = connection.execute("select sum(events) from daily_usage").fetchone()
    assert row == (expected,) and day == (Decimal(expected),), (row, day)
    truncate(url)


def truncate(url: str) -> None:
    with psycopg.connect(autocommit=True, **conninfo(url)) as connection:
        connection.execute("truncate usage_events, daily_usage, usage_holds, idempotency_keys, usage_writers")


def events_of(count: int) -> list[EventRow]:
    now = datetime.now(UTC)
    return [_event(now + timedelta(microseconds=number), number) for number in range(count)]


def _event(at: datetime, number: int) -> EventRow:
    event_id, hold_id, customer = uuid7(at), uuid7(at), CUSTOMERS[number % len(CUSTOMERS)]
    return EventRow(
        customer_id=customer, id=event_id, hold_id=hold_id, hold_at=instant_of(hold_id), created_at=instant_of(event_id),
        occurred_at=at, period_start=PERIOD_START, day=at.date(), feature="api_calls", quantity=Decimal(1), status="ok",
        usage_source="reported", pricing_status="priced", api_key_id=customer, api_key_hash="ab" * 32,
        execution_id=str(hold_id), endpoint="/v1/chat/completions", method="POST", tokens_input=1200, tokens_output=300,
        tokens_total=1500, buckets={"in_uncached": 176, "in_cache_read": 1024, "out_visible": 108, "out_reasoning": 192},
        provider="openai", model="gpt-5-mini", model_requested="gpt-5-mini", model_cost_input=Decimal("0.00000025"),
        model_cost_output=Decimal("0.000002"), cost_input=Decimal("0.0000696"), cost_output=Decimal("0.0006"),
        cost_total=Decimal("0.0006696"), charge_total=Decimal("0.00080352"), rate_ids=(1, 2, 3, 11, 12, 13),
        execution_time=120, latency=80, status_code=200, raw_usage=USAGE, extractor="openai_chat/1",
        idempotency_key=str(event_id),
    )  # fmt: skip


def hold_of(event: EventRow) -> HoldRow:
    return HoldRow(
        customer_id=event.customer_id, id=event.hold_id, created_at=event.occurred_at, period_start=event.period_start,
        api_key_id=event.api_key_id, api_key_hash=event.api_key_hash, endpoint=event.endpoint, method=event.method,
        feature=event.feature, provider=event.provider, model=event.model, tokens_input=1200,
    )  # fmt: skip


def _plain(event: EventRow) -> Sequence[Any]:
    return [_plain_value(getattr(event, name)) for name in EVENT_COLUMNS]


def _plain_value(value: Any) -> Any:
    return _encode(value).decode() if isinstance(value, (dict, tuple)) else value
