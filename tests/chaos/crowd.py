"""One process of a crowd: holds, "calls" and settles until it has made its calls or is killed.

    python -m tests.chaos.crowd '{"store": …, "seed": 1, "calls": 300, "customers": 20, "went_out": "file", "go": "file"}'

The line that it appends to `went_out` stands for the call to the provider: what is there happened, and must be in the books.
"""

import asyncio
import json
import os
import random
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from metering.gate import OpenGate
from metering.recorder import Recorder, RecorderUnavailable
from metering.store.base import Store
from metering.store.postgres import PostgresStore
from metering.store.sqlite import SqliteStore
from tests.metering.rows import a_hold, an_event

CONCURRENT = 40


def store_of(target: dict[str, Any]) -> Store:
    """`{"sqlite": path}` or `{"postgresql": conninfo}`."""
    return SqliteStore(target["sqlite"]) if "sqlite" in target else PostgresStore(target["postgresql"])


async def make_calls(order: dict[str, Any]) -> None:
    """Make the calls, at most CONCURRENT at a time."""
    rng = random.Random(order["seed"])
    recorder = Recorder(store_of(order["store"]), OpenGate(), beat_s=0.2, deadline_s=60)
    went_out = os.open(order["went_out"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while not Path(order["go"]).exists():  # noqa: ASYNC110, ASYNC240  the starting shot, so that all run against each other
        await asyncio.sleep(0.005)
    slots = asyncio.Semaphore(CONCURRENT)

    async def one_call(pause: float, customer: int) -> None:
        async with slots:
            hold = a_hold(UUID(int=customer + 1), at=datetime.now(UTC))
            try:
                await recorder.hold(hold)
            except RecorderUnavailable:
                return
            os.write(went_out, f"{hold.id}\n".encode())
            await asyncio.sleep(pause)
            await recorder.settle(an_event(hold))

    pauses = [(rng.random() * 0.01, rng.randrange(order["customers"])) for _ in range(order["calls"])]
    await asyncio.gather(*(one_call(pause, customer) for pause, customer in pauses))
    await recorder.stop(timeout_s=60)


if __name__ == "__main__":
    asyncio.run(make_calls(json.loads(sys.argv[1])))
    print("done")
