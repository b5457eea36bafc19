"""What credits and limits cost: both phases through the recorder's two lanes, with and without balances, over many customers and on one.

What it does not show: HTTP, and several processes at once.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from uuid import UUID, uuid4

import msgspec
import psycopg

from benchmarks.database import CUSTOMERS, events_of, hold_of, truncate
from benchmarks.figures import Figure, median
from benchmarks.gate import LIMITS
from benchmarks.servers import ROOT, conninfo, postgresql
from billing.ledger_sql import BOOKS, HOLD as RESERVE
from metering.gate import Contribution
from metering.limits import Limit
from metering.store.postgres import PostgresStore

BATCH, BATCHES, ROUNDS = 64, 150, 5
HOLD, CHARGE = Decimal("0.002"), Decimal("0.0007")
_GIVE = """
import django; django.setup()
from decimal import Decimal
from uuid import UUID
from billing import ledger
from billing.models import Customer
from pricing import clock
for number in range(100):
    customer = Customer.objects.create(id=UUID(int=number + 1), external_id=f"customer-{number}", name="Bench")
    ledger.set_hard(customer, hard=True)
    ledger.grant(customer, Decimal(1_000_000), "USD", key="bench", at=clock.now())
"""


def measure() -> Iterator[Figure]:
    """Neighbouring rounds, each on empty tables of events."""
    with postgresql() as url:
        _calls(url, CUSTOMERS, None)
        unused = [(_calls(url, CUSTOMERS, None), _calls(url, CUSTOMERS, BOOKS)) for _ in range(ROUNDS)]
        give(url)
        used = [
            (
                _calls(url, CUSTOMERS, None),
                _calls(url, CUSTOMERS, BOOKS, HOLD),
                _calls(url, CUSTOMERS[:1], BOOKS, HOLD),
            )
            for _ in range(ROUNDS)
        ]
        limited = [
            (
                _calls(url, CUSTOMERS, None),
                _calls(url, CUSTOMERS, None, limits=LIMITS),
                _calls(url, CUSTOMERS[:1], None, limits=LIMITS),
            )
            for _ in range(ROUNDS)
        ]
        _check(url)
    yield Figure(
        "limits: one hot customer / many customers",
        median([hot / many for _, many, hot in limited]),
        "ratio",
        goal=0.80,
    )
    yield Figure(
        "limits: a quota, a budget and calls at once each / none",
        median([many / plain for plain, many, _ in limited]),
        "ratio",
    )
    yield Figure(
        "credits: one hot customer / many customers",
        median([hot / many for _, many, hot in used]),
        "ratio",
        goal=0.80,
    )
    yield Figure(
        "credits: nobody has any / no ledger", median([kept / plain for plain, kept in unused]), "ratio"
    )
    yield Figure(
        "credits: all pay with them / no ledger", median([many / plain for plain, many, _ in used]), "ratio"
    )
    yield Figure(
        f"credits: both phases, batches of {BATCH}, many customers",
        median([many for _, many, _ in used]),
        "calls/s",
    )
    yield Figure(
        f"credits: both phases, batches of {BATCH}, one customer",
        median([hot for *_, hot in used]),
        "calls/s",
    )


def give(url: str) -> None:
    """Credits for every customer."""
    subprocess.run(
        [sys.executable, "-c", _GIVE], cwd=ROOT, check=True,
        env={**os.environ, "DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "project.settings"},
    )  # fmt: skip


def _calls(
    url: str,
    customers: list[UUID],
    books: Contribution | None,
    amount: Decimal = Decimal(0),
    limits: tuple[Limit, ...] = (),
) -> float:
    """Calls a second, held and settled batch by batch."""

    async def main() -> float:
        store = PostgresStore(conninfo(url), books)
        holding, settling = await store.open_lane("hold"), await store.open_lane("settle")
        holder, settler, spent = uuid4(), uuid4(), 0.0
        for number in range(1, BATCHES + 1):
            events = [
                msgspec.structs.replace(
                    event, customer_id=customers[place % len(customers)], charge_total=CHARGE
                )
                for place, event in enumerate(events_of(BATCH))
            ]
            postings: dict[UUID, UUID] = {}
            for event in events:
                event.posting_id = postings.setdefault(event.customer_id, event.id)
            holds = [
                msgspec.structs.replace(hold_of(event), amount=amount, limits=limits, tokens_most=300)
                for event in events
            ]
            began = time.perf_counter()
            held = await holding.hold(holder, number, holds, RESERVE if amount else None)
            await settling.settle(settler, number, events, books)
            spent += time.perf_counter() - began
            assert len(held.admitted) == BATCH
        await holding.close()
        await settling.close()
        return spent

    spent = asyncio.run(main())
    truncate(url)
    return BATCH * BATCHES / spent


def _check(url: str) -> None:
    """The ledger must agree, or the figure is worth nothing."""
    with psycopg.connect(**conninfo(url)) as connection:
        row = connection.execute("select sum(held), sum(consumed) from billing_balances").fetchone()
    assert row == (0, 2 * ROUNDS * BATCH * BATCHES * CHARGE), row
