"""The recorder: takes holds and settlements from calls, and answers each once it is durable.

Batches form by themselves: while one is being written the next one gathers. What is waiting is in memory for as long as a
commit takes, and nothing is answered before. How a batch is written is `metering.store`; what happens when that fails is
`metering.batching`. While the database is away, what need not wait for it goes to the spool, where there is one
(`metering.spool`); the batch that was in hand then goes on asking for it.
"""

import asyncio
import logging
import math
import os
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from uuid import UUID

from metering.batching import BACKOFF_S, BATCH_MAX, Answer, Batch, Phase, Waiting, rows_of
from metering.gate import Gate
from metering.late import correct_surely
from metering.limits import Exceeded, LimitExceeded
from metering.pulse import Pulse
from metering.rows import EventRow, HoldRow
from metering.spool import Drainer, Spool, SpoolFull
from metering.store.base import Lane, Store, StoreError

log = logging.getLogger("metering.recorder")

HOLDS_WAITING_MAX = 10_000  # beyond it new calls are refused: the queue is memory
ANSWER_DEADLINE_S = 10.0
STOP_WHILE_AWAY_S = 1.0


class RecorderUnavailable(Exception):
    """The database cannot take a hold in time. The call must not go out."""


class Away(TimeoutError):
    """The database is away: who can do without it does not wait any longer."""


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
        self.overflow: Overflow | None = None
        # Holds of the batch in hand.
        self._conflicting: set[UUID] = set()
        self._exceeded: dict[UUID, Exceeded] = {}
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
                waiting.refuse(LimitExceeded(*self._exceeded[hold_id]))
            elif hold_id in self._undecided:
                again.append(waiting)
            else:
                waiting.resolve(False)
        return again

    def hold_id(self, row: HoldRow) -> UUID:
        return row.id

    def still_wanted(self, waiting: Waiting[HoldRow]) -> bool:
        return not waiting.answer.done()  # a call that gave up before its hold was ever sent needs none

    def went_away(self) -> None:
        if self.overflow is not None:
            self.overflow.spill()

    def gave_up(self, waiting: Waiting[HoldRow]) -> bool:
        if self.overflow is not None and waiting.spools and waiting.was_sent:
            self.overflow.spool.expect(waiting.row.id)
        return False  # the call comes to the spool by itself

    def left(self, waiting: Waiting[HoldRow]) -> None:
        if self.overflow is not None:
            self.overflow.spool.resolved(waiting.row.id)


class SettlePhase(Phase[EventRow]):
    """Writes events, daily usage and the end of holds. The answer is always yes: what is refused is put away."""

    name = "settle"

    def __init__(
        self, store: Store, gate: Gate, deadline_s: float, on_settled: Callable[[Sequence[EventRow]], None]
    ) -> None:
        super().__init__(store, deadline_s)
        self._gate, self._on_settled = gate, on_settled
        self.overflow: Overflow | None = None
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

    def went_away(self) -> None:
        if self.overflow is not None:
            self.overflow.spill()

    def show_gate(self, row: EventRow) -> None:
        """Have the gate see a settlement whose SQL somebody else contributes."""
        try:
            self._gate.settle([row])
        except Exception:  # the event is spooled whatever becomes of limits
            log.exception("the gate cannot count event %s", row.id)

    def gave_up(self, waiting: Waiting[EventRow]) -> bool:
        if self.overflow is None or not waiting.spools:
            return False
        waiting.spools, waiting.until = False, math.inf
        self.overflow.take(
            waiting.row, waiting.answer, queue=None
        )  # it stays in the queue: whoever is second does nothing
        return True


