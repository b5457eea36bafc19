"""One balance under many hands at once, near its end: nothing is refused by a constraint that the row as it is would satisfy.

PostgreSQL checks a constraint against the version of the row that the statement saw, not the one that it finds, unless a
trigger makes it look first (`billing.migrations.0003_ledger`).
"""

import asyncio
import threading
from collections.abc import Awaitable
from datetime import UTC, datetime
from decimal import Decimal
from uuid import uuid4

import pytest
from django.db import connections
from django.db.models import Sum

from billing import ledger
from billing.ledger_check import check_ledger
from billing.ledger_sql import BOOKS, HOLD
from billing.models import Balance, Customer
from metering.models import UsageCorrection
from metering.store.base import BadRow, Lane
from metering.wiring import current_store
from pricing import clock
from tests.billing.rows import payer
from tests.metering.rows import a_hold, an_event

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.engine("postgresql")]
SPENDERS, LATE_CALLS = 3, 200


class Fray:
    """Spenders hold and settle as much as fits, until those whose calls come back late are through."""

    def __init__(self, customer: Customer) -> None:
        self.customer, self.over, self.refused = customer, threading.Event(), list[str]()

    async def spend(self) -> None:
        lane = await current_store().open_lane("spender")
        while not self.over.is_set():
            await self._tried(self._spend_once(lane))
        await lane.close()

    async def come_late(self) -> None:
        lane = await current_store().open_lane("late")
        for number in range(LATE_CALLS):
            await self._tried(self._late_once(lane))
            if number % 10 == 0:
                await asyncio.to_thread(self._refill)
        await lane.close()
        self.over.set()

    async def _spend_once(self, lane: Lane) -> None:
        holds = [
            a_hold(self.customer.pk, datetime.now(UTC), amount=Decimal(one)) for one in ("0.25", "0.5", "1")
        ]
        admitted = (await lane.hold(uuid4(), 1, holds, HOLD)).admitted
        charges, posting = (Decimal("0.1"), Decimal(0), Decimal("0.000001")), uuid4()
        events = [
            an_event(hold, charge_total=charge, posting_id=posting)
            for hold, charge in zip(holds, charges, strict=True)
            if hold.id in admitted
        ]
        await lane.settle(uuid4(), 1, events, BOOKS)

    async def _late_once(self, lane: Lane) -> None:
        hold = a_hold(self.customer.pk, datetime.now(UTC))
        await lane.hold(uuid4(), 1, [hold], HOLD)
        swept = an_event(hold, status="interrupted", charge_total=Decimal(0), posting_id=hold.id)
        await lane.settle(uuid4(), 1, [swept], BOOKS)
        await lane.correct([an_event(hold, charge_total=Decimal("0.25"))])

    async def _tried(self, act: Awaitable[None]) -> None:
        try:
            await act
        except BadRow as error:
            self.refused.append(str(error))

    def _refill(self) -> None:
        try:
            ledger.grant(self.customer, Decimal(1), "USD", key=str(uuid4()), at=clock.now())
        finally:
            connections.close_all()


def test_many_hands_on_a_balance_near_its_end_are_refused_nothing_that_fits() -> None:
    customer, _ = payer()
    ledger.set_hard(customer, hard=True)
    fray = Fray(customer)
    threads = [threading.Thread(target=lambda: asyncio.run(fray.spend())) for _ in range(SPENDERS)]
    for thread in threads:
        thread.start()
    asyncio.run(fray.come_late())
    for thread in threads:
        thread.join()
    assert fray.refused == []
    assert list(check_ledger()) == []
    row = Balance.objects.get(customer=customer)
    corrections = UsageCorrection.objects.aggregate(total=Sum("charge_total"))["total"]
    assert row.consumed > corrections, "settled calls were charged, and not late ones alone"
    assert row.held == 0 and row.written_off > 0, "it was near its end"
