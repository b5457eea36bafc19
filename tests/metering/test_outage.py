"""Calls while the database is away: who goes out, and that each is in the books once when it is back."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import pytest
from django.db import connections

from metering import rollups
from metering.gate import Contribution, OpenGate
from metering.models import Hold, QuarantinedRow, UsageCorrection, UsageEvent
from metering.recorder import Recorder, RecorderUnavailable
from metering.rows import EventRow, HoldRow
from metering.spool import Spool
from metering.store import Lane, Store
from metering.store.base import Held, Unavailable
from metering.wiring import current_store
from tests.metering.rows import NOON, a_hold, an_event
from tests.metering.stores import LossyLane, LossyStore
from tests.metering.test_spool_files import on_disk

T = TypeVar("T")
pytestmark = pytest.mark.django_db(transaction=True)

MEGABYTE = 2**20


class AwayStore(LossyStore):
    """A real store that can be `away`, or so slow (`hangs_on`, `back`) that nobody gets an answer. `released`: holds that were
    ended without an event."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.away = False
        self.released: list[UUID] = []
        self.hangs_on: object = None  # the event loop whose statements do
        self.back = asyncio.Event()

    async def open_lane(self, name: str) -> Lane:
        self.refuse()
        return AwayLane(self, await self.store.open_lane(name))

    def beat(self, writers: Iterable[UUID]) -> None:
        self.refuse()
        super().beat(writers)

    def retire(self, writers: Iterable[UUID]) -> None:
        self.refuse()
        super().retire(writers)

    def refuse(self) -> None:
        if self.away:
            raise Unavailable("the database is away")


class AwayLane(LossyLane):
    """A lane of an AwayStore."""

    def __init__(self, network: AwayStore, lane: Lane) -> None:
        super().__init__(network, lane)
        self._away = network

    async def hold(
        self, writer: UUID, seq: int, rows: Sequence[HoldRow], contribution: Contribution | None
    ) -> Held:
        await self._arrive()
        return await super().hold(writer, seq, rows, contribution)

    async def settle(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], contribution: Contribution | None
    ) -> set[UUID]:
        await self._arrive()
        return await super().settle(writer, seq, rows, contribution)

    async def release(self, rows: Sequence[HoldRow]) -> None:
        self._away.released += [row.id for row in rows]
        await super().release(rows)

    async def _arrive(self) -> None:
        self._away.refuse()
        if asyncio.get_running_loop() is self._away.hangs_on:
            await self._away.back.wait()


