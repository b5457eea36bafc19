"""The recorder on SQLite: a batch is one `BEGIN IMMEDIATE … COMMIT` behind the turnstile, in a thread of the lane's own.

Within it nobody else can write, so the rows go one by one: the row count of `DELETE` decides whether an event is written.
Values are stored as Django's fields store them: UUIDs as 32 hex digits, instants as naive UTC text, amounts as integers
scaled by 10^12.
"""

import asyncio
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime
from decimal import Decimal
from queue import SimpleQueue
from typing import Any, TypeVar, get_args, get_type_hints
from uuid import UUID

import msgspec

from metering.corrections import Written, event_from, late_settlement
from metering.gate import Contribution
from metering.ids import instant_of
from metering.rows import (
    CORRECTION_COLUMNS,
    EVENT_COLUMNS,
    HOLD_COLUMNS,
    Amendment,
    CorrectionRow,
    EventRow,
    HoldRow,
)
from metering.store import claims, sqlite_claims
from metering.store.base import BadRow, Held, Locked, SequenceRefused, StoreError, Unavailable, WriterState
from metering.store.postgres import quarantine_text
from metering.store.sql import (
    CORRECTION_LIST,
    EVENT_LIST,
    HOLD_LIST,
    UNPRICED,
    UNPRICED_LIST,
    WRITER_UPSERT,
    unpriced_values,
)
from metering.store.sqlite_limits import Rooms
from metering.store.sqlite_rolling import roll_correction, roll_event
from metering.turnstile import Turnstile
from pricing.money import from_scaled, to_scaled

BUSY_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = (
    1.0  # who waits at the turnstile cannot be called back: it closes its connection when it wakes
)
T = TypeVar("T")
_KINDS = {name: {hint, *get_args(hint)} for name, hint in get_type_hints(EventRow).items()}
_DOCUMENTS = frozenset({"buckets", "rate_ids", "raw_usage", "context", "tags", "metadata"})
_decode = msgspec.json.decode
_encode = msgspec.json.Encoder(decimal_format="string").encode

_WRITER = WRITER_UPSERT.format(writer=":writer", seq=":seq")
_INSERT_EVENT = (
    f"insert into usage_events ({EVENT_LIST}) values ({', '.join(':' + name for name in EVENT_COLUMNS)})"
)
_INSERT_HOLD = f"insert into usage_holds ({HOLD_LIST}, writer_id) values ({', '.join(':' + name for name in HOLD_COLUMNS)}, :writer)"
_LIST_UNPRICED = f"insert into usage_unpriced ({UNPRICED_LIST}) values ({unpriced_values(':')})"
_HELD = (
    "select amount, currency, created_at from usage_holds where id = :hold_id and customer_id = :customer_id"
)
_END_HOLD = "delete from usage_holds where id = :hold_id and customer_id = :customer_id"
_SWEPT = f"""select {EVENT_LIST} from usage_events where customer_id = :customer_id and created_at >= :hold_at
    and status = 'interrupted' and id <> :id and execution_id = :hold_text"""
_SWEPT_HOLDS = """select execution_id from usage_events where customer_id = ? and created_at >= ?
    and status = 'interrupted' and execution_id in (select value from json_each(?))"""
_CORRECTIONS_OF = "select revision, reason, new from usage_corrections where customer_id = ? and event_id = ? order by revision"
_INSERT_CORRECTION = f"""insert into usage_corrections ({CORRECTION_LIST}) values ({", ".join(":" + name for name in CORRECTION_COLUMNS)})
    on conflict (customer_id, event_id, revision) do nothing"""
_UNCHANGED = """select 1 from usage_unpriced u where u.event_id = :event_id and u.customer_id = :customer_id
    and u.card_version <= :card_version and not exists (
    select 1 from usage_corrections k where k.customer_id = u.customer_id and k.event_id = u.event_id and k.revision > :revision)"""
_CLOSE_UNPRICED = "delete from usage_unpriced where event_id = :event_id and customer_id = :customer_id"
_REOPEN_UNPRICED = f"""insert into usage_unpriced ({UNPRICED_LIST}) values ({", ".join(":" + name for name in UNPRICED)})
    on conflict (event_id) do update set missing = excluded.missing, card_version = excluded.card_version,
        provider = excluded.provider, model = excluded.model"""


