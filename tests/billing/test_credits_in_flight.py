"""Credits under calls: reserved by the hold, burnt by the settle, freed by whatever else ends a call. On real databases."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from billing import ledger
from billing.accounts import AccountLoader
from billing.admission import BillingGate
from billing.ledger_check import Drift, check_ledger, check_postings
from billing.models import Balance, Customer, Entry
from metering import sweeper
from metering.models import Hold, UsageCorrection, UsageEvent, Writer
from metering.recorder import Recorder
from metering.rows import EventRow, HoldRow
from metering.store.base import BadRow, Lane
from metering.wiring import current_store
from pricing.pricelist import RateCard
from tests.billing.rows import payer
from tests.metering.rows import NOON, a_hold, an_event
from tests.metering.test_corrections import a_correction
from tests.metering.test_recorder import in_thread

pytestmark = pytest.mark.django_db(transaction=True)


def with_credits(amount: str, name: str = "payer", *, hard: bool = True) -> Customer:
    customer, _ = payer(name)
    ledger.set_hard(customer, hard=hard)
    ledger.grant(customer, Decimal(amount), "USD", key="k", at=NOON)
    return customer


def run(act: Callable[[Recorder], Awaitable[None]]) -> None:
    """Run `act` with a recorder behind billing's gate, and stop that one at the end."""

    async def main() -> None:
        loader = AccountLoader()
        recorder = Recorder(current_store(), BillingGate(loader.load), deadline_s=5)
        try:
            await act(recorder)
        finally:
            await recorder.stop()
            loader.close()

    asyncio.run(main())


def call(customer: Customer, holds: str) -> HoldRow:
    return a_hold(customer.pk, amount=Decimal(holds))


def comes_to(hold: HoldRow, charge: str) -> EventRow:
    return an_event(hold, charge_total=Decimal(charge), on_credit=True)


def balance(customer: Customer) -> tuple[Decimal, Decimal]:
    """What is available, and what of it is held."""
    row = Balance.objects.get(customer=customer)
    return row.available, row.held


def books_agree() -> bool:
    return list(check_ledger()) == []


def test_a_call_reserves_and_then_pays_what_it_came_to() -> None:
    customer = with_credits("10")
    hold = call(customer, "3")

    async def act(recorder: Recorder) -> None:
        assert await recorder.hold(hold)
        assert await in_thread(lambda: balance(customer)) == (10, 3)
        await recorder.settle(comes_to(hold, "1.25"))

    run(act)
    assert balance(customer) == (Decimal("8.75"), 0)
    entry, event = Entry.objects.get(kind="use"), UsageEvent.objects.get()
    assert (entry.debit, entry.credit, entry.amount) == ("available", "consumed", Decimal("1.25"))
    assert event.posting_id == entry.posting_id, "every entry leads back to its events"
    assert books_agree()


def test_holds_are_admitted_as_long_as_they_fit_to_the_last_digit() -> None:
    customer = with_credits("0.9")
    holds = [call(customer, "0.3") for _ in range(5)]

    async def act(recorder: Recorder) -> None:
        admitted = await asyncio.gather(*map(recorder.hold, holds))
        assert sorted(admitted) == [False, False, True, True, True], "3 × 0.3 = 0.9 fit, a fourth does not"

    run(act)
    assert balance(customer) == (Decimal("0.9"), Decimal("0.9"))


def test_a_call_that_is_too_large_keeps_no_smaller_one_out() -> None:
    customer = with_credits("10")
    large, small, exact = call(customer, "10.000000000001"), call(customer, "4"), call(customer, "6")

    async def act(recorder: Recorder) -> None:
        assert await asyncio.gather(*map(recorder.hold, (large, small, exact))) == [False, True, True]

    run(act)


def test_customers_in_one_batch_do_not_share_their_credits() -> None:
    rich, poor = with_credits("10", "rich"), with_credits("1", "poor")
    stranger = UUID(int=7)
    holds = [
        call(rich, "5"),
        call(poor, "5"),
        call(rich, "5"),
        a_hold(stranger, amount=Decimal(1)),
        call(poor, "0"),
    ]

    async def act(recorder: Recorder) -> None:
        assert await asyncio.gather(*map(recorder.hold, holds)) == [True, False, True, False, True]

    run(act)


