"""From the files of one process into the database: each call once, however often it is begun.

A call of the spool has no hold in the database. It gets one (of nothing: there is no asking any more whether it may go out)
and is settled like any other. Whoever drained these files before and was killed may have got as far as either; so his writer
is fenced first, and then each call is looked up: its hold, its event, the event of a sweep. A call that never ended is left
with its hold under a writer that has ended, which is how the sweep finds it.
"""

import asyncio
import logging
import mmap
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import groupby
from pathlib import Path
from typing import NamedTuple
from uuid import UUID, uuid4

import msgspec

from metering.batching import BACKOFF_S
from metering.late import account_for
from metering.rows import EventRow, HoldRow
from metering.spool.frames import Reader
from metering.spool.place import Place
from metering.spool.records import decode, gist
from metering.store.base import BadRow, Lane, Locked, Store

log = logging.getLogger("metering.spool")

BATCH = 200
SPAN = timedelta(minutes=1)
LOCKED_MAX = 10  # times that a batch meets a lock before the whole is left to the next attempt

OnSettled = Callable[[Sequence[EventRow]], None]


class Call(NamedTuple):
    """What the spool has of one call. `was_sent`: its hold may be in the database."""

    hold: HoldRow | None
    event: EventRow | None
    was_sent: bool

    @property
    def row(self) -> HoldRow | EventRow:
        """The fuller of both."""
        if self.event is not None:
            return self.event
        if self.hold is not None:
            return self.hold
        raise ValueError("there is a row of each call")

    @property
    def customer_id(self) -> UUID:
        return self.row.customer_id


