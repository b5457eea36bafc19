"""The recorder: takes holds and settlements from calls, and answers each once it is durable.

Batches form by themselves: while one is being written the next one gathers. What is waiting is in memory for as long as a
commit takes, and nothing is answered before. How a batch is written is `metering.store`; what happens when that fails is
`metering.batching`.
"""

import asyncio
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from metering.batching import BACKOFF_S, BATCH_MAX, Answer, Batch, Phase, Waiting, rows_of
from metering.gate import Gate
from metering.limits import Limit, LimitExceeded
from metering.pulse import Pulse
from metering.rows import EventRow, HoldRow
from metering.store.base import BadRow, Lane, Locked, Store, StoreError

log = logging.getLogger("metering.recorder")

HOLDS_WAITING_MAX = 10_000  # beyond it new calls are refused: the queue is memory
ANSWER_DEADLINE_S = 10.0


class RecorderUnavailable(Exception):
    """The database cannot take a hold in time. The call must not go out."""


class KeyConflict(Exception):
    """The call's idempotency key was used before with other content. The call must not go out."""


class HoldPhase(Phase[HoldRow]):
    """Writes holds. The answer is whether the call is admitted; a KeyConflict where its idempotency key refuses it, a
    LimitExceeded where it does not fit under a limit."""

    name = "hold"

    def __init__(
        self, store: Store, gate: Gate, deadline_s: float, unclaimed: Callable[[HoldRow], object]
    ) -> None:
        super().__init__(store, deadline_s)
        self._gate, self._unclaimed = gate, unclaimed
        # Holds of the batch in hand.
        self._conflicting: set[UUID] = set()
        self._exceeded: dict[UUID, Limit] = {}
        self._undecided: set[UUID] = set()

    async def apply(self, lane: Lane, seq: int, batch: Batch[HoldRow]) -> set[UUID]:
        rows = rows_of(batch)
        held = await lane.hold(self.writer, seq, rows, self._gate.hold(rows))
        self._exceeded, self._undecided = held.exceeded, held.undecided
        await self._ask_keys(lane, rows, held.admitted)
        return held.admitted

    async def read_back(self, lane: Lane, batch: Batch[HoldRow]) -> set[UUID]:
        rows = rows_of(batch)
        done = await lane.held([(row.customer_id, row.id) for row in rows])
        # The answer to them is lost: what is not there was refused, or not even decided.
        self._exceeded, self._undecided = {}, {row.id for row in rows if row.limits and row.id not in done}
        await self._ask_keys(lane, rows, done)
        return done

    async def _ask_keys(self, lane: Lane, rows: Sequence[HoldRow], done: set[UUID]) -> None:
        """Which of the refused were refused by their keys. What a key stands for never changes, so it can be asked now."""
        refused = [
            row
            for row in rows
            if row.id not in done and row.claim is not None and row.id not in self._exceeded
        ]
        self._conflicting = await lane.conflicting(refused) if refused else set()

    def answer(self, batch: Batch[HoldRow], done: set[UUID]) -> Batch[HoldRow]:
        again = []
        for waiting in batch:
            hold_id = waiting.row.id
            if hold_id in done:
                if not waiting.resolve(True):  # its call gave up or was cancelled: it never goes out
                    self._unclaimed(waiting.row)
            elif hold_id in self._conflicting:
                waiting.refuse(KeyConflict())
            elif hold_id in self._exceeded:
                waiting.refuse(LimitExceeded(self._exceeded[hold_id]))
            elif hold_id in self._undecided:
                again.append(waiting)
            else:
                waiting.resolve(False)
        return again

    def hold_id(self, row: HoldRow) -> UUID:
        return row.id

    def still_wanted(self, waiting: Waiting[HoldRow]) -> bool:
        return not waiting.answer.done()  # a call that gave up before its hold was ever sent needs none


class SettlePhase(Phase[EventRow]):
    """Writes events, daily usage and the end of holds. The answer is always yes: what is refused is put away."""

    name = "settle"

    def __init__(
        self, store: Store, gate: Gate, deadline_s: float, on_settled: Callable[[Sequence[EventRow]], None]
    ) -> None:
        super().__init__(store, deadline_s)
        self._gate, self._on_settled = gate, on_settled
        self.corrections: set[asyncio.Task[None]] = set()

    async def apply(self, lane: Lane, seq: int, batch: Batch[EventRow]) -> set[UUID]:
        rows = rows_of(batch)
        return await lane.settle(self.writer, seq, rows, self._gate.settle(rows))

    async def read_back(self, lane: Lane, batch: Batch[EventRow]) -> set[UUID]:
        return await lane.settled(rows_of(batch))

    def answer(self, batch: Batch[EventRow], done: set[UUID]) -> Batch[EventRow]:
        late = [waiting for waiting in batch if waiting.row.hold_id not in done]
        if late:  # on a lane of its own, so that it holds up nobody
            task = asyncio.ensure_future(correct_surely(self._store, late))
            self.corrections.add(task)
            task.add_done_callback(self.corrections.discard)
        settled = [waiting for waiting in batch if waiting.row.hold_id in done]
        for waiting in settled:
            waiting.resolve(True)
        try:
            self._on_settled(rows_of(settled))
        except Exception:  # counting for a dashboard must not stop the books
            log.exception("settled events could not be counted")
        return []

    def hold_id(self, row: EventRow) -> UUID:
        return row.hold_id