def test_many_calls_of_a_batch_are_one_posting_a_customer() -> None:
    customer = with_credits("10")
    holds = [call(customer, "0.5") for _ in range(10)]

    async def act(recorder: Recorder) -> None:
        await asyncio.gather(*map(recorder.hold, holds))
        await asyncio.gather(*(recorder.settle(comes_to(hold, "0.25")) for hold in holds))

    run(act)
    assert balance(customer) == (Decimal("7.5"), 0)  # 10 − 10 × 0.25
    by_posting = {row.posting_id: row for row in UsageEvent.objects.all()}
    used = Entry.objects.filter(kind="use")
    assert set(by_posting) == {entry.posting_id for entry in used}
    assert sum(entry.amount for entry in used) == Decimal("2.5")
    if connection.vendor == "postgresql":
        assert used.count() < 10
    assert books_agree()


@pytest.mark.parametrize(
    ("charge", "available", "written_off"),
    [("4", 6, 0), ("10", 0, 0), ("10.000000000001", 0, "0.000000000001"), ("12", 0, 2)],
)
def test_beyond_its_hold_a_call_takes_what_is_free_and_the_rest_is_written_off(
    charge: str, available: int, written_off: str | int
) -> None:
    customer = with_credits("10")
    hold = call(customer, "3")

    async def act(recorder: Recorder) -> None:
        await recorder.hold(hold)
        await recorder.settle(comes_to(hold, charge))

    run(act)
    row = Balance.objects.get(customer=customer)
    assert (row.available, row.held, row.written_off) == (available, 0, Decimal(written_off))
    assert (row.consumed, row.receivable) == (Decimal(charge), 0)
    assert books_agree()


def test_a_call_never_takes_what_another_has_reserved() -> None:
    customer = with_credits("10")
    greedy, other = call(customer, "3"), call(customer, "6")

    async def act(recorder: Recorder) -> None:
        assert await asyncio.gather(recorder.hold(greedy), recorder.hold(other)) == [True, True]
        await recorder.settle(comes_to(greedy, "9"))  # its own 3 and the free 1; 5 are written off
        assert await in_thread(lambda: balance(customer)) == (6, 6)
        await recorder.settle(comes_to(other, "6"))

    run(act)
    row = Balance.objects.get(customer=customer)
    assert (row.available, row.held, row.written_off, row.consumed) == (0, 0, 5, 15)
    assert books_agree()


def test_where_no_limit_is_hard_credits_pay_first_and_the_rest_is_owed() -> None:
    customer = with_credits("1", hard=False)
    holds = [call(customer, "0"), call(customer, "0")]

    async def act(recorder: Recorder) -> None:
        for hold in holds:
            assert await recorder.hold(hold)
            await recorder.settle(comes_to(hold, "0.75"))

    run(act)
    row = Balance.objects.get(customer=customer)
    assert (row.available, row.consumed, row.receivable, row.written_off) == (
        0,
        Decimal("1.5"),
        Decimal("0.5"),
        0,
    )
    assert books_agree()


def test_calls_of_customers_without_credits_ask_the_ledger_nothing() -> None:
    gate = BillingGate(AccountLoader().load)
    free, on_credit = an_event(call(payer()[0], "0")), an_event(a_hold(), on_credit=True)
    assert gate.hold([call(payer("other")[0], "0")]) is None
    assert gate.settle([free]) is None and free.posting_id is None
    assert gate.settle([free, on_credit]) is not None
    assert (free.posting_id, on_credit.posting_id) == (None, on_credit.id)


def test_a_call_that_never_went_out_gives_its_reserve_back() -> None:
    customer = with_credits("10")
    hold = call(customer, "3")

    async def act(recorder: Recorder) -> None:
        await recorder.hold(hold)
        await recorder.release(hold)

    run(act)
    assert balance(customer) == (10, 0) and books_agree()