class Survey:
    """What the files hold, by the gist of their records: the calls that ended, and those that did not."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.events = 0
        self.ended: set[UUID] = set()
        self.writers: set[UUID] = set()  # under which holds were sent to the database
        self.damaged: set[Path] = set()
        begun: set[UUID] = set()
        for file in files:
            reader = Reader(_content(file))
            for payload in reader:
                found = gist(payload)
                (self.ended if found.ends else begun).add(found.hold_id)
                if found.writer is not None:
                    self.writers.add(found.writer)
            self._report(file, reader)
        self.running = begun - self.ended

    @property
    def records(self) -> int:
        return len(self.running) + len(self.ended)

    def calls(self, *, is_dead: bool) -> Iterator[Call]:
        """The calls to be written; those that did not end only where they never will."""
        told: set[UUID] = set()
        for file in self.files:
            for payload in Reader(_content(file)):
                record = decode(payload)
                is_left = is_dead and record.hold_id in self.running and record.hold_id not in told
                if record.event is not None or is_left:
                    told.add(record.hold_id)
                    yield Call(record.hold, record.event, record.writer is not None)

    def _report(self, file: Path, reader: Reader) -> None:
        if reader.is_damaged:
            self.damaged.add(file)
            log.error("%s is damaged behind byte %d and will be kept beside", file, reader.end)
        elif reader.torn:
            log.warning(
                "%s: a record was not written to its end, and nobody was answered for it: %d bytes are cut off",
                file,
                reader.torn,
            )


async def drain(
    store: Store, place: Place, survey: Survey, *, is_dead: bool, on_settled: OnSettled = lambda rows: None
) -> None:
    """Write what the files hold. Raises StoreError; then it is to be done again, from the beginning."""
    before = place.drainer()
    fenced = (survey.writers if is_dead else set()) | ({before} if before is not None else set())
    if fenced:
        await asyncio.to_thread(store.retire, fenced)
    writer = uuid4()
    place.note_drainer(writer)
    lane = await store.open_lane("spool")
    try:
        drained = _Writing(store, lane, writer, on_settled)
        await drained.begin()
        for calls in _batches(survey.calls(is_dead=is_dead)):
            await drained.write(calls, doubtful=before is not None)
    finally:
        await lane.close()
    await asyncio.to_thread(store.retire, [writer])


class _Writing:
    """One attempt, under a writer of its own."""

    def __init__(self, store: Store, lane: Lane, writer: UUID, on_settled: OnSettled) -> None:
        self._books, self._lane, self._writer, self._on_settled = store.books, lane, writer, on_settled
        self._seq = 0

    async def begin(self) -> None:
        """An empty batch: from now on there is a row that can be fenced."""
        await self._settle([])

    async def write(self, calls: Sequence[Call], *, doubtful: bool) -> None:
        """Write these calls; what nobody can write is put away. `doubtful`: some may have been written before."""
        parts, locked = deque([(calls, doubtful)]), 0
        while parts:
            part, doubtful = parts.popleft()
            try:
                await self._write(part, doubtful)
            except Locked as error:
                locked += 1
                if locked > LOCKED_MAX:
                    raise
                log.warning("a lock is in the way of the spool: %s", error)
                await asyncio.sleep(BACKOFF_S[min(locked, len(BACKOFF_S) - 1)])
                parts.extend((one, True) for one in _by_customer(part))
            except BadRow as error:
                if len(part) > 1:
                    middle = len(part) // 2
                    parts.extendleft([(part[middle:], True), (part[:middle], True)])
                elif not doubtful:
                    parts.appendleft((part, True))
                else:
                    await self._put_away(part[0], error)

    async def _write(self, calls: Sequence[Call], doubtful: bool) -> None:
        spooled = [call for call in calls if call.hold is not None]
        known = await self._known([call for call in spooled if doubtful or call.was_sent])
        new = [call.hold for call in spooled if call.hold is not None and call.hold.id not in known]
        unclaimed = await self._hold(new)
        events = [_without_claim(call.event, unclaimed) for call in calls if call.event is not None]
        if not events:
            return
        ended = await self._settle(events)
        self._tell([row for row in events if row.hold_id in ended])
        for row in events:
            if row.hold_id not in ended:
                await account_for(self._lane, row)

    def _tell(self, rows: Sequence[EventRow]) -> None:
        try:
            self._on_settled(rows)
        except Exception:  # counting for a dashboard must not stop the books
            log.exception("drained events could not be counted")

    async def _known(self, calls: Sequence[Call]) -> set[UUID]:
        """The calls that the database knows. Asked in the order in which a call goes through it: whatever is on its way
        meanwhile is found by the next question."""
        holds = [call.hold for call in calls if call.hold is not None]
        known = await self._lane.held([(row.customer_id, row.id) for row in holds]) if holds else set()
        events = [call.event for call in calls if call.event is not None and call.event.hold_id not in known]
        if events:
            known |= await self._lane.settled(events)
        unknown = [row for row in holds if row.id not in known]
        return known | (await self._lane.swept(unknown) if unknown else set())

    async def _hold(self, rows: Sequence[HoldRow]) -> set[UUID]:
        """Write holds; the ids of those whose key stands for another payload by now. Their calls went out all the same."""
        if not rows:
            return set()
        free = [_free(row) for row in rows]
        held = await self._lane.hold(self._writer, self._seq + 1, free, None)
        self._seq += 1
        refused = [msgspec.structs.replace(row, claim=None) for row in free if row.id not in held.admitted]
        if refused:
            await self._lane.hold(self._writer, self._seq + 1, refused, None)
            self._seq += 1
        return {row.id for row in refused}

    async def _settle(self, rows: Sequence[EventRow]) -> set[UUID]:
        postings: dict[UUID, UUID] = {}
        for row in rows:
            # Not the one that its first attempt was given: others of that batch may have been posted under it.
            row.posting_id = postings.setdefault(row.customer_id, uuid4()) if row.on_credit else None
        ended = await self._lane.settle(self._writer, self._seq + 1, rows, self._books)
        self._seq += 1
        return ended

    async def _put_away(self, call: Call, error: BadRow) -> None:
        row = call.row
        await self._lane.quarantine(row, str(error))
        log.error("spooled row %s is refused by the database and was quarantined: %s", row.id, error)


def _free(row: HoldRow) -> HoldRow:
    """A hold that nobody is asked about, and that takes nothing from what others may use."""
    return msgspec.structs.replace(row, amount=Decimal(0), charge_most=None, tokens_most=None, limits=())


def _without_claim(row: EventRow, unclaimed: set[UUID]) -> EventRow:
    return msgspec.structs.replace(row, claim=None) if row.hold_id in unclaimed else row


def _by_customer(calls: Sequence[Call]) -> list[list[Call]]:
    ordered = sorted(calls, key=lambda call: call.customer_id)
    return [list(part) for _, part in groupby(ordered, key=lambda call: call.customer_id)]


def _batches(calls: Iterable[Call]) -> Iterator[list[Call]]:
    """In their order. What is written together is posted together, and so is of nearly one time."""
    batch: list[Call] = []
    for call in calls:
        if batch and (len(batch) == BATCH or abs(call.row.created_at - batch[0].row.created_at) > SPAN):
            yield batch
            batch = []
        batch.append(call)
    if batch:
        yield batch


def _content(file: Path) -> "bytes | mmap.mmap":
    with file.open("rb") as opened:
        if not opened.seek(0, 2):
            return b""
        return mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
