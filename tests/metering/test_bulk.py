"""The bulk path on PostgreSQL: every event once, whatever is sent again, and each told what became of it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import uuid4

import msgspec
import psycopg
import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings, strategies as st
from psycopg.types.json import JsonbLoader

from metering import rollups
from metering.models import DailyUsage, DailyUserUsage, UsageEvent
from metering.rows import EVENT_COLUMNS, EventRow
from metering.store.base import BadRow, SequenceRefused
from metering.store.bulk import BulkLane, Result, hash_of
from tests.metering.rows import NOON, PAYER, STRANGER, a_hold, an_event

T = TypeVar("T")
pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.engine("postgresql")]


def an_ingested_event(key: str, **values: Any) -> EventRow:
    customer = STRANGER if key.startswith("stranger") else PAYER
    return an_event(a_hold(customer), idempotency_key=key, **values)


def payloads(events: Sequence[EventRow]) -> list[bytes]:
    """The hashes of what was sent: here the quantity stands for all of it."""
    return [hash_of(str(event.quantity).encode()) for event in events]


def run(act: Callable[[BulkLane], Awaitable[T]]) -> T:
    async def main() -> T:
        lane = BulkLane(connection.get_connection_params() | {"cursor_factory": None})
        try:
            return await act(lane)
        finally:
            await lane.close()

    return asyncio.run(main())


def ingest(*batches: Sequence[EventRow]) -> list[list[Result]]:
    async def act(lane: BulkLane) -> list[list[Result]]:
        writer = uuid4()
        return [
            await lane.ingest(writer, number, events, payloads(events))
            for number, events in enumerate(batches, start=1)
        ]

    return run(act)


def assert_books_say(events: int) -> None:
    assert UsageEvent.objects.count() == events
    assert sum(DailyUsage.objects.values_list("events", flat=True)) == events
    assert rollups.check_day(NOON.date()) == []


def test_what_is_sent_again_is_a_duplicate_and_what_was_changed_a_conflict() -> None:
    first = [an_ingested_event("one"), an_ingested_event("two"), an_ingested_event("stranger's one")]
    second = [
        an_ingested_event("two", quantity=Decimal(7)), an_ingested_event("three"), an_ingested_event("one"),
    ]  # fmt: skip
    assert ingest(first, second) == [["accepted"] * 3, ["conflict", "accepted", "duplicate"]]
    assert_books_say(events=4)
    assert DailyUsage.objects.get(customer_id=PAYER).quantity == 3  # 1 + 1 + 1, never 7


def test_what_is_ingested_for_an_end_user_is_counted_for_that_user() -> None:
    ingest(
        [
            an_ingested_event("one", user_id="ada"),
            an_ingested_event("two", user_id="ada"),
            an_ingested_event("three"),
        ]
    )
    assert DailyUserUsage.objects.get().quantity == 2  # of ada; nobody said whose the third one is
    assert_books_say(events=3)


def test_a_key_that_stands_twice_in_a_batch_counts_once() -> None:
    events = [
        an_ingested_event("one"),
        an_ingested_event("one"),
        an_ingested_event("one", quantity=Decimal(2)),
    ]
    assert ingest(events) == [["accepted", "duplicate", "conflict"]]
    assert_books_say(events=1)


def test_an_event_comes_back_as_it_was_sent() -> None:
    strange = 'tab\t newline\n return\r backslash\\ \\N quote" ü 😀'
    event = an_ingested_event(
        "strange", user_id=strange, metadata={"a": strange, "b": [None, 1.5]}, cost_total=Decimal("0.000000000001"),
        latency=None, late=True, occurred_at=NOON.replace(microsecond=123456),
    )  # fmt: skip
    assert ingest([event]) == [["accepted"]]
    stored = UsageEvent.objects.get()
    assert (stored.user_id, stored.metadata) == (strange, {"a": strange, "b": [None, 1.5]})
    assert (stored.cost_total, stored.latency, stored.late) == (Decimal("0.000000000001"), None, True)
    assert (stored.id, stored.created_at, stored.occurred_at) == (
        event.id,
        event.created_at,
        event.occurred_at,
    )
    assert (stored.buckets, stored.rate_ids, stored.api_key_id) == (
        dict(event.buckets),
        [1, 2],
        event.api_key_id,
    )


WRITTEN = st.text(
    st.one_of(
        st.sampled_from("\\\t\n\r\"'N\x01\x0b\x1c\x85\u2028,{}"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    max_size=20,
)
DOCUMENTS = st.dictionaries(
    WRITTEN,
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WRITTEN,
        lambda inner: st.lists(inner) | st.dictionaries(WRITTEN, inner),
        max_leaves=6,
    ),
    max_size=4,
)
AMOUNTS = st.decimals("-1e15", "1e15", places=12)
CHANGES = st.fixed_dictionaries(
    {
        **dict.fromkeys(("user_id", "execution_id", "task_type", "endpoint", "extractor", "model", "provider"), WRITTEN),
        "quantity": AMOUNTS,
        **{name: st.none() | AMOUNTS for name in ("cost_total", "charge_total", "model_cost_input")},
        **{name: st.none() | st.integers(0, 2**53) for name in ("tokens_input", "tokens_output")},
        **{name: st.none() | st.integers(0, 2**31 - 1) for name in ("latency", "execution_time")},
        **dict.fromkeys(("context", "tags", "metadata", "buckets"), DOCUMENTS),
        "raw_usage": st.none() | DOCUMENTS | st.lists(WRITTEN),
        "rate_ids": st.lists(st.integers(1, 2**40)).map(tuple),
        "posting_id": st.none() | st.uuids(),
        "late": st.booleans(),
        "occurred_at": st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    }
)  # fmt: skip


@pytest.fixture
def a_lane_and_a_reader() -> Any:
    params = connection.get_connection_params() | {"cursor_factory": None}
    lane = BulkLane(params)
    with psycopg.connect(autocommit=True, **params) as reader:
        reader.adapters.register_loader(
            "jsonb", JsonbLoader
        )  # psycopg's own, where Django's parameters leave text
        yield lane, reader
    asyncio.run(lane.close())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(CHANGES, min_size=1, max_size=4))
def test_whatever_an_event_holds_the_database_reads_the_same(
    a_lane_and_a_reader: Any, changes: list[dict[str, Any]]
) -> None:
    lane, reader = a_lane_and_a_reader
    reader.execute("truncate usage_events, idempotency_keys")  # Hypothesis seeds what ids are made of
    events = [an_ingested_event(f"\\N\t{uuid4()}", **change) for change in changes]
    assert asyncio.run(lane.ingest(uuid4(), 1, events, payloads(events))) == ["accepted"] * len(events)
    found = reader.execute(
        f"select {', '.join(EVENT_COLUMNS)} from usage_events where id = any(%s)",
        [[event.id for event in events]],
    ).fetchall()
    by_id = {row[EVENT_COLUMNS.index("id")]: row for row in found}
    for event in events:
        sent = msgspec.structs.asdict(event) | {"rate_ids": list(event.rate_ids)}
        assert dict(zip(EVENT_COLUMNS, by_id[event.id], strict=True)) == {
            name: sent[name] for name in EVENT_COLUMNS
        }


@pytest.mark.parametrize(
    "bad",
    [{"user_id": "a\0b"}, {"user_id": "a\ud800b"}, {"metadata": {"a": "\0"}}, {"metadata": {"a": object()}}],
    ids=["NUL", "surrogate", "NUL in a document", "no JSON"],
)
def test_what_no_database_takes_is_a_bad_row_and_leaves_nothing(bad: dict[str, Any]) -> None:
    events = [an_ingested_event("good"), an_ingested_event("bad", **bad)]
    with pytest.raises(BadRow):
        ingest(events)
    assert_books_say(events=0)


def test_a_batch_whose_answer_was_lost_is_judged_and_counts_once() -> None:
    events = [an_ingested_event(f"key {number}") for number in range(5)]

    async def act(lane: BulkLane) -> list[Result]:
        writer = uuid4()
        await lane.ingest(writer, 1, events, payloads(events))
        with pytest.raises(SequenceRefused):
            await lane.ingest(writer, 1, events, payloads(events))
        return await lane.judge(events, payloads(events))

    assert run(act) == ["accepted"] * 5
    assert_books_say(events=5)


def test_a_batch_that_the_database_refuses_leaves_nothing_and_the_lane_goes_on() -> None:
    good, bad = an_ingested_event("good"), an_ingested_event("bad", currency="EURO")

    async def act(lane: BulkLane) -> list[Result]:
        writer = uuid4()
        with pytest.raises(BadRow):
            await lane.ingest(writer, 1, [good, bad], payloads([good, bad]))
        return await lane.ingest(writer, 1, [good], payloads([good]))

    assert run(act) == ["accepted"]
    assert_books_say(events=1)


def test_many_lanes_at_once_neither_lose_nor_double() -> None:
    """Each sends the same 300 events in an order of its own, 50 at a time."""
    events = [an_ingested_event(f"{('stranger', 'key')[number % 2]} {number}") for number in range(300)]

    async def send(lane: BulkLane, order: Sequence[EventRow]) -> list[Result]:
        writer, results = uuid4(), []
        for number in range(6):
            part = order[number * 50 : number * 50 + 50]
            results += await lane.ingest(writer, number + 1, part, payloads(part))
        return results

    async def main() -> list[list[Result]]:
        params = connection.get_connection_params() | {"cursor_factory": None}
        lanes = [BulkLane(params) for _ in range(3)]
        try:
            return await asyncio.gather(
                *(
                    send(lane, events[start:] + events[:start])
                    for lane, start in zip(lanes, (0, 100, 200), strict=True)
                )
            )
        finally:
            for lane in lanes:
                await lane.close()

    results = asyncio.run(main())
    assert {result for one in results for result in one} <= {"accepted", "duplicate"}
    assert_books_say(events=300)
