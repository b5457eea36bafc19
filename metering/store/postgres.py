"""The recorder on PostgreSQL: every batch is one autocommit statement, so that no lock is held across a round trip.

A batch goes in as one JSON parameter and is read by `json_to_recordset`. Locks are taken in one order everywhere: writer →
holds → events → daily usage → what the gate contributes, each class sorted by its key. Everything that a settle adds up
comes from what `DELETE … RETURNING` gave.
"""

import asyncio
import os
import re
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg import errors

from metering.corrections import Written, event_from, late_settlement
from metering.gate import Contribution
from metering.ids import instant_of
from metering.rows import (
    CORRECTION_COLUMNS,
    EVENT_COLUMNS,
    HOLD_COLUMNS,
    Amendment,
    EventRow,
    HoldRow,
    Standing,
)
from metering.store import claims
from metering.store.base import BadRow, Held, Locked, SequenceRefused, StoreError, Unavailable, WriterState
from metering.store.postgres_claims import ANSWERED, CLAIMED, CONFLICTING, KEPT, MOVED, STANDING, booked
from metering.store.postgres_limits import LIMITED, LOCK, VERDICTS, Verdict, asked_of
from metering.store.sql import (
    CORRECTION_LIST,
    DAILY_ADD,
    DAILY_KEY_LIST,
    DAILY_SUM_LIST,
    DAILY_SUMS,
    EVENT_LIST,
    HOLD_LIST,
    UNPRICED,
    UNPRICED_LIST,
    USER_ADD,
    USER_KEY,
    USER_KEY_LIST,
    USER_SUM_LIST,
    USER_SUMS,
    WRITER_UPSERT,
    event_sums,
    unpriced_values,
)

CALL_TIMEOUT_S = (
    15  # above every server-side limit below: it fires only where the network swallowed the answer
)
SESSION = {
    "lock_timeout": "2s",
    "statement_timeout": "10s",
    "idle_in_transaction_session_timeout": "2s",
    "client_connection_check_interval": "1s",
    "default_transaction_isolation": "read\\ committed",  # under a stricter one the writer's upsert would raise 40001
}
NETWORK = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}

_SPECIAL = {
    "id": "uuid", "customer_id": "uuid", "hold_id": "uuid", "api_key_id": "uuid", "posting_id": "uuid",
    "created_at": "timestamptz", "occurred_at": "timestamptz", "period_start": "timestamptz", "hold_at": "timestamptz",
    "tokens_most": "bigint", "charge_most": "numeric", "day": "date", "late": "boolean", "on_credit": "boolean", "amount": "numeric", "quantity": "numeric",
    "tokens_input": "bigint", "tokens_output": "bigint", "tokens_total": "bigint",
    "execution_time": "integer", "latency": "integer", "status_code": "smallint",
    "buckets": "jsonb", "rate_ids": "jsonb", "raw_usage": "jsonb", "tags": "jsonb", "context": "jsonb", "metadata": "jsonb",
    "missing": "jsonb", "event_id": "uuid", "run": "uuid", "revision": "integer", "card_version": "bigint",
    "changed": "jsonb", "old": "jsonb", "new": "jsonb", "events": "bigint", "unpriced_events": "bigint", "estimated_events": "bigint",
    "model_cost_input": "numeric", "model_cost_output": "numeric",
    "cost_input": "numeric", "cost_output": "numeric", "cost_total": "numeric", "charge_total": "numeric",
}  # fmt: skip

_DOCUMENTS = frozenset({"rows", "corrections", "keys", "limits", "parts"})  # parameters that go in as JSON
_encode = msgspec.json.Encoder(decimal_format="string").encode
_PARAMETER = re.compile(r"%\((\w+)\)s")


def _record(fields: Iterable[str]) -> str:
    return ", ".join(f"{name} {_SPECIAL.get(name, 'text')}" for name in fields)


