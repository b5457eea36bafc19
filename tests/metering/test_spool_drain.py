"""From the spool into the books: each call once, wherever whoever drains is killed."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.db.models import Sum

from metering import rollups, sweeper, tasks
from metering.gate import Contribution
from metering.models import DailyUsage, Hold, QuarantinedRow, UsageCorrection, UsageEvent, Writer
from metering.rows import Claim, EventRow, HoldRow
from metering.spool import Spool, drain_abandoned
from metering.store import Lane, Store
from metering.store.base import Held, Unavailable
from metering.wiring import current_store
from tests.metering.asgi import a_card
from tests.metering.rows import NOON, PAYER, STRANGER, a_hold, an_event
from tests.metering.stores import LossyLane, LossyStore

pytestmark = pytest.mark.django_db(transaction=True)


def spooled(root: Path, act: Callable[[Spool], Any]) -> None:
    """A spool that `act` fills and whose process is dead then."""
    spool = Spool(root, 64 * 2**20)

    async def fill() -> None:
        await act(spool)

    asyncio.run(fill())
    spool.close()


def calls(root: Path, *pairs: tuple[HoldRow, EventRow | None]) -> None:
    """Calls that went out without the database; those with an event were answered."""

    async def act(spool: Spool) -> None:
        for hold, _ in pairs:
            await spool.hold(hold)
        for _, event in pairs:
            if event is not None:
                await ended(spool, event)

    spooled(root, act)


async def ended(spool: Spool, event: EventRow) -> None:
    durable = asyncio.Event()
    spool.event(event, durable.set)
    await durable.wait()


def held(*holds: HoldRow) -> UUID:
    """Holds that were committed before the database went away, by a writer that is dead by now."""
    writer = uuid4()

    async def write() -> None:
        lane = await current_store().open_lane("test")
        await lane.hold(writer, 1, holds, None)
        await lane.close()

    asyncio.run(write())
    return writer


def drain(root: Path, store: Store | None = None) -> int:
    real = store or current_store()
    try:
        return drain_abandoned(real, root)
    finally:
        real.close()


def sweep(after: int = 60) -> int:
    store = current_store()
    try:
        return sweeper.sweep(store, a_card(), lambda: NOON + timedelta(seconds=after))
    finally:
        store.close()


def drifts() -> list[str]:
    return [str(drift) for drift in rollups.check_day(NOON.date())]


def left_over(root: Path) -> list[str]:
    return [path.name for path in root.rglob("*")]


def test_a_call_of_the_spool_is_one_event_and_its_day(tmp_path: Path) -> None:
    hold = a_hold()
    event = an_event(hold)
    calls(tmp_path, (hold, event))
    assert drain(tmp_path) == 0
    stored = UsageEvent.objects.get()
    assert (stored.id, stored.charge_total, stored.tokens_total) == (event.id, event.charge_total, 15)
    assert (Hold.objects.count(), drifts(), left_over(tmp_path)) == (0, [], [])


def test_an_event_whose_hold_was_committed_ends_that_hold(tmp_path: Path) -> None:
    hold = a_hold()
    held(hold)

    async def act(spool: Spool) -> None:
        await ended(spool, an_event(hold))

    spooled(tmp_path, act)
    drain(tmp_path)
    assert (UsageEvent.objects.count(), Hold.objects.count(), drifts()) == (1, 0, [])


def test_a_call_that_never_ended_is_swept_as_interrupted(tmp_path: Path) -> None:
    hold, other = a_hold(), a_hold(STRANGER)
    calls(tmp_path, (hold, None), (other, an_event(other)))
    drain(tmp_path)
    assert sweep() == 1
    event = UsageEvent.objects.get(customer_id=PAYER)
    assert (event.status, event.execution_id, event.charge_total) == ("interrupted", str(hold.id), 0)
    assert (UsageEvent.objects.count(), Hold.objects.count(), drifts()) == (2, 0, [])


def test_a_call_that_never_went_out_leaves_nothing(tmp_path: Path) -> None:
    hold = a_hold()

    async def act(spool: Spool) -> None:
        await spool.hold(hold)
        spool.drop(hold)

    spooled(tmp_path, act)
    drain(tmp_path)
    sweep()
    assert (UsageEvent.objects.count(), Hold.objects.count(), left_over(tmp_path)) == (0, 0, [])


def test_a_late_event_corrects_what_a_sweep_has_written(tmp_path: Path) -> None:
    hold = a_hold()
    held(hold)

    async def act(spool: Spool) -> None:
        await ended(spool, an_event(hold))

    spooled(tmp_path, act)
    for seconds in (0, 10, 20):
        sweep(seconds)
    assert UsageEvent.objects.get().status == "interrupted"
    drain(tmp_path)
    assert UsageEvent.objects.count() == 1 and UsageCorrection.objects.count() == 2
    assert (drifts(), QuarantinedRow.objects.count()) == ([], 0)


def test_a_hold_that_was_sent_and_was_committed_is_not_made_twice(tmp_path: Path) -> None:
    ended_one, lost_one = a_hold(), a_hold()
    writer = held(ended_one, lost_one)

    async def act(spool: Spool) -> None:
        for hold in (ended_one, lost_one):
            spool.expect(hold.id)
            await spool.hold(hold, writer)
        await ended(spool, an_event(ended_one))

    spooled(tmp_path, act)
    drain(tmp_path)
    sweep()
    assert sorted(UsageEvent.objects.values_list("status", flat=True)) == ["interrupted", "ok"]
    assert (Hold.objects.count(), drifts()) == (0, [])


def test_a_call_whose_key_stands_for_another_payload_by_now_counts_by_itself(tmp_path: Path) -> None:
    first, second = a_hold(claim=Claim("1" * 32, "a" * 32)), a_hold(claim=Claim("1" * 32, "b" * 32))
    calls(tmp_path / "one", (first, an_event(first, claim=first.claim)))
    calls(tmp_path / "two", (second, an_event(second, claim=second.claim)))
    for name in ("one", "two"):
        drain(tmp_path / name)
    charges = [event.charge_total for event in UsageEvent.objects.all()]
    assert charges == [an_event(first).charge_total] * 2 and drifts() == []


def test_attempts_under_one_key_cost_what_the_dearest_does(tmp_path: Path) -> None:
    claim = Claim("1" * 32, "a" * 32)
    first, second = a_hold(claim=claim), a_hold(claim=claim)
    calls(tmp_path, (first, an_event(first, claim=claim)), (second, an_event(second, claim=claim)))
    drain(tmp_path)
    charges = sorted(event.charge_total or 0 for event in UsageEvent.objects.all())
    assert charges == [0, an_event(first).charge_total] and drifts() == []


def test_one_bad_row_keeps_nobody_else_out(tmp_path: Path) -> None:
    good, bad = a_hold(), a_hold()
    calls(tmp_path, (good, an_event(good)), (bad, an_event(bad, charge_total=Decimal(10) ** 20)))
    drain(tmp_path)
    assert UsageEvent.objects.filter(execution_id=str(good.id)).count() == 1
    assert (UsageEvent.objects.count(), QuarantinedRow.objects.count()) == (1, 1)
    assert (Hold.objects.count(), left_over(tmp_path), drifts()) == (0, [], [])


def test_a_torn_end_is_cut_off_and_what_is_whole_is_drained(tmp_path: Path) -> None:
    first, second = a_hold(), a_hold()
    calls(tmp_path, (first, an_event(first)), (second, an_event(second)))
    file = next(tmp_path.glob("*/*.spool"))
    file.write_bytes(file.read_bytes()[:-3])
    drain(tmp_path)
    sweep()
    statuses = {event.execution_id: event.status for event in UsageEvent.objects.all()}
    assert statuses == {str(first.id): "ok", str(second.id): "interrupted"}
    assert (left_over(tmp_path), drifts()) == ([], [])


def test_a_damaged_file_is_drained_as_far_as_it_goes_and_kept(tmp_path: Path) -> None:
    first, second = a_hold(), a_hold()
    calls(tmp_path, (first, an_event(first)), (second, an_event(second)))
    file = next(tmp_path.glob("*/*.spool"))
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    file.write_bytes(bytes(content))
    drain(tmp_path)
    assert [path.suffix for path in tmp_path.glob("*/*.damaged")] == [".damaged"]
    assert drain(tmp_path) == 0


def test_the_periodic_sweep_drains_before_it_sweeps(tmp_path: Path, settings: Any) -> None:
    settings.TOLLGATE = {**settings.TOLLGATE, "SPOOL_DIR": str(tmp_path)}
    hold = a_hold()
    Writer.objects.filter(id=held(hold)).update(fenced_at=NOON)

    async def act(spool: Spool) -> None:
        await ended(spool, an_event(hold))

    spooled(tmp_path, act)
    assert tasks.sweep() == 0
    assert (UsageEvent.objects.get().status, UsageCorrection.objects.count()) == ("ok", 0)
    assert left_over(tmp_path) == []


# --- killed at every step


class Killed(Unavailable):
    """What a killed process leaves: the statement may have been applied, and nothing follows it."""


class MortalStore(LossyStore):
    """A real store whose user is killed at his step number `steps`: `before` the statement arrives, or after."""

    def __init__(self, store: Store, steps: int, *, before: bool) -> None:
        super().__init__(store)
        self._steps, self._before = steps, before

    async def open_lane(self, name: str) -> Lane:
        return MortalLane(self, await self.store.open_lane(name))

    def retire(self, writers: Iterable[UUID]) -> None:
        self.arrive()
        super().retire(writers)
        self.leave()

    def arrive(self) -> None:
        self._steps -= 1
        if self._steps == 0 and self._before:
            raise Killed("before")

    def leave(self) -> None:
        if self._steps <= 0:
            raise Killed("after")

    @property
    def lived(self) -> bool:
        return self._steps > 0


class MortalLane(LossyLane):
    """A lane of a MortalStore."""

    def __init__(self, network: MortalStore, lane: Lane) -> None:
        super().__init__(network, lane)
        self._mortal = network

    async def hold(
        self, writer: UUID, seq: int, rows: Sequence[HoldRow], contribution: Contribution | None
    ) -> Held:
        self._mortal.arrive()
        found = await super().hold(writer, seq, rows, contribution)
        self._mortal.leave()
        return found

    async def settle(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], contribution: Contribution | None
    ) -> set[UUID]:
        self._mortal.arrive()
        found = await super().settle(writer, seq, rows, contribution)
        self._mortal.leave()
        return found

    async def correct(self, rows: Sequence[EventRow]) -> set[UUID]:
        self._mortal.arrive()
        found = await super().correct(rows)
        self._mortal.leave()
        return found


@pytest.mark.parametrize("swept", [False, True], ids=["at once", "after a sweep"])
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_drain_killed_at_any_step_is_finished_by_the_next_one(
    tmp_path: Path, before: bool, swept: bool
) -> None:
    step, lived = 0, False
    while not lived:
        step += 1
        root = tmp_path / str(step)
        whole, cut, committed = (a_hold(at=NOON + timedelta(seconds=step)) for _ in range(3))
        sent_writer = held(committed)

        async def act(spool: Spool) -> None:
            await spool.hold(whole)  # noqa: B023  (used before the next turn)
            await spool.hold(cut)  # noqa: B023
            spool.expect(committed.id)  # noqa: B023
            await spool.hold(committed, sent_writer)  # noqa: B023
            await ended(spool, an_event(whole))  # noqa: B023
            await ended(spool, an_event(committed))  # noqa: B023

        spooled(root, act)
        mortal = MortalStore(current_store(), step, before=before)
        drain(root, mortal)
        lived = mortal.lived
        if swept:
            for seconds in (100, 110, 120):
                sweep(seconds)
        assert drain(root) == 0
        sweep(200)
        events = UsageEvent.objects.filter(execution_id__in=[str(one.id) for one in (whole, cut, committed)])
        assert sorted(events.values_list("execution_id", flat=True)) == sorted(
            str(one.id) for one in (whole, cut, committed)
        ), step
        assert (Hold.objects.count(), QuarantinedRow.objects.count(), drifts()) == (0, 0, []), step
        # each read 10 tokens, by the estimate where it did not end; the two that ended wrote 5 and are charged
        day = DailyUsage.objects.aggregate(
            read=Sum("tokens_input"), wrote=Sum("tokens_output"), charged=Sum("charge_total")
        )
        expected = {"read": step * 3 * 10, "wrote": step * 2 * 5, "charged": step * 2 * Decimal("0.00012")}
        assert day == expected, step
        assert left_over(root) == []
    assert step > 4
