"""What every store offers, and the four ways a batch can fail.

StoreError
├── SequenceRefused   this number was applied already, or the writer is fenced: ask `writer_state`
├── BadRow            the database refuses the content: nothing of the batch was written
├── Locked            somebody else holds a row for too long: nothing of the batch was written
└── Unavailable       the connection failed: it is unknown whether the batch was written
"""

from collections.abc import Iterable, Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from metering.gate import Contribution
from metering.limits import Exceeded
from metering.rows import Amendment, EventRow, HoldRow


class StoreError(Exception):
    """A batch was not written, or may not have been."""


class SequenceRefused(StoreError):
    """The batch's number is not the writer's next one, or the writer is fenced."""


class BadRow(StoreError):
    """The database refuses a value in the batch. Nothing was written."""


class Locked(StoreError):
    """A lock, a deadlock or a statement limit stopped the batch. Nothing was written."""


class Unavailable(StoreError):
    """The connection failed. Whether the batch was committed is unknown; throw the lane away and ask again."""


class WriterState(msgspec.Struct, frozen=True):
    """A writer's row: the number of the last batch applied, and whether it was declared dead."""

    seq: int
    fenced: bool


class Held(msgspec.Struct):
    """What became of a batch of holds. Whoever is in none of the three was refused by the gate, or by its key."""

    admitted: set[UUID]
    exceeded: dict[UUID, Exceeded] = {}  # what a hold does not fit under
    undecided: set[UUID] = set()  # to be asked again: it depends on others of the same batch


class Lane(Protocol):
    """One connection, used by one task at a time. After any error but BadRow and SequenceRefused it is closed for good."""

    async def hold(
        self, writer: UUID, seq: int, rows: Sequence[HoldRow], contribution: Contribution | None
    ) -> Held:
        """Write holds that fit under their limits, whose key stands for no other payload, and whom the contribution admits."""

    async def conflicting(self, rows: Sequence[HoldRow]) -> set[UUID]:
        """The ids of those holds whose key stands for another payload."""

    async def settle(
        self, writer: UUID, seq: int, rows: Sequence[EventRow], contribution: Contribution | None
    ) -> set[UUID]:
        """End holds and write their events with daily usage; the hold ids that were still there (others: nothing done).
        A row with a key is changed to what of it counts, as soon as that is committed (`metering.store.claims`)."""

    async def correct(self, rows: Sequence[EventRow]) -> set[UUID]:
        """For settlements whose hold was swept: correct the swept event to the truth. The hold ids that are accounted
        for: corrected now or before, or settled before. May be repeated."""

    async def amend(self, amendments: Sequence[Amendment]) -> set[UUID]:
        """Correct events of one customer, each once, with daily usage and the list of what is unpriced. The ids of the
        events that are now as the amendment says; the others were corrected by somebody else meanwhile. May be repeated."""

    async def release(self, rows: Sequence[HoldRow]) -> None:
        """Delete holds of calls that never went out, and free what they reserved. May be repeated."""

    async def held(self, ids: Sequence[tuple[UUID, UUID]]) -> set[UUID]:
        """Which of these holds, given as (customer id, hold id), exist."""

    async def settled(self, rows: Sequence[EventRow]) -> set[UUID]:
        """Hold ids of those rows whose own event is in the table."""

    async def swept(self, rows: Sequence[HoldRow]) -> set[UUID]:
        """The ids of those holds that a sweep has ended, whose processes were thought dead."""

    async def quarantine(self, row: EventRow | HoldRow, reason: str) -> None:
        """Keep a row that the table refuses, with the reason, and end its hold. May be repeated."""

    async def writer_state(self, writer: UUID) -> WriterState | None:
        """The writer's row, if there is one."""

    async def close(self) -> None:
        """Throw the connection away. Raises nothing."""


class Store(Protocol):
    """A database that takes holds and events. `books`: what moves balances where no gate is asked; None where there are none."""

    books: Contribution | None

    async def open_lane(self, name: str) -> Lane:
        """A new connection. Raises Unavailable."""

    def beat(self, writers: Iterable[UUID]) -> None:
        """Say that these writers are alive, from a thread of its own. Raises Unavailable."""

    def retire(self, writers: Iterable[UUID]) -> None:
        """Say that these writers have ended: nothing more is taken from them, and what they left is swept at once.
        Raises Unavailable."""

    def check(self) -> list[str]:
        """What about the database breaks the promises made here (durability off …); empty when all is well."""

    def close(self) -> None:
        """Give back what `beat` and `check` hold open."""