_EVENT_FIELDS = tuple(name for name in EventRow.__struct_fields__ if name not in {"claim", "on_credit"})
_EVENT_RECORD = _record(_EVENT_FIELDS)
_HOLD_RECORD = _record(HOLD_COLUMNS)
_CLAIM = ", claim json"
_WRITER_CTE = f"w as ({WRITER_UPSERT.format(writer='%(writer)s', seq='%(seq)s')} returning id)"
_DAILY_UPSERT = f"on conflict ({DAILY_KEY_LIST}) do update set {DAILY_ADD}"
_USER_UPSERT = f"on conflict ({USER_KEY_LIST}) do update set {USER_ADD}"


@cache
def _hold_sql(ctes: str | None, keyed: bool, limited: bool) -> str:
    asked = "wanted_holds" if limited else "asked"
    return f"""
with {_WRITER_CTE},
{"given" if keyed else asked} as materialized (
    select * from json_to_recordset(%(rows)s::json) as x({_HOLD_RECORD}{_CLAIM if keyed else ""}) where exists (select 1 from w)),
{CLAIMED.format(asked=asked) if keyed else ""}
{LIMITED if limited else ""}
{ctes or "admitted as (select customer_id, id from asked)"},
h as (insert into usage_holds ({HOLD_LIST}, writer_id)
    select {", ".join("a." + name for name in HOLD_COLUMNS)}, %(writer)s
    from asked a join admitted using (customer_id, id) order by a.customer_id, a.id returning id)
{VERDICTS if limited else "select id from h"}"""


@cache
def _settle_sql(ctes: str | None, has_unpriced: bool, keyed: bool, has_users: bool) -> str:
    b = "b" if keyed else "r"
    ended = f"{b} join ended d on d.customer_id = {b}.customer_id and d.id = {b}.hold_id"
    key = ", ".join(f"{b}.{name}" for name in DAILY_KEY_LIST.split(", "))
    sums = ", ".join(f"sum({text}) as {name}" for name, text in event_sums(b).items())
    return f"""
with {_WRITER_CTE},
r as materialized (select * from json_to_recordset(%(rows)s::json) as x({_EVENT_RECORD}{_CLAIM if keyed else ""})),
locked as materialized (
    select h.customer_id, h.id from usage_holds h join r on h.customer_id = r.customer_id and h.id = r.hold_id
    where exists (select 1 from w) order by h.customer_id, h.id for update of h),
ended as (delete from usage_holds h using locked l where h.customer_id = l.customer_id and h.id = l.id
    returning h.customer_id, h.id, h.amount, h.currency),
{booked(_EVENT_FIELDS) if keyed else ""}
events as (insert into usage_events ({EVENT_LIST})
    select {", ".join(f"{b}.{name}" for name in EVENT_COLUMNS)} from {ended}
    order by {b}.customer_id, {b}.created_at, {b}.id returning id),
{_listed(b, ended) if has_unpriced else ""}
rolled as (insert into daily_usage as t ({DAILY_KEY_LIST}, currency, {DAILY_SUM_LIST})
    select {key}, min({b}.currency), {sums} from {ended}
    where (select count(*) from events) > 0
    group by {key} order by {key} {_DAILY_UPSERT} returning 1)
{_users(b, ended) if has_users else ""}
{_balances(ctes, b, ended, "users_rolled" if has_users else "rolled")}
select {ANSWERED + ended if keyed else "id from ended"}"""


def _listed(b: str, ended: str) -> str:
    """Fresh rows, for which nobody can be waiting: they need no place in the order of locks."""
    return f"""listed as (insert into usage_unpriced ({UNPRICED_LIST})
    select {unpriced_values(f"{b}.")} from {ended} where {b}.missing is not null),"""


def _users(b: str, ended: str) -> str:
    """Daily usage by end user, of the rows that name one."""
    texts = event_sums(b)
    key = ", ".join(f"{b}.{name}" for name in USER_KEY)
    return f""", users_rolled as (insert into daily_user_usage as t ({USER_KEY_LIST}, currency, {USER_SUM_LIST})
    select {key}, min({b}.currency), {", ".join(f"sum({texts[name]})" for name in USER_SUMS)} from {ended}
    where {b}.user_id <> '' and (select count(*) from rolled) > 0 group by {key} order by {key} {_USER_UPSERT} returning 1)"""


