"""The recorder: takes holds and settlements from calls, and answers each once it is durable.

Batches form by themselves: while one is being written the next one gathers. What is waiting is in memory for as long as a
commit takes, and nothing is answered before. How a batch is written is `metering.store`; what happens when that fails is
`metering.batching`.
"""

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from metering.batching import Batch, Phase, rows_of
from metering.gate import Gate
from metering.pulse import Pulse
from metering.rows import EventRow, HoldRow
from metering.store.base import Lane, Store, StoreError

log = logging.getLogger("metering.recorder")

HOLDS_WAITING_MAX = 10_000  # beyond it new calls are refused: the queue is memory
ANSWER_DEADLINE_S = 10.0


class RecorderUnavailable(Exception):
    """The database cannot take a hold in time. The call must not go out."""


class HoldPhase(Phase[HoldRow]):
    """Writes holds. The answer is whether the call is admitted."""

    name = "hold"

    def __init__(
        self, store: Store, gate: Gate, deadline_s: float, unclaimed: Callable[[HoldRow], None]
    ) -> None:
        super().__init__(store, deadline_s)
        self._gate, self._unclaimed = gate, unclaimed

    async def apply(self, lane: Lane, seq: int, batch: Batch[HoldRow]) -> set[UUID]:
        rows = rows_of(batch)
        return await lane.hold(self.writer, seq, rows, self._gate.hold(rows))

    async def read_back(self, lane: Lane, batch: Batch[HoldRow]) -> set[UUID]:
        return await lane.held([(row.customer_id, row.id) for row in rows_of(batch)])

    async def answer(self, lane: Lane, batch: Batch[HoldRow], done: set[UUID]) -> Batch[HoldRow]:
        again = []
        for waiting in batch:
            if waiting.row.id in done:
                if not waiting.resolve(True):  # its call gave up or was cancelled: it never goes out
                    self._unclaimed(waiting.row)
            elif len(batch) == 1:
                waiting.resolve(False)
            else:  # the sum of a customer's holds did not fit; each by itself may
                again.append(waiting)
        return again


class SettlePhase(Phase[EventRow]):
    """Writes events, daily usage and the end of holds. The answer is always yes: what is refused is put away."""

    name = "settle"

    def __init__(
        self, store: Store, gate: Gate, deadline_s: float, on_settled: Callable[[Sequence[EventRow]], None]
    ) -> None:
        super().__init__(store, deadline_s)
        self._gate, self._on_settled = gate, on_settled

    async def apply(self, lane: Lane, seq: int, batch: Batch[EventRow]) -> set[UUID]:
        rows = rows_of(batch)
        return await lane.settle(self.writer, seq, rows, self._gate.settle(rows))

    async def read_back(self, lane: Lane, batch: Batch[EventRow]) -> set[UUID]:
        return await lane.settled(rows_of(batch))

    async def answer(self, lane: Lane, batch: Batch[EventRow], done: set[UUID]) -> Batch[EventRow]:
        swept = [row for row in rows_of(batch) if row.hold_id not in done]
        if swept:
            await self._correct(lane, swept)
        for waiting in batch:
            waiting.resolve(True)
        self._on_settled([row for row in rows_of(batch) if row.hold_id in done])
        return []

    async def _correct(self, lane: Lane, rows: Sequence[EventRow]) -> None:
        """Their holds are gone: swept while this process was thought dead, or ended by an attempt before."""
        accounted = await lane.correct(rows)
        for row in rows:
            if row.hold_id not in accounted:
                log.error("event %s has neither a hold nor a swept event; quarantined", row.id)
                await lane.quarantine(row, "its hold is gone and no event accounts for it")


class Recorder:
    """Writes both phases to a store. Starts by itself at the first use, in the loop that uses it; aware of forks."""

    def __init__(
        self,
        store: Store,
        gate: Gate,
        *,
        on_settled: Callable[[Sequence[EventRow]], None] = lambda rows: None,
        deadline_s: float = ANSWER_DEADLINE_S,
        beat_s: float = 5.0,  # the sweeper calls a writer dead after three looks, 10 s apart, at one beat
    ) -> None:
        self._store, self._gate, self._on_settled = store, gate, on_settled
        self._deadline_s, self._beat_s = deadline_s, beat_s
        self._pid = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._releases: set[asyncio.Task[None]] = set()

    async def hold(self, row: HoldRow) -> bool:
        """Commit a hold. False when the gate's SQL did not admit it. Raises RecorderUnavailable; the call must not go out
        then, and a hold that is committed afterwards is released by itself."""
        self._ensure_running()
        if len(self._holds.queue) >= HOLDS_WAITING_MAX:
            raise RecorderUnavailable("too many calls are waiting to be recorded")
        try:
            return await self._holds.add(row)
        except TimeoutError as error:
            raise RecorderUnavailable("the hold was not committed in time") from error

    def settle(self, row: EventRow) -> "asyncio.Future[bool]":
        """Queue an event, which also ends its hold. The future resolves once it is committed, or raises TimeoutError when
        that takes too long to wait for; the row stays queued and is written as soon as the database takes it."""
        self._ensure_running()
        return self._settles.add(row)

    async def release(self, row: HoldRow) -> None:
        """End the hold of a call that never went out, without an event. Raises nothing: what fails here is swept."""
        try:
            lane = await self._store.open_lane("release")
            try:
                await lane.release([row])
            finally:
                await lane.close()
        except StoreError as error:
            log.warning("hold %s not released, the sweep will end it: %s", row.id, error)

    async def stop(self, timeout_s: float = 20.0) -> None:
        """Write what is queued, then close. What cannot be written in time keeps its hold and is swept."""
        if self._pid != os.getpid():
            return
        for phase in (self._holds, self._settles):
            phase.stop()
        await _end_all(self._tasks, timeout_s)
        await _end_all(self._releases, timeout_s)
        for phase in (self._holds, self._settles):
            phase.end()
            await phase.close()
        self._pulse.stop()
        self._store.close()
        self._pid = 0

    def status(self) -> dict[str, Any]:
        """What is waiting, for /readyz and the metrics."""
        if self._pid != os.getpid():
            return {"started": False, "running": True, "holds_waiting": 0, "settles_waiting": 0}
        return {
            "started": True,
            "running": all(not task.done() for task in self._tasks),
            "holds_waiting": len(self._holds.queue) + len(self._holds.in_flight),
            "settles_waiting": len(self._settles.queue) + len(self._settles.in_flight),
        }

    def _ensure_running(self) -> None:
        if self._pid == os.getpid():
            return
        # The first use, or a fork: a writer's numbers and connections belong to one process.
        self._holds = HoldPhase(self._store, self._gate, self._deadline_s, self._release_unclaimed)
        self._settles = SettlePhase(self._store, self._gate, self._deadline_s, self._on_settled)
        self._pulse = Pulse(self._store, lambda: (self._holds.writer, self._settles.writer), self._beat_s)
        self._pulse.start()
        self._pid = os.getpid()
        self._tasks = [asyncio.create_task(self._holds.run()), asyncio.create_task(self._settles.run())]

    def _release_unclaimed(self, row: HoldRow) -> None:
        task = asyncio.ensure_future(self.release(row))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)


async def _end_all(tasks: Iterable[asyncio.Task[None]], timeout_s: float) -> None:
    """Wait for tasks; cancel those that are not done in time."""
    waited = list(tasks)
    if not waited:
        return
    _, pending = await asyncio.wait(waited, timeout=timeout_s)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