def adapted(value: Any) -> Any:
    """A value as Django's fields store it in SQLite."""
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, Decimal):
        return to_scaled(value)
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, datetime):
        return (
            value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
            if value.microsecond
            else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        )
    if isinstance(value, date):
        return value.isoformat()
    return _encode(value).decode()


def restored(column: str, stored: Any) -> Any:
    """The value of an event's column from what is stored: the other way round than `adapted`."""
    if stored is None:
        return None
    if column in _DOCUMENTS:
        return _decode(stored)
    kinds = _KINDS[column]
    if Decimal in kinds:
        return from_scaled(stored)
    if UUID in kinds:
        return UUID(stored)
    if datetime in kinds:
        return datetime.fromisoformat(stored).replace(tzinfo=UTC)
    return bool(stored) if bool in kinds else stored


def parameters_of(row: EventRow | HoldRow | CorrectionRow) -> dict[str, Any]:
    """The named parameters of a row."""
    return {name: adapted(getattr(row, name)) for name in row.__struct_fields__ if name != "limits"}


_Task = tuple["Future[Any]", Callable[[], Any]]


class LaneThread:
    """One thread that does what it is given, in order. A daemon, unlike those of an executor: the process can end while
    it waits at the turnstile, where nothing is written yet."""

    def __init__(self, name: str) -> None:
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self.end = weakref.finalize(self, self._tasks.put, None)
        self.end.atexit = False
        threading.Thread(target=_work, args=[self._tasks], name=name, daemon=True).start()

    def submit(self, act: Callable[[], T]) -> "Future[T]":
        """Do this after what was given before."""
        future: Future[T] = Future()
        self._tasks.put((future, act))
        return future


def _work(tasks: "SimpleQueue[_Task | None]") -> None:
    while (task := tasks.get()) is not None:
        future, act = task
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(act())
            except BaseException as error:  # noqa: BLE001  whoever waits for it gets it
                future.set_exception(error)
        del task, future, act  # the answer is not to be kept until the next task comes