def test_a_row_that_is_put_away_gives_its_reserve_back() -> None:
    customer = with_credits("10")
    hold = call(customer, "3")

    async def act(recorder: Recorder) -> None:
        await recorder.hold(hold)
        await recorder.settle(an_event(hold, tokens_input=2**70, on_credit=True))

    run(act)
    assert balance(customer) == (10, 0) and Hold.objects.count() == 0 and books_agree()


def test_a_swept_call_gives_its_reserve_back_and_pays_when_it_comes_back() -> None:
    customer = with_credits("10")
    hold = call(customer, "3")

    async def act(recorder: Recorder) -> None:
        await recorder.hold(hold)
        await in_thread(sweep_everything)
        assert await in_thread(lambda: balance(customer)) == (10, 0)
        await recorder.settle(comes_to(hold, "2"))

    run(act)
    row = Balance.objects.get(customer=customer)
    assert (row.available, row.held, row.consumed, row.written_off) == (8, 0, 2, 0)
    assert UsageCorrection.objects.filter(customer_id=customer.pk).exists() and books_agree()


def test_what_comes_back_late_takes_no_more_than_is_free() -> None:
    customer = with_credits("10")
    late, other = call(customer, "3"), call(customer, "9")

    async def act(recorder: Recorder) -> None:
        await recorder.hold(late)
        await in_thread(sweep_everything)
        assert await recorder.hold(other)
        await recorder.settle(comes_to(late, "2"))
        await recorder.settle(comes_to(other, "9"))

    run(act)
    row = Balance.objects.get(customer=customer)
    assert (row.available, row.written_off, row.consumed) == (0, 1, 11)  # 2 came late: 1 was free
    assert books_agree()


def sweep_everything() -> None:
    """As if every process that holds something had died."""
    Writer.objects.update(fenced_at=NOON)
    sweeper.sweep(current_store(), RateCard.empty(), lambda: NOON + timedelta(minutes=5))


def lane_does(act: Callable[..., Awaitable[object]], rows: Iterable[object] = ()) -> None:
    async def main() -> None:
        lane = await current_store().open_lane("test")
        try:
            await act(lane, *rows)
        finally:
            await lane.close()

    asyncio.run(main())


def test_a_settle_that_is_repeated_burns_once() -> None:
    customer = with_credits("10")
    hold = call(customer, "3")
    gate = BillingGate(AccountLoader().load)

    async def act(lane: object) -> None:
        assert (await lane.hold(uuid4(), 1, [hold], gate.hold([hold]))).admitted == {hold.id}  # type: ignore[attr-defined]
        for _ in range(3):
            event = comes_to(hold, "2")
            await lane.settle(uuid4(), 1, [event], gate.settle([event]))  # type: ignore[attr-defined]

    lane_does(act)
    assert balance(customer) == (8, 0) and books_agree()


def test_a_batch_that_the_database_refuses_moves_nothing() -> None:
    customer = with_credits("10")
    good, bad = call(customer, "3"), call(customer, "3")
    gate = BillingGate(AccountLoader().load)

    async def act(lane: object) -> None:
        await lane.hold(uuid4(), 1, [good, bad], gate.hold([good, bad]))  # type: ignore[attr-defined]
        events = [comes_to(good, "2"), an_event(bad, tokens_input=2**70, on_credit=True)]
        with pytest.raises(BadRow):
            await lane.settle(uuid4(), 1, events, gate.settle(events))  # type: ignore[attr-defined]

    lane_does(act)
    assert balance(customer) == (10, 6) and books_agree()


