"""The sweep: who is dead, who is not, and what becomes of their calls."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from django.db import connection, connections, transaction

from metering import rollups, sweeper
from metering.gate import Contribution
from metering.models import DailyUsage, Hold, QuarantinedRow, UsageEvent, Writer
from metering.rows import EventRow, HoldRow
from metering.store.base import BadRow, Lane
from metering.wiring import current_store
from tests.metering.asgi import a_card
from tests.metering.rows import NOON, PAYER, STRANGER, a_hold
from tests.metering.stores import LossyLane, LossyStore

pytestmark = pytest.mark.django_db(transaction=True)


def orphaned(*holds: HoldRow) -> UUID:
    """Holds of a process that has died since; the id of its writer."""
    writer = uuid4()

    async def write() -> None:
        lane = await current_store().open_lane("test")
        await lane.hold(writer, 1, holds, None)
        await lane.close()

    asyncio.run(write())
    return writer


def sweep_at(seconds: int) -> int:
    store = current_store()
    try:
        return sweeper.sweep(store, a_card(), lambda: NOON + timedelta(seconds=seconds))
    finally:
        store.close()


def fenced(*holds: HoldRow) -> UUID:
    """Holds that the next sweep is to end."""
    writer = orphaned(*holds)
    Writer.objects.filter(id=writer).update(fenced_at=NOON)
    return writer


@contextmanager
def locking(sql: str) -> Iterator[None]:
    """Another connection that holds the rows which `sql` locks."""
    locked, done = threading.Event(), threading.Event()

    def hold() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(sql)
                locked.set()
                done.wait(60)
        finally:
            connections.close_all()

    thread = threading.Thread(target=hold)
    thread.start()
    assert locked.wait(10)
    try:
        yield
    finally:
        done.set()
        thread.join(10)


def beat(writer: UUID) -> None:
    store = current_store()
    store.beat([writer])
    store.close()


def test_a_silent_writer_is_dead_after_three_looks_and_within_a_minute() -> None:
    writer = orphaned(a_hold())
    assert [sweep_at(seconds) for seconds in (0, 10)] == [0, 0]
    assert Writer.objects.get(id=writer).fenced_at is None
    assert sweep_at(20) == 1
    assert Writer.objects.get(id=writer).fenced_at is not None
    assert Hold.objects.count() == 0


def test_looks_that_come_too_early_do_not_count() -> None:
    orphaned(a_hold())
    assert [sweep_at(seconds) for seconds in (0, 1, 2, 3, 9)] == [0] * 5


def test_a_beat_starts_the_count_anew() -> None:
    writer = orphaned(a_hold())
    sweep_at(0), sweep_at(10)
    beat(writer)
    assert [sweep_at(seconds) for seconds in (20, 30)] == [0, 0]
    assert sweep_at(40) == 1


def test_looks_that_were_missed_start_the_count_anew() -> None:
    """The sweeper was away for a minute, and so may the database have been: nobody could beat then."""
    orphaned(a_hold())
    sweep_at(0), sweep_at(10)
    assert [sweep_at(seconds) for seconds in (70, 80)] == [0, 0]
    assert sweep_at(90) == 1


def test_a_writer_that_beats_between_look_and_fence_lives() -> None:
    writer = orphaned(a_hold())
    for seconds in (0, 10):
        sweeper.look(NOON + timedelta(seconds=seconds))
    dead = sweeper.look(NOON + timedelta(seconds=20))
    assert dead == [writer]
    beat(writer)
    assert sweeper.fence(writer, NOON) is False


def test_a_swept_call_is_visible_and_in_the_customers_favour() -> None:
    hold = a_hold(tokens_input=1_000)
    orphaned(hold)
    sweep_at(0), sweep_at(10), sweep_at(20)
    event = UsageEvent.objects.get()
    assert (event.status, event.usage_source, event.pricing_status) == ("interrupted", "estimated", "partial")
    assert (event.tokens_input, event.tokens_output, event.tokens_total) == (1_000, None, None)
    assert (event.cost_total, event.charge_total) == (Decimal("0.001"), 0)  # 1000 × 1/1e6
    assert (event.execution_id, event.occurred_at, event.quantity) == (str(hold.id), NOON, 0)
    assert rollups.check_day(NOON.date()) == []


def test_sweeping_twice_sweeps_once() -> None:
    orphaned(*[a_hold(customer) for customer in (PAYER, STRANGER) for _ in range(3)])
    assert [sweep_at(seconds) for seconds in (0, 10, 20, 30)] == [0, 0, 6, 0]
    assert sum(DailyUsage.objects.values_list("events", flat=True)) == 6
    assert rollups.check_day(NOON.date()) == []


def test_more_orphans_than_a_batch_are_all_swept() -> None:
    orphaned(*[a_hold() for _ in range(sweeper.BATCH + 7)])
    sweep_at(0), sweep_at(10)
    assert sweep_at(20) == sweeper.BATCH + 7


def test_a_writer_fenced_long_ago_is_forgotten() -> None:
    writer = orphaned(a_hold())
    sweep_at(0), sweep_at(10), sweep_at(20)
    sweep_at(int(sweeper.WRITERS_KEPT.total_seconds()) + 60)
    assert not Writer.objects.filter(id=writer).exists()


@pytest.mark.engine("postgresql")
def test_a_locked_customer_holds_up_nobody_else() -> None:
    fenced(a_hold())
    assert sweep_at(0) == 1  # makes the row of daily usage that is locked below
    fenced(a_hold(), a_hold(STRANGER))
    with locking(f"select 1 from daily_usage where customer_id = '{PAYER}' for update"):
        assert sweep_at(1) == 1
    assert Hold.objects.get().customer_id == PAYER
    assert sweep_at(2) == 1
    assert Hold.objects.count() == 0


def test_a_lock_that_is_gone_at_the_second_try_costs_nothing() -> None:
    fenced(a_hold(), a_hold(STRANGER))
    store = LossyStore(current_store())
    store.lock = 1
    assert sweeper.sweep(store, a_card(), lambda: NOON) == 2
    store.close()


def test_holds_that_cannot_be_ended_are_tried_once_in_a_sweep() -> None:
    fenced(*[a_hold() for _ in range(4)], a_hold(STRANGER))
    store = LossyStore(current_store())
    store.lock = 2  # the first two batches of two, both of one customer
    assert sweeper.sweep(store, a_card(), lambda: NOON, batch=2) == 1
    assert set(Hold.objects.values_list("customer_id", flat=True)) == {PAYER}
    assert sweeper.sweep(store, a_card(), lambda: NOON) == 4
    store.close()


class RefusingLane(LossyLane):
    """A lane to a database that refuses the events of one model."""

    async def settle(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], contribution: Contribution | None
    ) -> set[UUID]:
        if any(row.model == "refused" for row in rows):
            raise BadRow("refused")
        return await super().settle(writer, seq, rows, contribution)


class RefusingStore(LossyStore):
    async def open_lane(self, name: str) -> Lane:
        return RefusingLane(self, await self.store.open_lane(name))


def test_an_orphan_that_the_database_refuses_is_put_away_alone() -> None:
    refused = a_hold(model="refused")
    fenced(a_hold(), refused, *[a_hold(STRANGER) for _ in range(3)])
    store = RefusingStore(current_store())
    assert sweeper.sweep(store, a_card(), lambda: NOON) == 4
    store.close()
    assert Hold.objects.count() == 0
    put_away = QuarantinedRow.objects.get()
    assert (put_away.customer_id, put_away.reason) == (PAYER, "refused")
    assert str(refused.id) in put_away.row


@pytest.mark.engine("postgresql")
def test_a_look_waits_for_no_busy_writer() -> None:
    busy, idle = orphaned(a_hold()), orphaned(a_hold())
    with locking(f"update usage_writers set seq = seq + 1 where id = '{busy}'"):
        with connection.cursor() as cursor:
            cursor.execute("set lock_timeout = '1s'")
        try:
            sweeper.look(NOON)
        finally:
            connection.close()  # the limit goes with it
        looked = dict(Writer.objects.values_list("id", "looks"))
    assert looked == {busy: 0, idle: 1}


def test_a_clock_set_back_starts_the_count_anew() -> None:
    writer = orphaned(a_hold())
    days = timedelta(days=30)
    assert [sweeper.look(NOON + days + timedelta(seconds=seconds)) for seconds in (0, 10)] == [[], []]
    assert [sweeper.look(NOON + timedelta(seconds=seconds)) for seconds in (0, 10)] == [[], []]
    assert sweeper.look(NOON + timedelta(seconds=20)) == [writer]


def test_two_sweeps_at_once_do_not_take_each_other_for_a_clock_set_back() -> None:
    writer = orphaned(a_hold())
    for seconds in (0, 10):
        sweeper.look(NOON + timedelta(seconds=seconds + 1))
        assert sweeper.look(NOON + timedelta(seconds=seconds)) == []
    assert sweeper.look(NOON + timedelta(seconds=21)) == [writer]
