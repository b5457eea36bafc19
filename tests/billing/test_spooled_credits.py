"""Credits of customers whose plan lets their calls out while the database is away: charged at the drain, by the usual rules."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from billing.ledger_check import check_ledger, check_postings
from billing.models import Balance, Customer, Entry
from metering.models import Hold, UsageEvent
from metering.rows import HoldRow
from metering.spool import Spool, drain_abandoned
from metering.wiring import current_store
from tests.billing.test_credits_in_flight import call, comes_to, with_credits

pytestmark = pytest.mark.django_db(transaction=True)


def spooled_and_drained(root: Path, *calls: tuple[HoldRow, str]) -> None:
    """Calls that went out and were answered without the database, and the drain when it is back."""
    spool = Spool(root, 2**24)

    async def act() -> None:
        for hold, charge in calls:
            await spool.hold(hold)
            durable = asyncio.Event()
            spool.event(comes_to(hold, charge), durable.set)
            await durable.wait()

    asyncio.run(act())
    spool.close()
    store = current_store()
    assert drain_abandoned(store, root) == 0
    store.close()


def money_of(customer: Customer) -> tuple[Decimal, Decimal, Decimal, Decimal, Decimal]:
    row = Balance.objects.get(customer=customer)
    return row.available, row.held, row.consumed, row.written_off, row.receivable


def test_what_credits_cover_is_taken_from_them(tmp_path: Path) -> None:
    customer = with_credits("10")
    spooled_and_drained(tmp_path, (call(customer, "3"), "2"), (call(customer, "3"), "1.5"))
    assert money_of(customer) == (10 - 2 - Decimal("1.5"), 0, 2 + Decimal("1.5"), 0, 0)
    assert (list(check_ledger()), Hold.objects.count()) == ([], 0)


@pytest.mark.parametrize("hard", [True, False])
def test_what_they_do_not_cover_is_written_off_or_owed(tmp_path: Path, hard: bool) -> None:
    customer = with_credits("1", hard=hard)
    spooled_and_drained(tmp_path, (call(customer, "3"), "0.75"), (call(customer, "3"), "2"))
    beyond = Decimal("0.75") + 2 - 1
    assert money_of(customer) == (0, 0, Decimal("2.75"), beyond if hard else 0, 0 if hard else beyond)
    assert list(check_ledger()) == []


def test_each_entry_leads_back_to_events_of_its_time(tmp_path: Path) -> None:
    """The outage took an hour. The hourly check looks at what was posted in its window, and at the events of those postings."""
    customer = with_credits("10")
    earlier, later = call(customer, "3"), call(customer, "3")
    later.created_at += timedelta(hours=1)
    spooled_and_drained(tmp_path, (earlier, "2"), (later, "1"))
    window = (later.created_at - timedelta(minutes=30), later.created_at + timedelta(minutes=30))
    assert list(check_postings(*window)) == []
    postings = set(UsageEvent.objects.values_list("posting_id", flat=True))
    used = Entry.objects.filter(customer_id=customer.pk, kind="use")
    assert set(used.values_list("posting_id", flat=True)) == postings
    assert len(postings) == 2
    assert sum(entry.amount for entry in used) == 2 + 1