def _balances(ctes: str | None, b: str, ended: str, after: str) -> str:
    if ctes is None:
        return ""
    return f""", booked as materialized (select {b}.customer_id, d.currency, sum(d.amount) as held,
        coalesce(sum({b}.charge_total) filter (where {b}.posting_id is not null), 0) as charge,
        (array_agg({b}.posting_id) filter (where {b}.posting_id is not null))[1] as posting_id, max({b}.created_at) as at
    from {ended} where (select count(*) from {after}) >= 0 group by {b}.customer_id, d.currency), {ctes}"""


_STATE = tuple(name for name in Amendment.__struct_fields__ if name not in {"corrections", "key"})
# Another who corrected the event meanwhile has taken its next revision: then nothing of the amendment is written. A second
# correction of an event follows its first one only. Where nothing is corrected, whoever asked a newer catalogue knows more.
# Locks in the order of their classes: the list of what is unpriced, the corrections, daily usage.
_CORRECTED = f"returning {CORRECTION_LIST}"
_USER_KEY_OF_CORRECTION = "c.customer_id, e.user_id, c.period_start, c.day"


@cache
def _amend_sql(keyed: bool, ctes: str | None) -> str:
    return f"""
with s as materialized (select * from json_to_recordset(%(rows)s::json) as x(steps integer, {_record(_STATE)})),
c as materialized (select * from json_to_recordset(%(corrections)s::json) as x(step integer, {_record(CORRECTION_COLUMNS)})),
{KEPT if keyed else ""}
locked as materialized (select u.customer_id, u.event_id, u.card_version from usage_unpriced u join s using (customer_id, event_id)
    {"where (select count(*) from kept) >= 0" if keyed else ""} order by u.customer_id, u.event_id for update of u),
firsts as (insert into usage_corrections ({CORRECTION_LIST})
    select {CORRECTION_LIST} from c where c.step = 1 and (select count(*) from locked) >= 0
    {"and (customer_id, event_id) not in (select customer_id, event_id from stale)" if keyed else ""} order by customer_id, event_id
    on conflict (customer_id, event_id, revision) do nothing {_CORRECTED}),
{MOVED if keyed else ""}
seconds as (insert into usage_corrections ({CORRECTION_LIST})
    select {", ".join("c." + name for name in CORRECTION_COLUMNS)} from c join firsts f using (customer_id, event_id)
    where c.step = 2 order by c.customer_id, c.event_id {_CORRECTED}),
done as materialized (
    select customer_id, event_id from firsts union all select s.customer_id, s.event_id from s join locked l using (customer_id, event_id)
    where s.steps = 0 and l.card_version <= s.card_version and not exists (select 1 from usage_corrections k where k.customer_id = s.customer_id
        and k.event_id = s.event_id and k.revision > s.revision)),
closed as (delete from usage_unpriced u using s, done d where u.customer_id = s.customer_id and u.event_id = s.event_id
    and d.customer_id = s.customer_id and d.event_id = s.event_id and s.missing is null returning 1),
opened as (insert into usage_unpriced as u ({UNPRICED_LIST}) select {", ".join("s." + name for name in UNPRICED)}
    from s join done using (customer_id, event_id) where s.missing is not null order by s.customer_id, s.event_id
    on conflict (customer_id, event_id) do update set missing = excluded.missing, card_version = excluded.card_version,
        provider = excluded.provider, model = excluded.model returning 1),
rolled as (insert into daily_usage as t ({DAILY_KEY_LIST}, currency, {DAILY_SUM_LIST})
    select {DAILY_KEY_LIST}, min(currency), {", ".join(f"sum({name})" for name in DAILY_SUMS)}
    from (select * from firsts union all select * from seconds) as written
    where (select count(*) from closed) + (select count(*) from opened) >= 0
    group by {DAILY_KEY_LIST} order by {DAILY_KEY_LIST} {_DAILY_UPSERT} returning 1),
users_rolled as (insert into daily_user_usage as t ({USER_KEY_LIST}, currency, {USER_SUM_LIST})
    select {_USER_KEY_OF_CORRECTION}, min(c.currency), {", ".join(f"sum(c.{name})" for name in USER_SUMS)}
    from (select * from firsts union all select * from seconds) as c join s using (customer_id, event_id)
    join usage_events e on e.customer_id = c.customer_id and e.created_at = s.created_at and e.id = c.event_id
    where e.user_id <> '' and (select count(*) from rolled) >= 0
    group by {_USER_KEY_OF_CORRECTION} order by {_USER_KEY_OF_CORRECTION} {_USER_UPSERT} returning 1)
{_moved_charges(ctes)}
select event_id from done"""


