"""Stores that misbehave on purpose: real ones, with a network in between that loses what it is told to lose."""

from collections.abc import Iterable, Sequence
from typing import TypeVar
from uuid import UUID

from metering.gate import Contribution
from metering.rows import Amendment, EventRow, HoldRow
from metering.store.base import Held, Lane, Locked, Store, Unavailable, WriterState

T = TypeVar("T")


class LossyStore:
    """Passes everything on to a real store. `lose_answers` of the next batches are applied and then reported as failed;
    `lose_requests` fail before they arrive; `lock` that many times a batch is refused for a lock. `batches`: how many rows
    each batch had that was sent."""

    def __init__(self, store: Store) -> None:
        self.store, self.books = store, store.books
        self.lose_answers = self.lose_requests = self.lock = self.lock_corrections = 0
        self.lanes_opened = 0
        self.batches: list[int] = []

    async def open_lane(self, name: str) -> Lane:
        self.lanes_opened += 1
        return LossyLane(self, await self.store.open_lane(name))

    def beat(self, writers: Iterable[UUID]) -> None:
        self.store.beat(writers)

    def retire(self, writers: Iterable[UUID]) -> None:
        self.store.retire(writers)

    def check(self) -> list[str]:
        return self.store.check()

    def close(self) -> None:
        self.store.close()


class LossyLane:
    """A lane of a LossyStore. Unusable after a failure, as a broken connection is."""

    def __init__(self, network: LossyStore, lane: Lane) -> None:
        self._network, self._lane, self._broken = network, lane, False

    async def hold(
        self, writer: UUID, seq: int, rows: Sequence[HoldRow], contribution: Contribution | None
    ) -> Held:
        self._before(rows)
        return self._after(await self._lane.hold(writer, seq, rows, contribution))

    async def settle(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], contribution: Contribution | None
    ) -> set[UUID]:
        self._before(rows)
        return self._after(await self._lane.settle(writer, seq, rows, contribution))

    async def conflicting(self, rows: Sequence[HoldRow]) -> set[UUID]:
        return await self._lane.conflicting(rows)

    async def correct(self, rows: Sequence[EventRow]) -> set[UUID]:
        if self._network.lock_corrections > 0:
            self._network.lock_corrections -= 1
            raise Locked("somebody else holds the row")
        return await self._lane.correct(rows)

    async def amend(self, amendments: Sequence[Amendment]) -> set[UUID]:
        return await self._lane.amend(amendments)

    async def release(self, rows: Sequence[HoldRow]) -> None:
        await self._lane.release(rows)

    async def held(self, ids: Sequence[tuple[UUID, UUID]]) -> set[UUID]:
        return await self._lane.held(ids)

    async def settled(self, rows: Sequence[EventRow]) -> set[UUID]:
        return await self._lane.settled(rows)

    async def swept(self, rows: Sequence[HoldRow]) -> set[UUID]:
        return await self._lane.swept(rows)

    async def quarantine(self, row: EventRow | HoldRow, reason: str) -> None:
        await self._lane.quarantine(row, reason)

    async def writer_state(self, writer: UUID) -> WriterState | None:
        return await self._lane.writer_state(writer)

    async def close(self) -> None:
        await self._lane.close()

    def _before(self, rows: Sequence[HoldRow | EventRow]) -> None:
        self._network.batches.append(len(rows))
        if self._broken:
            raise Unavailable("this connection is broken")
        if self._network.lock > 0:
            self._network.lock -= 1
            raise Locked("somebody else holds the row")
        if self._network.lose_requests > 0:
            self._network.lose_requests -= 1
            self._broken = True
            raise Unavailable("the request was lost")

    def _after(self, answer: T) -> T:
        if self._network.lose_answers > 0:
            self._network.lose_answers -= 1
            self._broken = True
            raise Unavailable("the answer was lost")
        return answer