async def correct_surely(store: Store, late: Batch[EventRow]) -> None:
    """Book what has no hold any more: it was swept while this process was thought dead, or settled by an attempt before.
    Row by row, until the database has answered for each; repeating changes nothing."""
    waiting, lane, failures = deque(late), None, 0
    while waiting:
        try:
            lane = lane or await store.open_lane("correct")
            await _correct(lane, waiting[0].row)
            waiting.popleft().resolve(True)
            failures = 0
            continue
        except Locked:
            waiting.rotate(-1)
        except Exception as error:  # noqa: BLE001  the database is away: there is nothing to do but to come again
            log.warning("a late settlement is not booked yet: %s", error)
            if lane is not None:
                await lane.close()
                lane = None
        await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
        failures += 1
    if lane is not None:
        await lane.close()


async def _correct(lane: Lane, row: EventRow) -> None:
    try:
        accounted = await lane.correct([row])
        reason = "its hold is gone and no event accounts for it"
    except BadRow as error:
        accounted, reason = set(), str(error)
    if row.hold_id not in accounted:
        log.error("event %s is quarantined: %s", row.id, reason)
        await lane.quarantine(row, reason)


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
        self._started = False
        _recorders.add(self)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    def start(self) -> None:
        """Take calls (again). Without it the first call starts the recorder; after `stop` only this does."""
        self._stopped = False

    async def hold(self, row: HoldRow) -> bool:
        """Commit a hold. False when the gate's SQL did not admit it. Raises LimitExceeded, KeyConflict and RecorderUnavailable; the call
        must not go out then, and a hold that is committed afterwards is released by itself."""
        if self._stopped or not self._is_running():
            raise RecorderUnavailable("the recorder has stopped")
        if len(self._holds.queue) >= HOLDS_WAITING_MAX:
            raise RecorderUnavailable("too many calls are waiting to be recorded")
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._holds.add(row, answer)
        try:
            return await answer
        except TimeoutError as error:
            raise RecorderUnavailable("the hold was not committed in time") from error
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and not answer.exception() and answer.result():
                self._releases.add(row)  # committed in the very moment in which its call was given up
            raise

    def settle(self, row: EventRow) -> "asyncio.Future[bool]":
        """Queue an event, as `book` does. The future is the answer."""
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.book(row, answer)
        return answer

    def book(self, row: EventRow, answer: Answer) -> None:
        """Queue an event, which also ends its hold. The answer is told once it is committed, or a TimeoutError when that takes
        too long to wait for; the row stays queued and is written as soon as the database takes it."""
        if self._stopped or not self._is_running():
            answer.set_exception(TimeoutError("the recorder has stopped; the hold will be swept"))
        else:
            self._settles.add(row, answer)

    async def release(self, row: HoldRow) -> None:
        """End the hold of a call that never went out, without an event. Waits until it is done; repeats until it is."""
        if not self._stopped and self._is_running():
            await self._releases.add(row)

    async def stop(self, timeout_s: float = 20.0) -> None:
        """Write what is queued, then close. What cannot be written in time keeps its hold and is swept."""
        self._stopped = True
        if not self._started:
            return
        for phase in (self._holds, self._settles):
            phase.stop()
        await _end_all(self._tasks, timeout_s)
        await _end_all([*self._settles.corrections, *self._releases.tasks], timeout_s)
        for phase in (self._holds, self._settles):
            phase.end()
            await phase.close()
        await asyncio.to_thread(self._pulse.stop)
        self._started = False

    def status(self) -> dict[str, Any]:
        """What is waiting, for /readyz and the metrics."""
        if not self._started:
            return {"started": False, "running": True, "holds_waiting": 0, "settles_waiting": 0}
        return {
            "started": True,
            "running": all(not task.done() for task in self._tasks),
            "holds_waiting": len(self._holds.queue) + len(self._holds.in_flight),
            "settles_waiting": len(self._settles.queue) + len(self._settles.in_flight),
        }

    def _is_running(self) -> bool:
        """Start at the first use and after a fork: a writer's numbers and connections belong to one process."""
        if not self._started:
            self._releases = Releases(self._store)
            self._holds = HoldPhase(self._store, self._gate, self._deadline_s, self._releases.add)
            self._settles = SettlePhase(self._store, self._gate, self._deadline_s, self._on_settled)
            self._pulse = Pulse(self._store, lambda: (self._holds.writer, self._settles.writer), self._beat_s)
            self._pulse.start()
            self._started = True
            self._tasks = [asyncio.create_task(self._holds.run()), asyncio.create_task(self._settles.run())]
        return True


_recorders: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


def _forget_in_child() -> None:
    """After a fork the child's recorders are not the ones that run: tasks, connections and writer ids are the parent's."""
    for recorder in _recorders:
        recorder._started = False


os.register_at_fork(after_in_child=_forget_in_child)


class Releases:
    """Holds that are to be ended without an event, all on one lane, repeated until the database has taken them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: list[HoldRow] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def tasks(self) -> list[asyncio.Task[None]]:
        """What is under way."""
        return [self._task] if self._task is not None and not self._task.done() else []

    def add(self, row: HoldRow) -> "asyncio.Task[None]":
        """Queue a hold; the task ends when it, and what was queued before, is released."""
        self._rows.append(row)
        if self._task is None or self._task.done():
            self._task = asyncio.ensure_future(self._run())
        return self._task

    async def _run(self) -> None:
        failures = 0
        while self._rows:
            rows = self._rows[:BATCH_MAX]
            try:
                lane = await self._store.open_lane("release")
                try:
                    await lane.release(rows)
                finally:
                    await lane.close()
                del self._rows[: len(rows)]
                failures = 0
            except StoreError as error:
                log.warning("%d holds are not released yet: %s", len(self._rows), error)
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1


async def _end_all(tasks: Iterable[asyncio.Task[None]], timeout_s: float) -> None:
    """Wait for tasks; cancel those that are not done in time."""
    waited = list(tasks)
    if not waited:
        return
    _, pending = await asyncio.wait(waited, timeout=timeout_s)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
