"""The sweep: who is dead, who is not, and what becomes of their calls."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest

from metering import rollups, sweeper
from metering.models import DailyUsage, Hold, UsageEvent, Writer
from metering.rows import HoldRow
from metering.wiring import current_store
from tests.metering.asgi import a_card
from tests.metering.rows import NOON, PAYER, STRANGER, a_hold

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
