"""One phase of the recorder: a queue, the task that empties it in batches, and what to do when a batch fails.

* Outcome unknown → the same batch again, under the same number, on a new connection, until the database answers.
* Number refused → it was applied after all (done), or the writer is fenced (a new writer id, and the batch again).
* A lock held by somebody else → by customer; a customer who is locked alone goes to the end of the queue.
* A value refused → halves, until the bad row stands alone; that one goes to quarantine.

The task survives whatever a batch raises, and no row leaves it without an answer.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar
from uuid import UUID, uuid4

from metering.rows import EventRow, HoldRow
from metering.store.base import BadRow, Lane, Locked, SequenceRefused, Store, Unavailable

log = logging.getLogger("metering.recorder")

BATCH_MAX = 500
# Where several calls share a batch, a few turns of the event loop bring more of them: those whose answer has just come are
# about to call again. A turn costs next to nothing when nobody comes, where a timer would keep everybody waiting (3 ms: a
# third of the calls at 16 connections). A caller who is alone is never made to wait.
LINGER_SIZES, LINGER_TURNS = range(3, 17), 4
PATIENCE_S = 3.0  # for which a batch may make no headway before the database counts as away
BACKOFF_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)

Row = TypeVar("Row", HoldRow, EventRow)


class Answer(Protocol):
    """What a call waits for: a future, or what can be told like one."""

    def done(self) -> bool: ...

    def set_result(self, result: bool, /) -> None: ...

    def set_exception(self, exception: Exception, /) -> None: ...


class Waiting(Generic[Row]):
    """A row in the queue, the answer that its call waits for, and until when it waits (the loop's clock). `spools`: it need
    not wait for a database that is away; `was_sent`: the database may have it already."""

    __slots__ = ("answer", "row", "spools", "until", "was_sent")

    def __init__(self, row: Row, answer: Answer, until: float, *, spools: bool = False) -> None:
        self.row: Row = row
        self.answer, self.until, self.spools, self.was_sent = answer, until, spools, False

    def resolve(self, value: bool) -> bool:
        """Answer; False when nobody waits any more."""
        if self.answer.done():
            return False
        self.answer.set_result(value)
        return True

    def refuse(self, reason: Exception) -> None:
        """Answer with an exception, where somebody waits."""
        if not self.answer.done():
            self.answer.set_exception(reason)


Batch = list[Waiting[Row]]


class Phase(ABC, Generic[Row]):
    """A queue, the lane that empties it, and the writer's row that numbers its batches."""

    name: str

    def __init__(self, store: Store, deadline_s: float) -> None:
        self.writer = uuid4()
        self.seq = 0  # number of the last batch that is known to be applied
        self.queue: deque[Waiting[Row]] = deque()
        self.in_flight: Batch[Row] = []
        self._store = store
        self.deadline_s = deadline_s
        self._loop = asyncio.get_running_loop()
        self._overdue = self._loop.call_later(deadline_s / 10, self._give_up)
        self._lane: Lane | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._last_size = 0
        self.is_away = False  # the database, as far as this phase knows
        self._worked_at = self._loop.time()

    @abstractmethod
    async def apply(self, lane: Lane, seq: int, batch: "Batch[Row]") -> "set[UUID]":
        """Write the batch as number `seq` of `self.writer`; what the database answered. Raises StoreError."""

    @abstractmethod
    async def read_back(self, lane: Lane, batch: "Batch[Row]") -> "set[UUID]":
        """Which of the batch are in the database, whoever wrote them and when."""

    @abstractmethod
    def answer(self, batch: "Batch[Row]", done: "set[UUID]") -> "Batch[Row]":
        """Resolve an applied batch; the rows that are to be asked once more. Raises nothing."""

    @abstractmethod
    def hold_id(self, row: Row) -> UUID:
        """The hold that the row makes or ends: what the database names in its answers."""

    def still_wanted(self, waiting: Waiting[Row]) -> bool:
        """Whether a row has to be written although nobody may be waiting for it any more."""
        return True

    def went_away(self) -> None:
        """The database does not answer; the batch in hand goes on asking, and so finds out when it does. Raises nothing."""

    def gave_up(self, waiting: Waiting[Row]) -> bool:
        """Whoever waits for this row is about to be told that it takes too long; whether he gets another answer instead.
        Raises nothing."""
        return False

    def left(self, waiting: Waiting[Row]) -> None:
        """The database has answered for this row, or it goes back into the queue. Raises nothing."""

    def add(self, row: Row, answer: Answer, *, spools: bool = False) -> Waiting[Row]:
        """Queue a row. The answer is told once it is durable, and a TimeoutError when that takes too long; the row goes its
        way whatever becomes of the answer."""
        waiting = Waiting(row, answer, self._loop.time() + self.deadline_s, spools=spools)
        self.queue.append(waiting)
        self._wake.set()
        return waiting

    async def run(self) -> None:
        """Empty the queue until told to stop."""
        while not (self._stopping and not self.queue):
            await self._wake.wait()
            self._wake.clear()
            while self.queue:
                if self._last_size in LINGER_SIZES:
                    await self._linger()
                taken = [self.queue.popleft() for _ in range(min(len(self.queue), BATCH_MAX))]
                self.in_flight = [waiting for waiting in taken if self.still_wanted(waiting)]
                for waiting in self.in_flight:
                    waiting.was_sent = True
                self._worked_at = self._loop.time()
                await self._write(self.in_flight)
                for waiting in self.in_flight:
                    self.left(waiting)
                self._last_size = len(self.in_flight)
                self.in_flight = []
            self.is_away = False  # nothing is on its way that would find out: the next row does

    async def _linger(self) -> None:
        """Let those come along who are on their way."""
        for _ in range(LINGER_TURNS):
            if len(self.queue) >= LINGER_SIZES.stop:
                return
            await asyncio.sleep(0)

    def stop(self) -> None:
        """Let `run` end once the queue is empty."""
        self._stopping = True
        self._wake.set()

    async def close(self) -> None:
        """Throw the connection away."""
        lane, self._lane = self._lane, None
        if lane is not None:
            await lane.close()

    def end(self) -> None:
        """After `run`: no timer is left behind, and nobody waits for ever."""
        self._overdue.cancel()
        for waiting in (*self.in_flight, *self.queue):
            if not waiting.answer.done():
                waiting.answer.set_exception(TimeoutError("the recorder has stopped"))

    def _give_up(self) -> None:
        """Tell those who have waited too long; one timer for all costs less than one for each."""
        now = self._loop.time()
        for waiting in list(self.in_flight):
            self._give_up_on(waiting, now)
        for waiting in list(self.queue):
            self._give_up_on(waiting, now)
        if self.in_flight and now - self._worked_at > PATIENCE_S:
            self._is_failing()
        self._overdue = self._loop.call_later(self.deadline_s / 10, self._give_up)

    def _give_up_on(self, waiting: Waiting[Row], now: float) -> None:
        if waiting.until <= now and not waiting.answer.done() and not self.gave_up(waiting):
            waiting.answer.set_exception(TimeoutError())

    def _is_failing(self) -> None:
        if not self.is_away:
            self.is_away = True
            self.went_away()

    async def _write(self, batch: "Batch[Row]") -> None:
        parts, failures, unknown = deque([batch] if batch else []), 0, False
        while parts:
            try:
                again = await self._write_once(parts[0])
                parts.popleft()
                parts.extend(again)
                failures, unknown = 0, False
                self.is_away, self._worked_at = False, self._loop.time()
                continue
            except BadRow as error:
                await self._divide(parts, error)
                continue
            except Locked as error:
                log.warning("%s batch met a lock: %s", self.name, error)
                # After a lost connection the same number is asked for again: the other one may still be committing.
                if not unknown:
                    self._set_aside(parts)
            except Unavailable as error:
                unknown = True
                log.warning("%s batch of %d: outcome unknown: %s", self.name, len(parts[0]), error)
                if failures:  # one connection may break; when the next one fails as well it is the database
                    self._is_failing()
                await self.close()
            except Exception:  # a bug must not end the task: every call of the process would hang
                unknown = True
                log.exception("%s batch of %d failed in an unforeseen way", self.name, len(parts[0]))
                await self.close()
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
            failures += 1

    async def _write_once(self, batch: "Batch[Row]") -> "list[Batch[Row]]":
        """Write the batch under the next number; what of it is to be written again. Until the number is known to be
        applied it is not moved on, and from then on nothing here can fail."""
        if self._lane is None:
            self._lane = await self._store.open_lane(self.name)
        lane, seq = self._lane, self.seq + 1
        try:
            done = await self.apply(lane, seq, batch)
        except SequenceRefused:
            applied = await self._was_applied(lane, seq)
            done = await self.read_back(lane, batch)
            if not applied:
                return self._under_a_new_id(batch, done)
        self.seq = seq
        again = [waiting for waiting in self.answer(batch, done) if self.still_wanted(waiting)]
        return [again] if again else []

    async def _was_applied(self, lane: Lane, seq: int) -> bool:
        """Whether the refused number was applied before. Otherwise the writer was fenced, or its row is not the one that
        was written last: a database that was restored, or a standby that took over too early."""
        state = await lane.writer_state(self.writer)
        if state is not None and state.seq == seq:
            return True
        log.warning("%s writer %s cannot go on after number %d: %s", self.name, self.writer, seq - 1, state)
        return False

    def _under_a_new_id(self, batch: "Batch[Row]", done: "set[UUID]") -> "list[Batch[Row]]":
        """A new identity, whose numbers start anew; what is in the database already is not written again."""
        self.writer, self.seq = uuid4(), 0
        rest = []
        for waiting in batch:
            if self.hold_id(waiting.row) in done:
                waiting.resolve(True)
            else:
                rest.append(waiting)
        return [rest] if rest else []

    async def _divide(self, parts: "deque[Batch[Row]]", error: BadRow) -> None:
        """Halve the first part; a row that stands alone is put away with the reason."""
        batch = parts[0]
        if len(batch) > 1:
            parts.popleft()
            middle = len(batch) // 2
            parts.extendleft([batch[middle:], batch[:middle]])
            return
        try:
            if self._lane is None:
                self._lane = await self._store.open_lane(self.name)
            await self._lane.quarantine(batch[0].row, str(error))
        except Exception as failure:  # noqa: BLE001  the table of the quarantine is out of reach: later, with the batch
            log.warning("%s row %s cannot be put away yet: %s", self.name, batch[0].row.id, failure)
            await self.close()
            await asyncio.sleep(BACKOFF_S[-1])
            return
        log.error(
            "%s row %s is refused by the database and was quarantined: %s", self.name, batch[0].row.id, error
        )
        batch[0].resolve(isinstance(batch[0].row, EventRow))
        parts.popleft()

    def _set_aside(self, parts: "deque[Batch[Row]]") -> None:
        """Split the first part by customer; one who is locked alone waits at the end, so that the others go on."""
        by_customer: dict[UUID, Batch[Row]] = {}
        for waiting in parts[0]:
            by_customer.setdefault(waiting.row.customer_id, []).append(waiting)
        part = parts.popleft()
        if len(by_customer) > 1:
            parts.extendleft(reversed(by_customer.values()))
        elif parts or self.queue:
            self.queue.extend(part)
            self._wake.set()
        else:
            parts.append(part)


def rows_of(batch: "Batch[Row]") -> Sequence[Row]:
    """The rows of a batch, in order."""
    return [waiting.row for waiting in batch]