@pytest.mark.parametrize(
    ("hard_first", "comes_down_to", "accounts"),
    [
        # 10 are there, 13 are consumed: 3 are not covered. (available, written off, owed)
        (True, "12", ("0", "2", "0")),
        (True, "10", ("0", "0", "0")),
        (True, "9", ("1", "0", "0")),
        (True, "0", ("10", "0", "0")),
        (False, "12", ("0", "0", "2")),
        (False, "10", ("0", "0", "0")),
        (False, "9", ("1", "0", "0")),
        (False, "0", ("10", "0", "0")),
    ],
)
def test_what_was_never_paid_is_taken_back_first_also_where_the_limit_changed_meanwhile(
    hard_first: bool, comes_down_to: str, accounts: tuple[str, str, str]
) -> None:
    customer = with_credits("10", hard=hard_first)
    hold = call(customer, "10")
    event = comes_to(hold, "13")

    async def act(lane: Lane) -> None:
        gate = BillingGate(AccountLoader().load)
        await lane.hold(uuid4(), 1, [hold], gate.hold([hold]))
        await lane.settle(uuid4(), 1, [event], gate.settle([event]))
        await in_thread(lambda: ledger.set_hard(customer, hard=not hard_first))
        correction = a_correction(event, charge_total=Decimal(comes_down_to))
        assert await lane.amend([correction]) == {event.id}

    lane_does(act)
    row = Balance.objects.get(customer=customer)
    assert (row.available, row.written_off, row.receivable) == tuple(map(Decimal, accounts))
    assert books_agree()


def test_of_what_is_owed_and_what_is_written_off_a_hard_limit_forgives_the_latter_first() -> None:
    """Soft: 4 of 14 are owed. Hard: 2 more are written off. Of 5 that come back 2 are written off no more, 3 owed no more."""
    customer = with_credits("10", hard=False)
    soft, hard = call(customer, "0"), call(customer, "0")
    events = comes_to(soft, "14"), comes_to(hard, "2")

    async def act(lane: Lane) -> None:
        gate = BillingGate(AccountLoader().load)
        for hold, event, is_hard in zip((soft, hard), events, (False, True), strict=True):
            await in_thread(lambda is_hard=is_hard: ledger.set_hard(customer, hard=is_hard))  # type: ignore[misc]
            await lane.hold(uuid4(), 1, [hold], gate.hold([hold]))
            await lane.settle(uuid4(), 1, [event], gate.settle([event]))
        await lane.amend([a_correction(events[0], charge_total=Decimal(9))])

    lane_does(act)
    row = Balance.objects.get(customer=customer)
    assert (row.available, row.written_off, row.receivable) == (0, 0, 1)
    assert books_agree()


def test_a_call_admitted_before_its_customer_had_credits_is_not_charged_to_them() -> None:
    """Its snapshot knew of no balance, and the event says so: it carries no posting. Alone or beside one that does."""
    customer = with_credits("10")
    before, after, alone = call(customer, "0"), call(customer, "2"), call(customer, "0")
    first = an_event(before, charge_total=Decimal(3), on_credit=False)
    second = comes_to(after, "1")
    third = an_event(alone, charge_total=Decimal(4), on_credit=False)

    async def act(lane: Lane) -> None:
        gate = BillingGate(AccountLoader().load)
        await lane.hold(uuid4(), 1, [before, after, alone], gate.hold([before, after, alone]))
        await lane.settle(uuid4(), 1, [first, second], gate.settle([first, second]))
        await lane.settle(uuid4(), 1, [third], gate.settle([third]))

    lane_does(act)
    assert balance(customer) == (9, 0)  # 10 - 1
    assert {(event.charge_total, event.posting_id is None) for event in UsageEvent.objects.all()} == {
        (3, True),
        (1, False),
        (4, True),
    }
    assert books_agree()


@pytest.mark.parametrize("corrected_to", ["0", "2", "7"])
def test_a_correction_of_a_call_from_before_its_customer_had_credits_leaves_them_alone(
    corrected_to: str,
) -> None:
    customer = with_credits("10")
    before, after = call(customer, "0"), call(customer, "5")
    first, second = an_event(before, charge_total=Decimal(3), on_credit=False), comes_to(after, "5")

    async def act(lane: Lane) -> None:
        gate = BillingGate(AccountLoader().load)
        await lane.hold(uuid4(), 1, [before, after], gate.hold([before, after]))
        await lane.settle(uuid4(), 1, [first, second], gate.settle([first, second]))
        corrections = [
            a_correction(first, charge_total=Decimal(corrected_to)),
            a_correction(second, charge_total=Decimal(4)),
        ]
        assert await lane.amend(corrections) == {first.id, second.id}

    lane_does(act)
    assert balance(customer) == (6, 0)  # 10 - 5 + (5 - 4): what the other came to was never of the credits
    assert books_agree()