def _moved_charges(ctes: str | None) -> str:
    if ctes is None:
        return ""
    return f""", booked as materialized (select c.customer_id, c.currency, 0::numeric as held, sum(c.charge_total) as charge,
        (array_agg(c.id order by c.id))[1] as posting_id, max(c.created_at) as at
    from (select * from firsts union all select * from seconds) as c join s using (customer_id, event_id)
    where s.on_credit and (select count(*) from users_rolled) >= 0 group by c.customer_id, c.currency), {ctes}"""


# The swept event of a call is found by the hold's id, which it carries as execution_id, among those made since the hold was.
_SWEPT = f"""select r.hold_id, {", ".join("e." + name for name in EVENT_COLUMNS)}
from json_to_recordset(%(rows)s::json) as r({_EVENT_RECORD})
join usage_events e on e.customer_id = r.customer_id and e.execution_id = r.hold_id::text and e.created_at >= r.hold_at
where e.status = 'interrupted' and e.id <> r.id"""
_SWEPT_HOLDS = """select h.id from json_to_recordset(%(rows)s::json) as h(customer_id uuid, id uuid, hold_at timestamptz)
join usage_events e on e.customer_id = h.customer_id and e.execution_id = h.id::text and e.created_at >= h.hold_at
where e.status = 'interrupted'"""
_CORRECTIONS_OF = """select revision, reason, new from usage_corrections
where customer_id = %(customer)s and event_id = %(event)s order by revision"""
_SETTLED = f"""select r.hold_id, e.context ?| array['repeat_of', 'charged_before'], e.charge_total, e.quantity, e.pricing_status,
    (e.context ->> 'repeat_of')::uuid, coalesce((e.context ->> 'charged_before')::numeric, 0)
from json_to_recordset(%(rows)s::json) as r({_EVENT_RECORD})
join usage_events e on e.customer_id = r.customer_id and e.created_at = r.created_at and e.id = r.id"""
_PAIRS = "select * from json_to_recordset(%(rows)s::json) as x(customer_id uuid, id uuid)"
_HELD = f"select h.id from usage_holds h join ({_PAIRS}) p using (customer_id, id)"


@cache
def _release_sql(ctes: str | None) -> str:
    """Ends holds, together with what they reserved."""
    return f"""
with locked as materialized (select h.customer_id, h.id from usage_holds h join ({_PAIRS}) p using (customer_id, id)
    order by h.customer_id, h.id for update of h),
ended as (delete from usage_holds h using locked l where h.customer_id = l.customer_id and h.id = l.id
    returning h.customer_id, h.currency, h.amount)
{_freed(ctes)}
select count(*) from ended"""


@cache
def _quarantine_sql(ctes: str | None) -> str:
    return f"""
with ended as (delete from usage_holds where customer_id = %(customer)s and id = %(hold)s returning customer_id, currency, amount),
kept as (insert into usage_quarantine (id, customer_id, created_at, kind, reason, row)
    values (%(id)s, %(customer)s, now(), %(kind)s, %(reason)s, %(row)s) on conflict (id) do nothing)
{_freed(ctes)}
select count(*) from ended"""


def _freed(ctes: str | None) -> str:
    if ctes is None:
        return ""
    return f""", booked as materialized (select customer_id, currency, sum(amount) as held, 0::numeric as charge,
        null::uuid as posting_id, now() as at from ended group by customer_id, currency), {ctes}"""