class SqliteLane:
    """One connection, used by one thread."""

    def __init__(self, database: str, name: str, books: Contribution | None = None) -> None:
        self._database, self._books = database, books
        self._thread = LaneThread(f"tollgate-{name}")
        self._connection: sqlite3.Connection | None = None
        self._turnstile = Turnstile(database)

    async def hold(
        self, writer: UUID, seq: int, rows: Sequence[HoldRow], contribution: Contribution | None
    ) -> Held:
        return await self._run(lambda db: self._hold(db, writer, seq, rows, contribution))

    async def settle(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], contribution: Contribution | None
    ) -> set[UUID]:
        return _told(await self._run(lambda db: self._settle(db, writer, seq, rows, contribution)), rows)

    async def correct(self, rows: Sequence[EventRow]) -> set[UUID]:
        return _told(await self._run(lambda db: self._correct(db, rows)), rows)

    async def amend(self, amendments: Sequence[Amendment]) -> set[UUID]:
        return await self._run(
            lambda db: {one.event_id for one in amendments if _amend(db, one, self._books)}
        )

    async def settled(self, rows: Sequence[EventRow]) -> set[UUID]:
        def act(db: sqlite3.Connection) -> Ended:
            return {
                row.hold_id: sqlite_claims.booking_of_event(db, row) for row in rows if _event_exists(db, row)
            }

        return _told(await self._run(act, writes=False), rows)

    async def conflicting(self, rows: Sequence[HoldRow]) -> set[UUID]:
        def act(db: sqlite3.Connection) -> set[UUID]:
            return {row.id for row in rows if sqlite_claims.conflicts(db, row)}

        return await self._run(act, writes=False)

    async def release(self, rows: Sequence[HoldRow]) -> None:
        def act(db: sqlite3.Connection) -> None:
            for row in rows:
                _free(db, self._books, row.customer_id, row.id)

        await self._run(act)

    async def held(self, ids: Sequence[tuple[UUID, UUID]]) -> set[UUID]:
        def act(db: sqlite3.Connection) -> set[UUID]:
            return {
                hold
                for _, hold in ids
                if db.execute("select 1 from usage_holds where id = ?", [hold.hex]).fetchone()
            }

        return await self._run(act, writes=False)

    async def swept(self, rows: Sequence[HoldRow]) -> set[UUID]:
        def act(db: sqlite3.Connection) -> set[UUID]:
            by_customer: dict[UUID, list[UUID]] = {}
            for row in rows:
                by_customer.setdefault(row.customer_id, []).append(row.id)
            return {
                UUID(found)
                for customer, holds in by_customer.items()
                for (found,) in db.execute(_SWEPT_HOLDS, _asked_of(customer, holds))
            }

        return await self._run(act, writes=False)

    async def quarantine(self, row: EventRow | HoldRow, reason: str) -> None:
        hold_id = row.hold_id if isinstance(row, EventRow) else row.id
        kind = "event" if isinstance(row, EventRow) else "hold"

        def act(db: sqlite3.Connection) -> None:
            _free(db, self._books, row.customer_id, hold_id)
            db.execute(
                "insert into usage_quarantine (id, customer_id, created_at, kind, reason, row) values (?, ?, ?, ?, ?, ?) on conflict (id) do nothing",
                [
                    row.id.hex,
                    row.customer_id.hex,
                    adapted(row.created_at),
                    kind,
                    reason[:500],
                    quarantine_text(row),
                ],
            )

        await self._run(act)

    async def writer_state(self, writer: UUID) -> WriterState | None:
        def act(db: sqlite3.Connection) -> WriterState | None:
            found = db.execute(
                "select seq, fenced_at is not null from usage_writers where id = ?", [writer.hex]
            ).fetchone()
            return WriterState(seq=found[0], fenced=bool(found[1])) if found else None

        return await self._run(act, writes=False)

    async def close(self) -> None:
        loop, closed = asyncio.get_running_loop(), asyncio.Event()

        def tell(_: "Future[None]") -> None:
            with suppress(RuntimeError):  # the loop may have ended meanwhile
                loop.call_soon_threadsafe(closed.set)

        if self._thread.end.alive:
            self._thread.submit(self._close).add_done_callback(tell)
            self._thread.end()
            with suppress(TimeoutError):
                await asyncio.wait_for(closed.wait(), CLOSE_TIMEOUT_S)

    def _close(self) -> None:
        self._turnstile.close()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _run(self, act: Callable[[sqlite3.Connection], T], *, writes: bool = True) -> T:
        def in_thread() -> T:
            try:
                if self._connection is None:
                    self._connection = connect(self._database)
                if not writes:
                    return act(self._connection)
                with _transaction(self._connection, self._turnstile):
                    return act(self._connection)
            except Exception as error:
                raise translated(error) from error

        if not self._thread.end.alive:
            raise Unavailable("this lane is closed")
        return await asyncio.wrap_future(self._thread.submit(in_thread))

    def _hold(
        self,
        db: sqlite3.Connection,
        writer: UUID,
        seq: int,
        rows: Sequence[HoldRow],
        contribution: Contribution | None,
    ) -> Held:
        db.execute(_WRITER, {"writer": writer.hex, "seq": seq})
        held, rooms = Held(admitted=set(), exceeded={}), Rooms(db, adapted)
        # The smallest first, as on PostgreSQL: who is refused then would not have fitted before the others either.
        for row in sorted(rows, key=lambda row: (row.customer_id, row.amount, row.id)):
            parameters = parameters_of(row)
            if row.claim is not None and not sqlite_claims.claim(db, row, parameters["created_at"]):
                continue
            exceeded = rooms.exceeded(row)
            if exceeded is not None:
                held.exceeded[row.id] = exceeded
                continue
            parameters["writer"] = writer.hex
            if contribution is None or _admits(db, contribution, parameters):
                rooms.take(row)
                db.execute(_INSERT_HOLD, parameters)
                held.admitted.add(row.id)
        return held

    def _settle(
        self,
        db: sqlite3.Connection,
        writer: UUID,
        seq: int,
        rows: Sequence[EventRow],
        contribution: Contribution | None,
    ) -> "Ended":
        db.execute(_WRITER, {"writer": writer.hex, "seq": seq})
        ended: Ended = {}
        for row in sorted(rows, key=lambda row: (row.customer_id, row.hold_id)):
            parameters = parameters_of(row)
            hold = db.execute(_HELD, parameters).fetchone()
            if hold is None:
                continue
            db.execute(_END_HOLD, parameters)
            booking = None
            if row.claim is not None:
                move, booking = claims.move_of(row, sqlite_claims.standing_of(db, row), row.id)
                sqlite_claims.move(db, row.customer_id, move)
                parameters.update(parameters_of(claims.booked_row(row, booking)))
            db.execute(_INSERT_EVENT, parameters)
            if row.missing is not None:
                db.execute(_LIST_UNPRICED, parameters)
            roll_event(db, parameters)
            charged = parameters if row.posting_id is not None else parameters | {"charge_total": 0}
            _book(
                db, contribution, charged | {"currency": hold[1]}, entry_id=parameters["id"], held=hold[0],
            )  # fmt: skip
            ended[row.hold_id] = booking
        return ended

    def _correct(self, db: sqlite3.Connection, rows: Sequence[EventRow]) -> "Ended":
        accounted: Ended = {}
        for row in rows:
            if _event_exists(db, row):
                accounted[row.hold_id] = sqlite_claims.booking_of_event(db, row)
                continue
            found = db.execute(_SWEPT, parameters_of(row) | {"hold_text": str(row.hold_id)}).fetchone()
            if found is not None:
                swept = event_from(
                    {name: restored(name, value) for name, value in zip(EVENT_COLUMNS, found, strict=True)}
                )
                written = db.execute(_CORRECTIONS_OF, [row.customer_id.hex, swept.id.hex]).fetchall()
                move, booking = claims.move_of(row, sqlite_claims.standing_of(db, row), swept.id)
                amendment = late_settlement(
                    swept,
                    [Written(number, reason, _decode(new)) for number, reason, new in written],
                    claims.booked_row(row, booking),
                    move,
                )
                if amendment is not None:
                    _amend(db, amendment, self._books)
                accounted[row.hold_id] = booking if amendment is not None else None
        return accounted


