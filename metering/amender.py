"""Writes amendments through one lane of a store, one customer a transaction; for jobs and commands, which have no loop.

What can go wrong with a page is told apart: an event that the database refuses stands alone and is named, the others of its
customer go on; a customer who is locked is tried again a few times.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import groupby
from types import TracebackType
from typing import Self
from uuid import UUID

import msgspec

from metering.rows import Amendment
from metering.store.base import BadRow, Lane, Locked, Store

log = logging.getLogger("metering.amender")

LOCKED_TRIES = 5
LOCKED_PAUSE_S = 0.2


class Outcome(msgspec.Struct):
    """What became of amendments, by event id: written; refused by the database; and those whose customer is locked. The rest
    were corrected by somebody else since they were read."""

    done: set[UUID] = msgspec.field(default_factory=set)
    refused: set[UUID] = msgspec.field(default_factory=set)
    locked: set[UUID] = msgspec.field(default_factory=set)


class Amender:
    """A lane and the loop that it runs on, for as long as the `with` block lasts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runner = asyncio.Runner()
        self._lane: Lane | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        lane, self._lane = self._lane, None
        if lane is not None:
            self._runner.run(lane.close())
        self._runner.close()

    def write(self, amendments: Iterable[Amendment]) -> Outcome:
        """Write these, in the order of their customers and events. Raises Unavailable: then it is unknown what was written,
        and reading the events again tells."""
        return self._runner.run(
            self._write(sorted(amendments, key=lambda one: (one.customer_id, one.event_id)))
        )

    async def _write(self, amendments: Sequence[Amendment]) -> Outcome:
        outcome = Outcome()
        if self._lane is None:
            self._lane = await self._store.open_lane("amend")
        for _, group in groupby(amendments, key=lambda one: one.customer_id):
            await self._write_customer(self._lane, list(group), outcome)
        return outcome

    async def _write_customer(self, lane: Lane, group: list[Amendment], outcome: Outcome) -> None:
        parts, tries = deque([group]), 0
        while parts:
            part = parts.popleft()
            try:
                outcome.done |= await lane.amend(part)
            except Locked as error:
                tries += 1
                if tries == LOCKED_TRIES:
                    log.warning("customer %s is locked: %s", part[0].customer_id, error)
                    outcome.locked |= {one.event_id for rest in (part, *parts) for one in rest}
                    return
                parts.appendleft(part)
                await asyncio.sleep(LOCKED_PAUSE_S)
            except BadRow as error:
                if len(part) == 1:
                    log.error("event %s cannot be corrected: %s", part[0].event_id, error)
                    outcome.refused.add(part[0].event_id)
                else:
                    middle = len(part) // 2
                    parts.extendleft((part[middle:], part[:middle]))
