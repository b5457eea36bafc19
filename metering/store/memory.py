"""The recorder in memory: for demos, for trying metering in a test, and as the model that the databases are compared with.

Everything is lost with the process. It keeps the same promises otherwise: numbers are applied once, a settle does nothing
without its hold, a late settle becomes a correction.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from metering.gate import Contribution
from metering.rows import EventRow, HoldRow
from metering.store.base import SequenceRefused, WriterState
from metering.store.sql import DAILY_KEY, DAILY_SUMS

DailyKey = tuple[Any, ...]


class MemoryStore:
    """Tables as dictionaries. Contributions of a gate are SQL and cannot run here: a gate that has one is refused."""

    def __init__(self) -> None:
        self.holds: dict[UUID, HoldRow] = {}
        self.events: dict[UUID, EventRow] = {}
        self.corrections: list[tuple[UUID, int, dict[str, Decimal]]] = []
        self.unpriced: dict[UUID, EventRow] = {}  # by event id: those that a rate could still price
        self.quarantined: dict[UUID, str] = {}
        self.daily: defaultdict[DailyKey, dict[str, Decimal]] = defaultdict(
            lambda: dict.fromkeys(DAILY_SUMS, Decimal(0))
        )
        self.writers: dict[UUID, WriterState] = {}

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


class MemoryLane:
    """A lane onto the dictionaries of one MemoryStore."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def hold(
        self, writer: UUID, seq: int, rows: Sequence[HoldRow], contribution: Contribution | None
    ) -> set[UUID]:
        self._advance(writer, seq, contribution)
        self._store.holds.update((row.id, row) for row in rows)
        return {row.id for row in rows}

    async def settle(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], contribution: Contribution | None
    ) -> set[UUID]:
        self._advance(writer, seq, contribution)
        ended = {row.hold_id for row in rows if self._store.holds.pop(row.hold_id, None) is not None}
        for row in rows:
            if row.hold_id in ended:
                self._store.events[row.id] = row
                if row.missing is not None:
                    self._store.unpriced[row.id] = row
                self._add(row, 1)
        return ended

    async def correct(self, rows: Sequence[EventRow]) -> set[UUID]:
        accounted = await self.settled(rows)
        for row in rows:
            swept = self._swept_event(row)
            if row.hold_id in accounted or swept is None:
                continue
            accounted.add(row.hold_id)
            if any(event_id == swept.id for event_id, _, _ in self._store.corrections):
                continue
            self._store.corrections += [(swept.id, 1, sums_of(swept, -1)), (swept.id, 2, sums_of(row, 1))]
            self._add(swept, -1)
            self._add(row, 1)
        return accounted

    async def settled(self, rows: Sequence[EventRow]) -> set[UUID]:
        return {row.hold_id for row in rows if row.id in self._store.events}

    async def release(self, rows: Sequence[HoldRow]) -> None:
        for row in rows:
            self._store.holds.pop(row.id, None)

    async def held(self, ids: Sequence[tuple[UUID, UUID]]) -> set[UUID]:
        return {hold for _, hold in ids if hold in self._store.holds}

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

    def _swept_event(self, row: EventRow) -> EventRow | None:
        hold = str(row.hold_id)
        candidates = (e for e in self._store.events.values() if e.status == "interrupted" and e.id != row.id)
        return next((event for event in candidates if event.execution_id == hold), None)

    def _add(self, row: EventRow, sign: int) -> None:
        sums = self._store.daily[tuple(getattr(row, name) for name in DAILY_KEY)]
        for name, amount in sums_of(row, sign).items():
            sums[name] += amount


def sums_of(row: EventRow, sign: int) -> dict[str, Decimal]:
    """What one event adds to daily usage; `sign` -1 takes it away."""
    values = msgspec.structs.asdict(row)
    sums = {name: Decimal(values.get(name) or 0) for name in DAILY_SUMS}
    sums["events"] = Decimal(1)
    sums["unpriced_events"] = Decimal(row.pricing_status in ("unpriced", "partial"))
    sums["estimated_events"] = Decimal(row.usage_source in ("estimated", "reported_partial"))
    return {name: amount * sign for name, amount in sums.items()}
