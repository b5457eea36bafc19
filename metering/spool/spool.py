"""The spool of a live process: takes records from the event loop, and answers each once it is on the disk.

One thread writes whatever is waiting and syncs once for all of it. The room for the event of a call is set aside when its hold
is taken, so the end of a call that went out is never what does not fit: what does not fit is a new call.
"""

import asyncio
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from metering.rows import EventRow, HoldRow
from metering.spool import frames
from metering.spool.place import Place, oldest_ms, sync
from metering.spool.records import Record, encode

log = logging.getLogger("metering.spool")

RESERVED = 16_384  # bytes set aside for the event of a call; one that is longer is written all the same, if the disk takes it
GROWS_BY = 2**20
RETRY_S = 1.0
STOP_S = 5.0

Told = Callable[[Exception | None], None]


class SpoolFull(Exception):
    """There is no room for another call: the bound is reached, or the disk takes no more. The call must not go out."""


class _Entry:
    """A frame in the queue. `must`: it is written sooner or later, whatever the disk says now."""

    __slots__ = ("data", "is_event", "must", "told")

    def __init__(self, data: bytes, told: Told, *, must: bool, is_event: bool = False) -> None:
        self.data, self.told, self.must, self.is_event = data, told, must, is_event


class _Segment:
    """The file that is written to."""

    def __init__(self, path: Path) -> None:
        self.path, self.size, self.events = path, 0, 0
        self.allocated = 0
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def make_room(self, size: int) -> None:
        """Have the disk promise so many bytes in all. Raises OSError."""
        if size > self.allocated:
            wanted = -(-size // GROWS_BY) * GROWS_BY
            os.posix_fallocate(self._file, self.allocated, wanted - self.allocated)
            self.allocated = wanted

    def write(self, data: bytes) -> None:
        """Write behind what was written, and sync. Raises OSError; then the file is not to be written to any more."""
        view, at = memoryview(data), self.size
        while view:
            written = os.pwrite(self._file, view, at)
            view, at = view[written:], at + written
        os.fdatasync(self._file)
        self.size = at

    def close(self) -> None:
        """Cut off what was promised and not used, and what a failed write left behind."""
        try:
            os.ftruncate(self._file, self.size)
            os.fsync(self._file)
        except OSError as error:
            log.error("the end of %s cannot be cut off: %s", self.path, error)
        os.close(self._file)

    def forget(self) -> None:
        os.close(self._file)


class Spool:
    """Records of one process, under `root`, of `bytes_max` bytes at the most. Opens its files at the first record."""

    def __init__(self, root: Path, bytes_max: int, *, now_ms: Callable[[], int] | None = None) -> None:
        self.root, self._bytes_max = root, bytes_max
        self._now_ms = now_ms or (lambda: time.time_ns() // 1_000_000)
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()  # of everything below
        self._writing = threading.Lock()  # of the file; taken before the other one
        self._wake = threading.Condition(self._lock)
        self._queue: deque[_Entry] = deque()
        self._queued_bytes = 0
        # Calls that run and whose holds are here; with the writer under which they were sent to the database as well.
        self._open: dict[UUID, tuple[HoldRow, UUID | None]] = {}
        self._expected: set[UUID] = (
            set()
        )  # of those that were sent to the database: what becomes of it is not known yet
        self._undrained = 0  # events on the disk
        self._closed_bytes: dict[
            Path, tuple[int, int]
        ] = {}  # of files that are no longer written to: size, events
        self.place: Place | None = None
        self._segment: _Segment | None = None
        self._thread: threading.Thread | None = None
        self._stopping = False
        self.abandoned = 0  # records of dead processes, as of the last look

    # --- for the calls, on the event loop

    async def hold(self, row: HoldRow, writer: UUID | None = None) -> None:
        """Keep that a call goes out; returns when it is durable. `writer`: its hold was sent to the database under that
        name. Raises SpoolFull."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        row = msgspec.structs.replace(row, limits=())  # nobody asks about them any more
        try:
            data = frames.frame(encode(Record(hold=row, writer=writer)))
        except (ValueError, TypeError) as error:
            raise SpoolFull(f"the hold cannot be written: {error}") from error
        with self._lock:
            if self._stopping or self._bytes() + len(data) + RESERVED > self._bytes_max:
                self._expected.discard(row.id)
                raise SpoolFull(f"the spool has reached its bound of {self._bytes_max} bytes")
            self._open[row.id] = row, writer
            self._put(_Entry(data, _teller(future), must=False))
        try:
            await future
        except OSError as error:
            self._take_back(row)
            raise SpoolFull(f"the disk takes no hold: {error}") from error
        except asyncio.CancelledError:
            self.drop(row)
            raise

    def owns(self, hold_id: UUID) -> bool:
        """Whether a call runs whose hold is here: its event has to come here too."""
        with self._lock:
            return hold_id in self._open

    def event(self, row: EventRow, told: Callable[[], None]) -> None:
        """Keep an event, with its hold where that is here. `told` is called, on the loop that asks, once it is durable; until
        then it is tried again and again. Raises ValueError and TypeError for what nobody could write."""
        loop = asyncio.get_running_loop()

        def tell(error: Exception | None) -> None:
            loop.call_soon_threadsafe(told)

        with self._lock:
            hold, writer = self._open.get(row.hold_id, (None, None))
            data = frames.frame(encode(Record(hold=hold, event=row, writer=writer)))
            self._open.pop(row.hold_id, None)
            self._undrained += 1
            self._put(_Entry(data, tell, must=True, is_event=True))

    def drop(self, row: HoldRow) -> None:
        """The call never went out. Nobody waits for that to be known."""
        if self._take_back(row):
            with self._lock:
                data = frames.frame(encode(Record(hold=row, dropped=True)))
                self._put(_Entry(data, _nobody, must=True))

    def _take_back(self, row: HoldRow) -> bool:
        with self._lock:
            self._expected.discard(row.id)
            return self._open.pop(row.id, None) is not None

    # --- for the recorder: holds that are in the database perhaps

    def expect(self, hold_id: UUID) -> None:
        """This hold comes here although it was sent to the database; should it be written there, it is to stay."""
        with self._lock:
            self._expected.add(hold_id)

    def expects(self, hold_id: UUID) -> bool:
        with self._lock:
            return hold_id in self._expected

    def resolved(self, hold_id: UUID) -> None:
        """By now it is known whether this hold is in the database: whoever asks there gets the answer."""
        with self._lock:
            self._expected.discard(hold_id)

    # --- for the drainer, in its thread

    @property
    def records(self) -> int:
        """Calls that are here and not in the database."""
        return len(self._open) + self._undrained

    @property
    def waits_to_be_drained(self) -> bool:
        """Whether there is something to drain, or to tidy up: of calls that run nothing can be drained yet."""
        with self._lock:
            is_used = self._segment is not None or bool(self._closed_bytes)
            return is_used and not self._expected and bool(self._undrained or not self._open)

    def seal(self) -> list[Path]:
        """End the file that is written to; the files that can be drained now, in their order. None while it is not known of
        every hold in them whether it is in the database."""
        with self._writing:
            with self._lock:
                if self._expected or self.place is None:
                    return []
            self._end_segment()
            return sorted(self._closed_bytes)

    def carry(self, hold_ids: Iterable[UUID]) -> None:
        """Before files are removed: write anew those of their holds whose calls still run, and wait until everything is durable
        that was queued before. Raises OSError."""
        done, failed = threading.Event(), list[Exception]()

        def tell(error: Exception | None) -> None:
            if error is not None:
                failed.append(error)
            done.set()

        with self._lock:
            running = [self._open[one] for one in hold_ids if one in self._open]
            again = b"".join(frames.frame(encode(Record(hold=row, writer=writer))) for row, writer in running)
            if not again and not self._queue:
                return
            self._put(_Entry(again, tell, must=False))
        done.wait()
        if failed:
            raise failed[0]

    def remove(self, files: Iterable[Path]) -> None:
        """What these files say is in the database."""
        with self._writing:
            for file in files:
                file.unlink(missing_ok=True)
                with self._lock:
                    self._undrained -= self._closed_bytes.pop(file, (0, 0))[1]
            if self.place is not None:
                self.place.forget_drainer()
                sync(self.place.path)

    # --- for the process

    def status(self) -> dict[str, Any]:
        """What is here, for /readyz and the metrics."""
        return {"records": self.records + self.abandoned, "age_s": self.age_s, "is_full": self.is_full}

    @property
    def is_full(self) -> bool:
        with self._lock:
            return self._bytes() + 2 * RESERVED > self._bytes_max

    @property
    def age_s(self) -> float:
        """How long the oldest file under `root` has waited, whosever it is."""
        oldest = oldest_ms(self.root)
        return 0.0 if oldest is None else max(0.0, (self._now_ms() - oldest) / 1000)

    def close(self) -> None:
        """Write what is queued, then let go: what is left is anybody's to drain. May be used again afterwards."""
        with self._lock:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join(STOP_S)
        with self._writing:
            self._end_segment()
            if self.place is not None:
                self.place.close()
        self._begin()

    def forget_in_child(self) -> None:
        """After a fork: the files, and the calls in them, are the parent's."""
        if self._segment is not None:
            self._segment.forget()
        if self.place is not None:
            self.place.forget()
        self._begin()

    # --- the thread

    def _put(self, entry: _Entry) -> None:
        self._queue.append(entry)
        self._queued_bytes += len(entry.data)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tollgate-spool", daemon=True)
            self._thread.start()
        self._wake.notify_all()

    def _bytes(self) -> int:
        """All that is taken: written, queued, and set aside for the calls that run."""
        written = self._segment.size if self._segment is not None else 0
        closed = sum(size for size, _ in self._closed_bytes.values())
        return closed + written + self._queued_bytes + len(self._open) * RESERVED

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._queue and not self._stopping:
                    self._wake.wait()
                if not self._queue:
                    return
                group = list(self._queue)
            try:
                self._write(group)
            except Exception as error:  # noqa: BLE001  a full disk, or a folder that somebody took away
                log.error("%d records cannot be spooled: %s", len(group), error)
                if not self._give_up(group, error):
                    return

    def _write(self, group: list[_Entry]) -> None:
        data = b"".join(entry.data for entry in group)
        with self._writing:
            if data:
                self._append(data, group)
            self._leave(group)
        for entry in group:
            entry.told(None)

    def _append(self, data: bytes, group: list[_Entry]) -> None:
        segment = self._current()
        with self._lock:
            reserved = len(self._open) * RESERVED
        try:
            if not all(entry.must for entry in group):
                segment.make_room(segment.size + len(data) + reserved)
            segment.write(data)
        except Exception:
            self._end_segment()
            raise
        segment.events += sum(entry.is_event for entry in group)

    def _give_up(self, group: list[_Entry], error: Exception) -> bool:
        """Refuse those who can be refused; the others wait for better days. False when there are none to come."""
        refused = [entry for entry in group if not entry.must]
        with self._lock:
            for entry in refused:
                self._queue.remove(entry)
                self._queued_bytes -= len(entry.data)
            if self._stopping:
                return False
        for entry in refused:
            entry.told(error)
        if not refused:
            time.sleep(RETRY_S)
        return True

    def _leave(self, group: list[_Entry]) -> None:
        with self._lock:
            for entry in group:
                self._queue.popleft()
                self._queued_bytes -= len(entry.data)

    def _current(self) -> _Segment:
        if self._segment is None:
            if self.place is None:
                self.place = Place.make(self.root)
            segment = _Segment(self.place.next_segment())
            try:
                segment.write(frames.header(self._now_ms()))
                sync(self.place.path)
            except Exception:
                segment.close()
                segment.path.unlink(missing_ok=True)
                raise
            self._segment = segment
        return self._segment

    def _end_segment(self) -> None:
        if self._segment is not None:
            self._segment.close()
            with self._lock:
                self._closed_bytes[self._segment.path] = self._segment.size, self._segment.events
            self._segment = None


def _nobody(error: Exception | None) -> None:
    """Nobody waits."""


def _teller(future: "asyncio.Future[None]") -> Told:
    """Tells a future of the running loop, from any thread."""
    loop = asyncio.get_running_loop()

    def set_it(error: Exception | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(error)

    def tell(error: Exception | None) -> None:
        loop.call_soon_threadsafe(set_it, error)

    return tell