def _asked_of(customer: UUID, holds: Sequence[UUID]) -> tuple[str, str, str]:
    return customer.hex, adapted(instant_of(min(holds))), adapted([str(hold) for hold in holds])


Ended = dict[UUID, claims.Booking | None]  # what became of a row, by its hold; None where it counts as it is


def _told(ended: Ended, rows: Sequence[EventRow]) -> set[UUID]:
    """The hold ids; a row that its key changed is told what was booked, now that it is committed."""
    for row in rows:
        claims.apply(row, ended.get(row.hold_id))
    return set(ended)


def _amend(db: sqlite3.Connection, amendment: Amendment, books: Contribution | None) -> bool:
    """Write one amendment; False where somebody else has corrected the event since it was read."""
    state = {
        name: adapted(getattr(amendment, name))
        for name in amendment.__struct_fields__
        if name not in {"corrections", "key"}
    }
    if amendment.key is not None and sqlite_claims.has_moved(db, amendment.customer_id, amendment.key):
        return False
    if not amendment.corrections and db.execute(_UNCHANGED, state).fetchone() is None:
        return False
    for row in amendment.corrections:
        line = parameters_of(row)
        if db.execute(_INSERT_CORRECTION, line).rowcount != 1:
            return False  # only ever the first one: who took the second had taken the first
        roll_correction(db, line)
        if amendment.on_credit:
            _book(db, books, line | {"posting_id": line["id"]}, entry_id=line["id"], held=0)
    sqlite_claims.move(db, amendment.customer_id, amendment.key)
    db.execute(_CLOSE_UNPRICED if amendment.missing is None else _REOPEN_UNPRICED, state)
    return True


def _free(db: sqlite3.Connection, books: Contribution | None, customer_id: UUID, hold_id: UUID) -> None:
    """End a hold that no event ends, together with what it reserved."""
    ids = {"hold_id": hold_id.hex, "customer_id": customer_id.hex}
    hold = db.execute(_HELD, ids).fetchone()
    if hold is None:
        return
    db.execute(_END_HOLD, ids)
    amount, currency, created_at = hold
    freed = {
        "customer_id": customer_id.hex,
        "currency": currency,
        "created_at": created_at,
        "charge_total": 0,
    }
    _book(db, books, freed | {"posting_id": hold_id.hex}, entry_id=hold_id.hex, held=amount)