class Overflow:
    """What becomes of both queues while the database is away."""

    def __init__(self, spool: Spool, holds: HoldPhase, settles: SettlePhase) -> None:
        self.spool, self._holds, self._settles = spool, holds, settles
        holds.overflow = settles.overflow = self

    @property
    def is_on(self) -> bool:
        """Whether the database is away, as far as is known. Asked from other threads as well."""
        return self._holds.is_away or self._settles.is_away

    def spill(self) -> None:
        """Take over what waits. The holds are told, and come by themselves; of the events, those that were not sent yet leave
        their queue."""
        for hold in (*self._holds.in_flight, *self._holds.queue):
            if hold.spools and not hold.answer.done():
                self._holds.gave_up(hold)
                hold.refuse(Away())
        unsent = [event for event in self._settles.queue if not event.was_sent]
        kept = [event for event in self._settles.queue if event.was_sent]
        self._settles.queue.clear()
        self._settles.queue.extend(kept)
        for event in (*self._settles.in_flight, *kept, *unsent):
            if event.spools:
                event.spools = False
                if event.was_sent:
                    self.take(event.row, event.answer, queue=None)
                else:
                    self.take_unsent(event.row, event.answer)

    def take_unsent(self, row: EventRow, answer: Answer) -> None:
        """Spool an event that the gate has not seen yet: what it counts in the process counts now, and not at the drain."""
        self._settles.show_gate(row)
        self.take(row, answer, queue=None if self.spool.owns(row.hold_id) else self._settles)

    def take(self, row: EventRow, answer: Answer, *, queue: SettlePhase | None) -> None:
        """Spool an event. Where that fails it goes back to the `queue`, unless its hold is in the spool alone."""

        def durable() -> None:
            if not answer.done():
                answer.set_result(True)

        try:
            self.spool.event(row, durable)
        except (ValueError, TypeError):
            log.exception("event %s cannot be spooled", row.id)
            if queue is not None:
                queue.add(row, answer)
        else:
            loop = asyncio.get_running_loop()
            loop.call_later(self._settles.deadline_s, _tell_late, answer)