@cache
def _numbered(sql: str) -> tuple[bytes, tuple[str, ...]]:
    """The statement with numbers for its parameters, and their names in that order. psycopg would look for them in every
    execution of a text as long as ours; bytes it takes as they are."""
    names = tuple(dict.fromkeys(_PARAMETER.findall(sql)))
    text = _PARAMETER.sub(lambda found: f"${names.index(found[1]) + 1}", sql)
    return text.replace("%%", "%").encode(), names


class PostgresLane:
    """One autocommit connection of asyncio psycopg. `books`: see PostgresStore."""

    def __init__(self, connection: psycopg.AsyncConnection[Any], books: Contribution | None = None) -> None:
        self._connection = connection
        self._books = books.ctes if books else None
        # One for all statements: what each returns is fetched before the next one.
        self._cursor: psycopg.AsyncRawCursor[Any] = psycopg.AsyncRawCursor(connection)

    async def hold(
        self, writer: UUID, seq: int, rows: Sequence[HoldRow], contribution: Contribution | None
    ) -> Held:
        limited = any(row.limits for row in rows)
        sql = _hold_sql(contribution.ctes if contribution else None, _keyed(rows), limited)
        parameters: dict[str, Any] = {"writer": writer, "seq": seq, "rows": rows}
        if not limited:
            return Held(await self._ids(sql, parameters))
        asked = asked_of(rows)
        parameters["rows"] = [msgspec.structs.replace(row, limits=()) for row in rows]
        parameters |= {"limits": asked.limits, "parts": asked.parts}
        customers = list({str(row.customer_id) for row in rows if row.limits})
        return asked.held(await self._run_locked(customers, sql, parameters))

    async def settle(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], contribution: Contribution | None
    ) -> set[UUID]:
        has_unpriced = any(row.missing is not None for row in rows)
        keyed = _keyed(rows)
        has_users = any(row.user_id for row in rows)
        sql = _settle_sql(contribution.ctes if contribution else None, has_unpriced, keyed, has_users)
        parameters = {"writer": writer, "seq": seq, "rows": rows}
        return await self._booked(sql, parameters, rows) if keyed else await self._ids(sql, parameters)

    async def correct(self, rows: Sequence[EventRow]) -> set[UUID]:
        cursor = await self._run(_SWEPT, {"rows": rows})
        truth, accounted = {row.hold_id: row for row in rows}, set()
        for hold_id, *values in await cursor.fetchall():
            swept = event_from(dict(zip(EVENT_COLUMNS, values, strict=True)))
            found = await self._run(_CORRECTIONS_OF, {"customer": swept.customer_id, "event": swept.id})
            written = [Written(*one) for one in await found.fetchall()]
            row = truth[hold_id]
            move, booking = claims.move_of(row, await self._standing(row), swept.id)
            amendment = late_settlement(swept, written, claims.booked_row(row, booking), move)
            if amendment is not None:
                if not await self.amend([amendment]):
                    raise Locked(f"event {swept.id} or its key is being changed by somebody else")
                claims.apply(row, booking)
            accounted.add(hold_id)
        return accounted | await self.settled(rows)

    async def amend(self, amendments: Sequence[Amendment]) -> set[UUID]:
        corrections = [
            {"step": step, **msgspec.structs.asdict(row)}
            for amendment in amendments
            for step, row in enumerate(amendment.corrections, start=1)
        ]
        states = [
            {name: getattr(one, name) for name in _STATE} | {"steps": len(one.corrections)}
            for one in amendments
        ]
        keys = [
            {"customer_id": one.customer_id, "event_id": one.event_id, **msgspec.structs.asdict(one.key)}
            for one in amendments
            if one.key is not None
        ]
        parameters = {"rows": states, "corrections": corrections, "keys": keys}
        return await self._ids(_amend_sql(bool(keys), self._books), parameters)

    async def settled(self, rows: Sequence[EventRow]) -> set[UUID]:
        return await self._booked(_SETTLED, {"rows": rows}, rows)

    async def conflicting(self, rows: Sequence[HoldRow]) -> set[UUID]:
        return await self._ids(CONFLICTING, {"rows": rows})

    async def release(self, rows: Sequence[HoldRow]) -> None:
        pairs = [{"customer_id": row.customer_id, "id": row.id} for row in rows]
        await self._run(_release_sql(self._books), {"rows": pairs})

    async def held(self, ids: Sequence[tuple[UUID, UUID]]) -> set[UUID]:
        pairs = [{"customer_id": customer, "id": hold} for customer, hold in ids]
        return await self._ids(_HELD, {"rows": pairs})

    async def swept(self, rows: Sequence[HoldRow]) -> set[UUID]:
        asked = [
            {"customer_id": row.customer_id, "id": row.id, "hold_at": instant_of(row.id)} for row in rows
        ]
        return await self._ids(_SWEPT_HOLDS, {"rows": asked})

    async def quarantine(self, row: EventRow | HoldRow, reason: str) -> None:
        hold_id = row.hold_id if isinstance(row, EventRow) else row.id
        await self._run(
            _quarantine_sql(self._books),
            {
                "customer": row.customer_id, "hold": hold_id, "id": row.id, "reason": reason[:500],
                "kind": "event" if isinstance(row, EventRow) else "hold", "row": quarantine_text(row),
            },
        )  # fmt: skip

    async def writer_state(self, writer: UUID) -> WriterState | None:
        cursor = await self._run(
            "select seq, fenced_at is not null from usage_writers where id = %(id)s", {"id": writer}
        )
        found = await cursor.fetchone()
        return WriterState(seq=found[0], fenced=found[1]) if found else None

    async def close(self) -> None:
        try:
            await self._connection.close()
        except Exception:  # noqa: BLE001  it may be broken in any way; what counts is that it is never used again
            return

    async def _standing(self, row: EventRow) -> Standing | None:
        if row.claim is None:
            return None
        parameters = {"customer": row.customer_id, "key": row.claim.key_hash}
        found = await (await self._run(STANDING, parameters)).fetchone()
        return Standing(row.claim.payload_hash, *found) if found else None

    async def _booked(self, sql: str, parameters: dict[str, Any], rows: Sequence[EventRow]) -> set[UUID]:
        """The hold ids that a statement names; a row that its key changed is told what was booked."""
        found = {told[0]: told[1:] for told in await (await self._run(sql, parameters)).fetchall()}
        for row in rows:
            judged, *booking = found.get(row.hold_id, (False,))
            if judged:
                claims.apply(row, claims.Booking(*booking))
        return set(found)

    async def _ids(self, sql: str, parameters: dict[str, Any]) -> set[UUID]:
        cursor = await self._run(sql, parameters)
        return {found[0] for found in await cursor.fetchall()}

    async def _run(self, sql: str, parameters: dict[str, Any]) -> psycopg.AsyncCursor[Any]:
        text, values = _ready(sql, parameters)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._cursor.execute(text, values)
        except Exception as error:
            raise translated(error) from error

    async def _run_locked(self, customers: list[str], sql: str, parameters: dict[str, Any]) -> list[Verdict]:
        """The rows of a statement that goes out behind the customers' locks, in one flush and one transaction: the server
        ends it whatever becomes of this process."""
        text, values = _ready(sql, parameters)
        locks: psycopg.AsyncRawCursor[Any] = psycopg.AsyncRawCursor(self._connection)
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S), self._connection.pipeline() as pipeline:
                await locks.execute(LOCK, [customers])
                await self._cursor.execute(text, values)
                await pipeline.sync()  # here the errors come, the first one first
            return await self._cursor.fetchall()
        except Exception as error:
            raise translated(error) from error