def _book(
    db: sqlite3.Connection, books: Contribution | None, row: dict[str, Any], *, entry_id: str, held: int
) -> None:
    """Move the balance by what a row of `booked` says."""
    if books is None:
        return
    booked = {
        "customer_id": row["customer_id"], "currency": row["currency"], "held": held, "charge": row["charge_total"] or 0,
        "posting_id": row["posting_id"], "at": row["created_at"], "entry_id": entry_id,
    }  # fmt: skip
    for statement in books.row_statements:
        db.execute(statement, booked)


def _admits(db: sqlite3.Connection, contribution: Contribution, parameters: dict[str, Any]) -> bool:
    if parameters["amount"] == 0:
        return True
    first, *rest = contribution.row_statements
    if db.execute(first, parameters).rowcount != 1:
        return False
    for statement in rest:
        db.execute(statement, parameters)
    return True


def _event_exists(db: sqlite3.Connection, row: EventRow) -> bool:
    return db.execute("select 1 from usage_events where id = ?", [row.id.hex]).fetchone() is not None


def connect(database: str) -> sqlite3.Connection:
    """A connection in autocommit mode with full durability."""
    db = sqlite3.connect(
        database,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        uri=database.startswith("file:"),
    )
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=full")
    return db


@contextmanager
def _transaction(db: sqlite3.Connection, turnstile: Turnstile) -> Iterator[None]:
    turnstile.acquire()
    try:
        db.execute("begin immediate")
        try:
            yield
            db.execute("commit")
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise
    finally:
        turnstile.release()


def translated(error: Exception) -> StoreError:
    """The store's error for one of sqlite3's, or for whatever else came out of a call."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, sqlite3.IntegrityError):
        refused = "usage_writers.seq" in str(error)
        return SequenceRefused(str(error)) if refused else BadRow(str(error))
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return Locked(str(error))
    # sqlite3 raises these for values it cannot bind; a sum beyond 64 bits is an "integer overflow"
    if isinstance(
        error,
        (sqlite3.InterfaceError, sqlite3.DataError, OverflowError, ValueError, TypeError, RecursionError),
    ):
        return BadRow(str(error))
    if isinstance(error, sqlite3.OperationalError) and "overflow" in str(error):
        return BadRow(str(error))
    return Unavailable(f"{type(error).__name__}: {error}")


class SqliteStore:
    """Opens lanes to one SQLite file. `books`: see PostgresStore."""

    def __init__(self, database: str, books: Contribution | None = None) -> None:
        self._database, self.books = database, books
        self._inherited: list[sqlite3.Connection | None] = []
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._beat_connection: sqlite3.Connection | None = None
        self._turnstile = Turnstile(self._database)
        self._closing = False

    async def open_lane(self, name: str) -> SqliteLane:
        return SqliteLane(self._database, name, self.books)

    def beat(self, writers: Iterable[UUID]) -> None:
        self._mark(writers, "update usage_writers set beat = beat + 1 where id = ?")

    def retire(self, writers: Iterable[UUID]) -> None:
        self._mark(writers, "update usage_writers set fenced_at = datetime('now') where id = ?")

    def _mark(self, writers: Iterable[UUID], statement: str) -> None:
        self._start_anew_after_fork()
        with self._lock:
            try:
                if self._beat_connection is None:
                    self._beat_connection = connect(self._database)
                with _transaction(self._beat_connection, self._turnstile):
                    for writer in writers:
                        self._beat_connection.execute(statement, [writer.hex])
            except Exception as error:
                raise translated(error) from error
            finally:
                if self._closing:
                    self._close()

    def check(self) -> list[str]:
        return []  # every connection sets synchronous=FULL itself

    def close(self) -> None:
        self._start_anew_after_fork()
        self._closing = True  # a beat that waits at the turnstile for longer than we do closes when it wakes
        if self._lock.acquire(timeout=CLOSE_TIMEOUT_S):
            try:
                self._close()
            finally:
                self._lock.release()

    def _close(self) -> None:
        self._closing = False
        self._turnstile.close()
        if self._beat_connection is not None:
            self._beat_connection.close()
            self._beat_connection = None

    def _start_anew_after_fork(self) -> None:
        """The parent's connection must not be used here nor closed, and its lock may be held by a thread that is not here."""
        if self._pid != os.getpid():
            self._inherited.append(self._beat_connection)
            self._start()
