"""Settlements that come too late: their hold is gone, and something else stands for the call."""

import asyncio
import logging
from collections import deque

from metering.batching import BACKOFF_S, Batch
from metering.rows import EventRow
from metering.store.base import BadRow, Lane, Locked, Store

log = logging.getLogger("metering.recorder")


async def correct_surely(store: Store, late: Batch[EventRow]) -> None:
    """Book what has no hold any more: it was swept while this process was thought dead, or settled by an attempt before.
    Row by row, until the database has answered for each; repeating changes nothing."""
    waiting, lane, failures = deque(late), None, 0
    while waiting:
        try:
            lane = lane or await store.open_lane("correct")
            await account_for(lane, waiting[0].row)
            waiting.popleft().resolve(True)
            failures = 0
            continue
        except Locked:
            waiting.rotate(-1)
        except Exception as error:  # noqa: BLE001  the database is away: there is nothing to do but to come again
            log.warning("a late settlement is not booked yet: %s", error)
            if lane is not None:
                await lane.close()
                lane = None
        await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
        failures += 1
    if lane is not None:
        await lane.close()


async def account_for(lane: Lane, row: EventRow) -> None:
    """Have the books account for a settlement that had no hold, or put it away. Raises Locked and Unavailable."""
    try:
        accounted = await lane.correct([row])
        reason = "its hold is gone and no event accounts for it"
    except BadRow as error:
        accounted, reason = set(), str(error)
    if row.hold_id not in accounted:
        log.error("event %s is quarantined: %s", row.id, reason)
        await lane.quarantine(row, reason)
