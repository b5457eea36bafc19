"""The recorder in memory: for demos, for trying metering in a test, and as the model that the databases are compared with.

Everything is lost with the process. It keeps the same promises otherwise: numbers are applied once, a settle does nothing
without its hold, a late settle becomes a correction.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from metering.corrections import Written, as_corrected, late_settlement, sums_of
from metering.gate import Contribution
from metering.limits import Exceeded, Limit, part_of
from metering.rows import Amendment, CorrectionRow, EventRow, HoldRow, KeyMove, Standing
from metering.store import claims
from metering.store.base import Held, SequenceRefused, WriterState
from metering.store.sql import DAILY_KEY, DAILY_SUMS

DailyKey = tuple[Any, ...]


class MemoryStore:
    """Tables as dictionaries. Contributions of a gate are SQL and cannot run here: a gate that has one is refused."""

    books: Contribution | None = None

    def __init__(self) -> None:
        self.holds: dict[UUID, HoldRow] = {}
        self.events: dict[UUID, EventRow] = {}
        self.corrections: defaultdict[UUID, list[CorrectionRow]] = defaultdict(list)  # by event id
        self.unpriced: dict[UUID, dict[str, list[str]]] = {}  # by event id, what a rate could still price
        self.quarantined: dict[UUID, str] = {}
        self.daily: defaultdict[DailyKey, dict[str, Decimal]] = defaultdict(
            lambda: dict.fromkeys(DAILY_SUMS, Decimal(0))
        )
        self.writers: dict[UUID, WriterState] = {}
        self.keys: dict[tuple[UUID, str], Standing] = {}

    async def open_lane(self, name: str) -> "MemoryLane":
        return MemoryLane(self)

    def beat(self, writers: Iterable[UUID]) -> None:
        """Nobody looks at the beats of a process that holds its own store."""

    def retire(self, writers: Iterable[UUID]) -> None:
        """Nobody sweeps a store that ends with its process."""

    def check(self) -> list[str]:
        return ["events are kept in memory and are lost with the process"]

    def close(self) -> None:
        """Nothing to give back."""


def _is_of(limit: Limit, row: HoldRow | EventRow, asking: HoldRow) -> bool:
    return (
        row.customer_id == asking.customer_id
        and limit.feature in ("", row.feature)
        and limit.api_key_id in (None, row.api_key_id)
        and limit.user_id in ("", row.user_id)
    )


def _in(limit: Limit, at: datetime) -> bool:
    return limit.since is None or limit.until is None or limit.since <= at < limit.until


def _counts(limit: Limit, event: EventRow, asking: HoldRow) -> bool:
    if limit.since is None or not _is_of(limit, event, asking):
        return False
    return event.period_start == limit.since if limit.by_period else _in(limit, event.occurred_at)


class MemoryLane:
    """A lane onto the dictionaries of one MemoryStore."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def hold(
        self, writer: UUID, seq: int, rows: Sequence[HoldRow], contribution: Contribution | None
    ) -> Held:
        self._advance(writer, seq, contribution)
        held = Held(admitted=set(), exceeded={})
        for row in rows:
            if not self._claims(row):
                continue
            rooms = ((one, self._room(row, one)) for one in row.limits)
            exceeded = next((Exceeded(one, room) for one, room in rooms if part_of(one, row) > room), None)
            if exceeded is not None:
                held.exceeded[row.id] = exceeded
            else:
                self._store.holds[row.id] = row
                held.admitted.add(row.id)
        return held

    async def settle(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], contribution: Contribution | None
    ) -> set[UUID]:
        self._advance(writer, seq, contribution)
        ended = {row.hold_id for row in rows if self._store.holds.pop(row.hold_id, None) is not None}
        for row in sorted(rows, key=lambda row: (row.customer_id, row.hold_id)):
            if row.hold_id in ended:
                self._book(row)
                self._store.events[row.id] = row
                if row.missing is not None:
                    self._store.unpriced[row.id] = row.missing
                self._add(row, sums_of(row))
        return ended

    async def correct(self, rows: Sequence[EventRow]) -> set[UUID]:
        accounted = await self.settled(rows)
        for row in rows:
            swept = self._swept_event(row)
            if row.hold_id not in accounted and swept is not None:
                written = [
                    Written(one.revision, one.reason, one.new) for one in self._store.corrections[swept.id]
                ]
                move, booking = claims.move_of(row, self._standing(row), swept.id)
                amendment = late_settlement(swept, written, claims.booked_row(row, booking), move)
                if amendment is not None and self._amend(amendment):
                    claims.apply(row, booking)
                accounted.add(row.hold_id)
        return accounted

    async def amend(self, amendments: Sequence[Amendment]) -> set[UUID]:
        return {one.event_id for one in amendments if self._amend(one)}

    async def settled(self, rows: Sequence[EventRow]) -> set[UUID]:
        return {row.hold_id for row in rows if row.id in self._store.events}

    async def conflicting(self, rows: Sequence[HoldRow]) -> set[UUID]:
        return {row.id for row in rows if not self._claims(row)}

    async def release(self, rows: Sequence[HoldRow]) -> None:
        for row in rows:
            self._store.holds.pop(row.id, None)

    async def held(self, ids: Sequence[tuple[UUID, UUID]]) -> set[UUID]:
        return {hold for _, hold in ids if hold in self._store.holds}

    async def swept(self, rows: Sequence[HoldRow]) -> set[UUID]:
        ended = {one.execution_id for one in self._store.events.values() if one.status == "interrupted"}
        return {row.id for row in rows if str(row.id) in ended}

    async def quarantine(self, row: EventRow | HoldRow, reason: str) -> None:
        self._store.quarantined[row.id] = reason
        self._store.holds.pop(row.hold_id if isinstance(row, EventRow) else row.id, None)

    async def writer_state(self, writer: UUID) -> WriterState | None:
        return self._store.writers.get(writer)

    async def close(self) -> None:
        """Nothing to give back."""

    def _advance(self, writer: UUID, seq: int, contribution: Contribution | None) -> None:
        if contribution is not None:
            raise TypeError("the in-memory store cannot run the SQL that this gate contributes")
        state = self._store.writers.get(writer)
        if state is not None and (state.fenced or state.seq != seq - 1):
            raise SequenceRefused(f"{seq} is not the next number of writer {writer}")
        self._store.writers[writer] = WriterState(seq=seq, fenced=False)

    def _room(self, row: HoldRow, limit: Limit) -> Decimal:
        """What is left under a limit for the customer of this hold."""
        used = sum(
            (
                self._measured(limit, event)
                for event in self._store.events.values()
                if _counts(limit, event, row)
            ),
            Decimal(0),
        )
        in_flight = (
            one
            for one in self._store.holds.values()
            if _is_of(limit, one, row) and _in(limit, one.created_at)
        )
        return limit.most - used - sum((part_of(limit, one) for one in in_flight), Decimal(0))

    def _measured(self, limit: Limit, event: EventRow) -> Decimal:
        """What an event comes to by now."""
        news = [one.new for one in self._store.corrections[event.id]]
        event = as_corrected(event, news)
        if limit.measure == "tokens":
            return Decimal(event.tokens_total or 0)
        return (event.charge_total or Decimal(0)) if limit.measure == "charge" else event.quantity

    def _claims(self, row: HoldRow) -> bool:
        """Claim the row's key for its payload. False when it stands for another one."""
        if row.claim is None:
            return True
        key, mine = (row.customer_id, row.claim.key_hash), Standing(row.claim.payload_hash)
        return self._store.keys.setdefault(key, mine).payload_hash == row.claim.payload_hash

    def _book(self, row: EventRow) -> None:
        """Change a row with a key to what of it counts."""
        move, booking = claims.move_of(row, self._standing(row), row.id)
        self._move(row.customer_id, move)
        claims.apply(row, booking)

    def _standing(self, row: EventRow) -> Standing | None:
        return self._store.keys.get((row.customer_id, row.claim.key_hash)) if row.claim is not None else None

    def _move(self, customer_id: UUID, move: KeyMove | None) -> None:
        if move is not None:
            self._store.keys[customer_id, move.key_hash] = move.after

    def _swept_event(self, row: EventRow) -> EventRow | None:
        hold = str(row.hold_id)
        candidates = (e for e in self._store.events.values() if e.status == "interrupted" and e.id != row.id)
        return next((event for event in candidates if event.execution_id == hold), None)

    def _amend(self, amendment: Amendment) -> bool:
        written = self._store.corrections[amendment.event_id]
        if len(written) != amendment.revision:
            return False  # somebody else was first
        if not amendment.corrections and amendment.event_id not in self._store.unpriced:
            return False
        key = amendment.key
        if key is not None and self._store.keys[amendment.customer_id, key.key_hash] not in (
            key.before,
            key.after,
        ):
            return False
        self._move(amendment.customer_id, key)
        for row in amendment.corrections:
            written.append(row)
            self._add(row, {name: getattr(row, name) for name in DAILY_SUMS})
        if amendment.missing is None:
            self._store.unpriced.pop(amendment.event_id, None)
        else:
            self._store.unpriced[amendment.event_id] = amendment.missing
        return True

    def _add(self, row: EventRow | CorrectionRow, added: dict[str, Any]) -> None:
        sums = self._store.daily[tuple(getattr(row, name) for name in DAILY_KEY)]
        for name, amount in added.items():
            sums[name] += amount