def _ready(sql: str, parameters: dict[str, Any]) -> tuple[bytes, list[Any]]:
    """The text and the values of a statement, documents as JSON. Raises BadRow for what is none."""
    for name in _DOCUMENTS.intersection(parameters):
        parameters[name] = _text_of(parameters[name])
    text, names = _numbered(sql)
    return text, [parameters[name] for name in names]


def _keyed(rows: Sequence[EventRow] | Sequence[HoldRow]) -> bool:
    return any(row.claim is not None for row in rows)


def _text_of(rows: Any) -> str:
    try:
        return _encode(rows).decode()
    except (ValueError, TypeError, RecursionError) as error:
        raise BadRow(f"cannot be written as JSON: {error}") from error


def quarantine_text(row: EventRow | HoldRow) -> str:
    """A row as text that every database takes, whatever is wrong with it."""
    try:
        text = _encode(row).decode()
    except (ValueError, TypeError, RecursionError):
        text = ascii(row)
    return text.replace("\0", "").replace("\\u0000", "")[:200_000]


def translated(error: Exception) -> StoreError:
    """The store's error for one of psycopg's, or for whatever else came out of a call."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, errors.NotNullViolation) and error.diag.table_name == "usage_writers":
        return SequenceRefused(str(error))
    if isinstance(
        error,
        (errors.LockNotAvailable, errors.DeadlockDetected, errors.SerializationFailure, errors.QueryCanceled),
    ):
        return Locked(str(error))
    if isinstance(
        error, (psycopg.DataError, psycopg.IntegrityError, UnicodeError, errors.ProgramLimitExceeded)
    ):
        return BadRow(str(error))
    return Unavailable(f"{type(error).__name__}: {error}")


class PostgresStore:
    """Opens lanes to one PostgreSQL database. `conninfo` is what psycopg's connect takes; `books` is what moves balances
    where no gate is asked: when a hold is released or swept, a row put away, a charge corrected."""

    def __init__(self, conninfo: dict[str, Any], books: Contribution | None = None) -> None:
        self.books = books
        options = " ".join(f"-c {name}={value}" for name, value in SESSION.items())
        given = conninfo.get("options", "")
        self._conninfo = {**NETWORK, **conninfo, "options": f"{given} {options}".strip()}
        self._inherited: list[psycopg.Connection[Any] | None] = []
        self._start()

    def _start(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._beat_connection: psycopg.Connection[Any] | None = None

    async def open_lane(self, name: str) -> PostgresLane:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                connection = await psycopg.AsyncConnection.connect(
                    autocommit=True, application_name=f"tollgate {name}", **self._conninfo
                )
        except Exception as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        return PostgresLane(connection, self.books)

    def beat(self, writers: Iterable[UUID]) -> None:
        self._sync("update usage_writers set beat = beat + 1 where id = any(%s)", [list(writers)])

    def retire(self, writers: Iterable[UUID]) -> None:
        self._sync("update usage_writers set fenced_at = now() where id = any(%s)", [list(writers)])

    def check(self) -> list[str]:
        found = self._sync("select current_setting('fsync'), current_setting('synchronous_commit')", [])
        fsync, synchronous = found[0]
        problems = []
        if fsync != "on":
            problems.append("PostgreSQL runs with fsync=off: a power loss loses settled calls")
        if synchronous == "off":
            problems.append("synchronous_commit is off: a crash of PostgreSQL loses settled calls")
        return problems

    def close(self) -> None:
        self._start_anew_after_fork()
        with self._lock:
            if self._beat_connection is not None:
                self._beat_connection.close()
                self._beat_connection = None

    def _start_anew_after_fork(self) -> None:
        """The parent's connection must not be used here nor closed, and its lock may be held by a thread that is not here."""
        if self._pid != os.getpid():
            self._inherited.append(self._beat_connection)
            self._start()

    def _sync(self, sql: str, parameters: list[Any]) -> list[Any]:
        self._start_anew_after_fork()
        with self._lock:
            try:
                if self._beat_connection is None or self._beat_connection.closed:
                    self._beat_connection = psycopg.connect(
                        autocommit=True, application_name="tollgate beat", **self._conninfo
                    )
                cursor = self._beat_connection.execute(sql, parameters)
                return cursor.fetchall() if cursor.description else []
            except Exception as error:
                if self._beat_connection is not None:
                    self._beat_connection.close()
                    self._beat_connection = None
                raise Unavailable(str(error)) from error