def test_a_swept_call_that_had_reserved_nothing_pays_nothing_with_credits_when_it_comes_back() -> None:
    customer = with_credits("10")
    hold = call(customer, "0")

    async def act(recorder: Recorder) -> None:
        await recorder.hold(hold)
        await in_thread(sweep_everything)
        await recorder.settle(an_event(hold, charge_total=Decimal(2), on_credit=False))

    run(act)
    assert balance(customer) == (10, 0) and books_agree()


def test_the_auditor_finds_an_event_whose_charge_is_not_what_was_entered() -> None:
    customer = with_credits("10")
    hold = call(customer, "2")

    async def act(lane: Lane) -> None:
        gate = BillingGate(AccountLoader().load)
        event = comes_to(hold, "1")
        await lane.hold(uuid4(), 1, [hold], gate.hold([hold]))
        await lane.settle(uuid4(), 1, [event], gate.settle([event]))

    lane_does(act)
    window = NOON - timedelta(minutes=1), NOON + timedelta(minutes=1)
    assert list(check_postings(*window)) == []
    UsageEvent.objects.update(charge_total=Decimal("1.5"))
    (drift,) = check_postings(*window)
    assert (drift.customer_id, drift.kept, drift.counted) == (customer.pk, 1, Decimal("1.5"))
    assert list(check_postings(NOON + timedelta(minutes=1), NOON + timedelta(minutes=2))) == []


def test_the_auditor_compares_a_posting_over_the_edge_of_two_spans_once_and_whole() -> None:
    """Three calls a customer, half a minute apart, the first two in one posting; spans of a minute, pages of one customer.
    The edge at 12:01 goes through the posting of those made at 12:00:45 and 12:01:15."""
    customers = [with_credits("10", name) for name in ("one", "another")]
    window = NOON, NOON + timedelta(minutes=3)

    async def act(lane: Lane) -> None:
        gate = BillingGate(AccountLoader().load)
        for customer in customers:
            holds = [call(customer, "1") for _ in range(3)]
            await lane.hold(uuid4(), 1, holds, gate.hold(holds))
            events = [
                an_event(hold, timedelta(seconds=seconds), charge_total=Decimal(1), on_credit=True)
                for hold, seconds in zip(holds, (45, 75, 105), strict=True)
            ]
            for batch in (events[:2], events[2:]):
                await lane.settle(uuid4(), 1, batch, gate.settle(batch))

    lane_does(act)

    def compared() -> list[Drift]:
        return list(check_postings(*window, span=timedelta(minutes=1), page=1))

    assert UsageEvent.objects.values("posting_id").distinct().count() == 2 * 2
    assert compared() == []
    UsageEvent.objects.update(charge_total=3)
    drifts = compared()
    assert sorted((drift.kept, drift.counted) for drift in drifts) == [(1, 3), (1, 3), (2, 6), (2, 6)]
    assert {drift.customer_id for drift in drifts} == {customer.pk for customer in customers}


def test_the_auditor_of_postings_reads_of_the_ledger_what_these_customers_had_at_that_time() -> None:
    customer = with_credits("10")
    hold = call(customer, "1")

    async def act(lane: Lane) -> None:
        gate = BillingGate(AccountLoader().load)
        event = comes_to(hold, "1")
        await lane.hold(uuid4(), 1, [hold], gate.hold([hold]))
        await lane.settle(uuid4(), 1, [event], gate.settle([event]))

    lane_does(act)
    with CaptureQueriesContext(connection) as done:
        assert list(check_postings(NOON, NOON + timedelta(minutes=1))) == []
    plans = [plan_of(query["sql"]) for query in done if 'FROM "billing_entries"' in query["sql"]]
    assert plans
    for plan in plans:
        assert re.search(r"billing_entries_by_time.*customer_id ?=.*created_at ?>", plan, re.DOTALL), plan


def plan_of(sql: str) -> str:
    explain = "explain query plan " if connection.vendor == "sqlite" else "explain "
    with transaction.atomic(), connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("set local enable_seqscan = off")  # a table of one page is read as a whole
        cursor.execute(explain + sql)
        return "\n".join(str(row) for row in cursor.fetchall())