def _tell_late(answer: Answer) -> None:
    if not answer.done():
        answer.set_exception(TimeoutError("the spool takes nothing; it is tried on"))


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
        spool: Spool | None = None,  # without one nothing goes out while the database is away
    ) -> None:
        self._store, self._gate, self._on_settled = store, gate, on_settled
        self.spool = spool
        self._deadline_s, self._beat_s = deadline_s, beat_s
        self._started = False
        self._overflow: Overflow | None = None
        self._drainer: Drainer | None = None
        _recorders.add(self)
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    def start(self) -> None:
        """Take calls (again). Without it the first call starts the recorder; after `stop` only this does. With a spool it
        starts at once, within a running loop: what a process before has left is not to wait for a call."""
        self._stopped = False
        if self.spool is not None:
            self._is_running()

    async def hold(self, row: HoldRow, *, spools: bool = False) -> bool:
        """Commit a hold; `spools`: or spool it while the database is away. False when the gate's SQL did not admit it. Raises
        LimitExceeded, KeyConflict and RecorderUnavailable; the call must not go out then, and a hold that is committed
        afterwards is released by itself."""
        if self._stopped or not self._is_running():
            raise RecorderUnavailable("the recorder has stopped")
        spools = spools and self._overflow is not None
        if spools and self._is_away:
            return await self._spool_hold(row)
        if len(self._holds.queue) >= HOLDS_WAITING_MAX:
            raise RecorderUnavailable("too many calls are waiting to be recorded")
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        waiting = self._holds.add(row, answer, spools=spools)
        try:
            return await answer
        except TimeoutError as error:
            if spools:
                return await self._spool_hold(row, self._holds.writer if waiting.was_sent else None)
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
        overflow = self._overflow if self._started else None
        if overflow is not None and overflow.spool.owns(row.hold_id):
            overflow.take_unsent(row, answer)
        elif self._stopped or not self._is_running():
            answer.set_exception(TimeoutError("the recorder has stopped; the hold will be swept"))
        elif overflow is not None and overflow.is_on:
            overflow.take_unsent(row, answer)
        else:
            self._settles.add(row, answer, spools=overflow is not None)

    async def release(self, row: HoldRow) -> None:
        """End the hold of a call that never went out, without an event. Waits until it is done; repeats until it is."""
        if self._stopped or not self._is_running():
            return
        if self.spool is not None and self.spool.owns(row.id):
            self.spool.drop(row)
        else:
            await self._releases.add(row)

    async def stop(self, timeout_s: float = 20.0) -> None:
        """Write what is queued, then close. What cannot be written in time keeps its hold and is swept."""
        self._stopped = True
        if not self._started:
            return
        for phase in (self._holds, self._settles):
            phase.stop()
        if self._is_away:  # what waits is spooled
            timeout_s = min(timeout_s, STOP_WHILE_AWAY_S)
        await _end_all(self._tasks, timeout_s)
        await _end_all([*self._settles.corrections, *self._releases.tasks], timeout_s)
        for phase in (self._holds, self._settles):
            phase.end()
            await phase.close()
        if self.spool is not None and self._drainer is not None:
            await asyncio.to_thread(self._drainer.stop)
            await asyncio.to_thread(self.spool.close)
        await asyncio.to_thread(self._pulse.stop)
        self._started = False

    def status(self) -> dict[str, Any]:
        """What is waiting, for /readyz and the metrics."""
        spool = self.spool.status() if self.spool is not None else None
        if not self._started:
            return {
                "started": False, "running": True, "holds_waiting": 0, "settles_waiting": 0, "is_away": False, "spool": spool,
            }  # fmt: skip
        return {
            "started": True,
            "running": all(not task.done() for task in self._tasks),
            "holds_waiting": len(self._holds.queue) + len(self._holds.in_flight),
            "settles_waiting": len(self._settles.queue) + len(self._settles.in_flight),
            "is_away": self._is_away,
            "spool": spool,
        }

    def _is_running(self) -> bool:
        """Start at the first use and after a fork: a writer's numbers and connections belong to one process."""
        if not self._started:
            self._releases = Releases(self._store)
            self._holds = HoldPhase(self._store, self._gate, self._deadline_s, self._release_unclaimed)
            self._settles = SettlePhase(self._store, self._gate, self._deadline_s, self._on_settled)
            self._pulse = Pulse(self._store, lambda: (self._holds.writer, self._settles.writer), self._beat_s)
            self._pulse.start()
            self._overflow = Overflow(self.spool, self._holds, self._settles) if self.spool else None
            self._drainer = self._start_drainer()
            self._started = True
            self._tasks = [asyncio.create_task(self._holds.run()), asyncio.create_task(self._settles.run())]
        return True

    def _start_drainer(self) -> Drainer | None:
        if self._overflow is None:
            return None
        overflow = self._overflow
        drainer = Drainer(overflow.spool, self._store, lambda: not overflow.is_on, self._on_settled)
        drainer.start()
        return drainer

    @property
    def _is_away(self) -> bool:
        return self._overflow is not None and self._overflow.is_on

    async def _spool_hold(self, row: HoldRow, writer: UUID | None = None) -> bool:
        """Let a call go out without the database. `writer`: under which its hold was sent there all the same."""
        if self.spool is None:
            raise RecorderUnavailable("there is no spool")
        try:
            await self.spool.hold(row, writer)
        except SpoolFull as error:
            if writer is not None:
                self._releases.add(row)
            raise RecorderUnavailable(str(error)) from error
        return True

    def _release_unclaimed(self, row: HoldRow) -> None:
        """A hold was committed for which nobody waits any more. One that is in the spool as well stays: it is settled."""
        if self.spool is None or not self.spool.expects(row.id):
            self._releases.add(row)


_recorders: "weakref.WeakSet[Recorder]" = weakref.WeakSet()


def _forget_in_child() -> None:
    """After a fork the child's recorders are not the ones that run: tasks, connections and writer ids are the parent's."""
    for recorder in _recorders:
        recorder._started = False
        if recorder.spool is not None:
            recorder.spool.forget_in_child()


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
