"""One process of a crowd: holds, "calls" and settles until it has made its calls or is killed.

    python -m tests.chaos.crowd '{"store": …, "seed": 1, "calls": 300, "customers": 20, "went_out": "file", "go": "file",
        "credits": true, "story": "file"}'

The line that it appends to `went_out` stands for the call to the provider: what is there happened, and must be in the books.
With credits each call reserves some, and may be refused. The story tells when each step began and ended, by a clock that all
processes of the machine share.
"""

import asyncio
import json
import os
import random
import sys
import time
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from billing import ledger_sql
from billing.admission import BillingGate, Snapshot
from metering.gate import OpenGate
from metering.recorder import Recorder, RecorderUnavailable
from metering.store.base import Store
from metering.store.postgres import PostgresStore
from metering.store.sqlite import SqliteStore
from tests.metering.rows import a_hold, an_event

CONCURRENT = 40
# What a call may cost and what it comes to; now and then more than it had reserved.
RESERVES, COMES_TO = ("0.25", "0.5", "1", "1.75"), ("0", "0.1", "0.25", "0.5", "0.999999999999", "2")


def store_of(target: dict[str, Any]) -> Store:
    """`{"sqlite": path}` or `{"postgresql": conninfo}`."""
    if "sqlite" in target:
        return SqliteStore(target["sqlite"], ledger_sql.BOOKS)
    return PostgresStore(target["postgresql"], ledger_sql.BOOKS)


async def nobody(digest: str) -> Snapshot | None:
    """No key is asked for here."""


class Story:
    """What happened when, a line each: `hold id customer amount`, `held id 0|1`, `settle id charge`, `settled id`."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def tell(self, *words: object) -> None:
        os.write(self._file, f"{time.monotonic_ns()} {' '.join(map(str, words))}\n".encode())


async def make_calls(order: dict[str, Any]) -> None:
    """Make the calls, at most CONCURRENT at a time."""
    rng = random.Random(order["seed"])
    gate = BillingGate(nobody) if order["credits"] else OpenGate()
    recorder = Recorder(store_of(order["store"]), gate, beat_s=0.2, deadline_s=60)
    story = Story(order["story"])
    went_out = os.open(order["went_out"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    while not Path(order["go"]).exists():  # noqa: ASYNC110, ASYNC240  the starting shot, so that all run against each other
        await asyncio.sleep(0.005)
    slots = asyncio.Semaphore(CONCURRENT)

    async def one_call(pause: float, customer: int, reserves: Decimal, comes_to: Decimal) -> None:
        async with slots:
            hold = a_hold(UUID(int=customer + 1), at=datetime.now(UTC), amount=reserves)
            story.tell("hold", hold.id, hold.customer_id, reserves)
            try:
                admitted = await recorder.hold(hold)
            except RecorderUnavailable:
                return
            story.tell("held", hold.id, int(admitted))
            if not admitted:
                return
            os.write(went_out, f"{hold.id}\n".encode())
            await asyncio.sleep(pause)
            story.tell("settle", hold.id, comes_to)
            await recorder.settle(an_event(hold, charge_total=comes_to, on_credit=order["credits"]))
            story.tell("settled", hold.id)

    calls = [
        (
            rng.random() * 0.01,
            rng.randrange(order["customers"]),
            Decimal(rng.choice(RESERVES) if order["credits"] else 0),
            Decimal(rng.choice(COMES_TO)),
        )
        for _ in range(order["calls"])
    ]
    await asyncio.gather(*(one_call(*call) for call in calls))
    await recorder.stop(timeout_s=60)


if __name__ == "__main__":
    asyncio.run(make_calls(json.loads(sys.argv[1])))
    print("done")