class CountingGate(OpenGate):
    """A gate that notes what it was shown, as one does that limits tokens per minute."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[UUID] = []

    def settle(self, batch: Sequence[EventRow]) -> Contribution | None:
        self.seen += [row.id for row in batch]
        return None


def run(
    root: Path, act: Callable[[Recorder, AwayStore], Awaitable[None]], *, bytes_max: int = 16 * MEGABYTE,
    gate: OpenGate | None = None,
) -> None:  # fmt: skip
    """Run `act` with a recorder that has a spool, and stop that one at the end."""

    async def main() -> None:
        network = AwayStore(current_store())
        recorder = Recorder(network, gate or OpenGate(), deadline_s=5, spool=Spool(root, bytes_max))
        try:
            await act(recorder, network)
        finally:
            network.away = False
            network.back.set()
            await recorder.stop()
            network.close()

    asyncio.run(main())


async def until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110  (threads of the product bring it about)
        await asyncio.sleep(0.02)


async def drained(recorder: Recorder) -> None:
    spool = recorder.spool
    assert spool is not None
    await until(lambda: not spool.records and not any(spool.root.glob("*/*.spool")))


async def in_thread(ask: Callable[[], T]) -> T:
    def once() -> T:
        try:
            return ask()
        finally:
            connections.close_all()

    return await asyncio.to_thread(once)


def books() -> tuple[int, int, int, list[str]]:
    """Events, holds, rows put away, and what differs between events and daily usage."""
    return (
        UsageEvent.objects.count(),
        Hold.objects.count(),
        QuarantinedRow.objects.count(),
        [str(drift) for drift in rollups.check_day(NOON.date())],
    )


async def settle(recorder: Recorder, hold: HoldRow) -> None:
    assert await recorder.settle(an_event(hold)) is True


def test_an_open_call_goes_out_and_is_counted_once_when_the_database_is_back(tmp_path: Path) -> None:
    async def act(recorder: Recorder, network: AwayStore) -> None:
        network.away = True
        holds = [a_hold() for _ in range(20)]
        assert all(await asyncio.gather(*(recorder.hold(hold, spools=True) for hold in holds)))
        await asyncio.gather(*(settle(recorder, hold) for hold in holds))
        assert await in_thread(books) == (0, 0, 0, [])
        network.away = False
        await drained(recorder)
        assert await in_thread(books) == (20, 0, 0, [])

    run(tmp_path, act)


def test_a_closed_call_is_refused(tmp_path: Path) -> None:
    async def act(recorder: Recorder, network: AwayStore) -> None:
        network.away = True
        with pytest.raises(RecorderUnavailable):
            await recorder.hold(a_hold())
        assert recorder.spool is not None and recorder.spool.records == 0

    run(tmp_path, act)


def test_once_the_outage_is_known_no_call_asks_the_database(tmp_path: Path) -> None:
    async def act(recorder: Recorder, network: AwayStore) -> None:
        network.away = True
        await recorder.hold(a_hold(), spools=True)
        assert recorder.status()["is_away"]
        waiting = recorder.status()["holds_waiting"]
        for _ in range(50):
            assert await recorder.hold(a_hold(), spools=True)
        assert recorder.status()["holds_waiting"] == waiting == 1  # the one that finds out when it is back

    run(tmp_path, act)


def test_an_event_whose_hold_was_committed_is_durable_without_the_database(tmp_path: Path) -> None:
    async def act(recorder: Recorder, network: AwayStore) -> None:
        hold = a_hold()
        assert await recorder.hold(hold)
        network.away = True
        await settle(recorder, hold)
        assert recorder.spool is not None and recorder.spool.records == 1
        network.away = False
        await drained(recorder)
        assert await in_thread(books) == (1, 0, 0, [])
        assert await in_thread(UsageCorrection.objects.count) == 0

    run(tmp_path, act)


def test_a_call_that_runs_across_the_end_of_the_outage_is_counted_once(tmp_path: Path) -> None:
    async def act(recorder: Recorder, network: AwayStore) -> None:
        network.away = True
        long_one, short_one = a_hold(), a_hold()
        for hold in (long_one, short_one):
            await recorder.hold(hold, spools=True)
        await settle(recorder, short_one)
        network.away = False
        spool = recorder.spool
        assert spool is not None
        await until(lambda: spool.records == 1)
        # should the process die now, that is what proves the call
        await until(lambda: [record.hold_id for record in on_disk(tmp_path)] == [long_one.id])
        assert (await in_thread(books))[0] == 1
        new_one = a_hold()
        assert await recorder.hold(new_one, spools=True)
        for hold in (long_one, new_one):
            await settle(recorder, hold)
        await drained(recorder)
        assert await in_thread(books) == (3, 0, 0, [])

    run(tmp_path, act)


@pytest.mark.parametrize("answers", ["requests", "answers"])
def test_a_hold_whose_commit_has_an_unknown_outcome_is_one_call(tmp_path: Path, answers: str) -> None:
    """It goes to the spool as well, and the batch that was in hand makes it once more when the database is back."""

    async def act(recorder: Recorder, network: AwayStore) -> None:
        first = a_hold()
        assert await recorder.hold(first)
        setattr(network, f"lose_{answers}", 1)
        hold = a_hold()
        going = asyncio.ensure_future(recorder.hold(hold, spools=True))
        await until(lambda: not network.lose_requests and not network.lose_answers)
        network.away = True
        assert await going
        await settle(recorder, hold)
        network.away = False
        await drained(recorder)
        await settle(recorder, first)
        assert await in_thread(books) == (2, 0, 0, [])
        assert network.released == []

    run(tmp_path, act)


def test_the_gate_sees_a_spooled_event_at_once_and_only_once(tmp_path: Path) -> None:
    gate = CountingGate()

    async def act(recorder: Recorder, network: AwayStore) -> None:
        held_before, spooled = a_hold(), a_hold()
        assert await recorder.hold(held_before)
        network.away = True
        assert await recorder.hold(spooled, spools=True)
        events = [an_event(held_before), an_event(spooled)]
        for event in events:
            assert await recorder.settle(event)
        assert gate.seen == [event.id for event in events]
        network.away = False
        await drained(recorder)
        assert gate.seen == [event.id for event in events]

    run(tmp_path, act, gate=gate)


def test_a_database_that_hangs_counts_as_away(tmp_path: Path) -> None:
    async def act(recorder: Recorder, network: AwayStore) -> None:
        hold = a_hold()
        assert await recorder.hold(hold)
        network.hangs_on = asyncio.get_running_loop()
        network.back.clear()
        hanging = a_hold()
        assert await recorder.hold(hanging, spools=True)
        for one in (hold, hanging):
            await settle(recorder, one)
        network.back.set()
        await drained(recorder)
        assert await in_thread(books) == (2, 0, 0, [])

    run(tmp_path, act)


def test_an_event_that_waits_too_long_goes_to_the_spool_and_is_counted_once(tmp_path: Path) -> None:
    """The database is slow rather than away: batches are written now and then."""

    async def act(recorder: Recorder, network: AwayStore) -> None:
        holds = [a_hold(), a_hold()]
        for hold in holds:
            assert await recorder.hold(hold)
        network.hangs_on = asyncio.get_running_loop()
        network.back.clear()
        first = recorder.settle(an_event(holds[0]))
        await asyncio.sleep(0.05)
        second = recorder.settle(an_event(holds[1]))
        recorder._settles.gave_up(recorder._settles.queue[0])
        recorder._settles.gave_up(recorder._settles.in_flight[0])
        assert await first and await second
        assert recorder.spool is not None and recorder.spool.records == 2
        network.back.set()
        await drained(recorder)
        await until(lambda: not recorder.status()["settles_waiting"])
        assert await in_thread(books) == (2, 0, 0, [])

    run(tmp_path, act)


def test_a_full_spool_refuses_new_calls_and_settles_those_it_has(tmp_path: Path) -> None:
    async def act(recorder: Recorder, network: AwayStore) -> None:
        network.away = True
        admitted, refused = [], 0
        for _ in range(12):
            hold = a_hold()
            try:
                await recorder.hold(hold, spools=True)
                admitted.append(hold)
            except RecorderUnavailable:
                refused += 1
        assert admitted and refused
        for hold in admitted:
            await settle(recorder, hold)
        network.away = False
        await drained(recorder)
        assert await in_thread(books) == (len(admitted), 0, 0, [])
        assert await recorder.hold(a_hold(), spools=True)

    run(tmp_path, act, bytes_max=100_000)


def test_an_outage_after_the_other_needs_no_restart(tmp_path: Path) -> None:
    async def act(recorder: Recorder, network: AwayStore) -> None:
        for _ in range(3):
            network.away = True
            away, home = a_hold(), a_hold()
            await recorder.hold(away, spools=True)
            await settle(recorder, away)
            network.away = False
            await until(lambda: not recorder.status()["is_away"])
            await recorder.hold(home)
            await settle(recorder, home)
        await drained(recorder)
        assert await in_thread(books) == (6, 0, 0, [])

    run(tmp_path, act)


def test_a_call_whose_client_left_before_it_went_out_leaves_nothing(tmp_path: Path) -> None:
    async def act(recorder: Recorder, network: AwayStore) -> None:
        network.away = True
        given_up, taken_back = a_hold(), a_hold()
        await recorder.hold(taken_back, spools=True)
        await recorder.release(taken_back)
        going = asyncio.ensure_future(recorder.hold(given_up, spools=True))
        await asyncio.sleep(0)
        going.cancel()
        await asyncio.gather(going, return_exceptions=True)
        network.away = False
        await drained(recorder)

    run(tmp_path, act)
    assert books() == (0, 0, 0, [])


def test_what_a_stopped_process_leaves_is_drained_by_the_next_one(tmp_path: Path) -> None:
    hold = a_hold()

    async def first(recorder: Recorder, network: AwayStore) -> None:
        network.away = True
        await recorder.hold(hold, spools=True)
        await settle(recorder, hold)

    async def stay_away() -> None:
        network = AwayStore(current_store())
        recorder = Recorder(network, OpenGate(), deadline_s=5, spool=Spool(tmp_path, MEGABYTE))
        await first(recorder, network)
        await recorder.stop()
        network.close()

    asyncio.run(stay_away())
    assert (books()[0], len(list(tmp_path.glob("*/*.spool")))) == (0, 1)

    async def second(recorder: Recorder, network: AwayStore) -> None:
        other = a_hold()
        await recorder.hold(other)
        await drained(recorder)
        await settle(recorder, other)

    run(tmp_path, second)
    assert books() == (2, 0, 0, [])
