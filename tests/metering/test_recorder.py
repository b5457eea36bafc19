"""The recorder against real databases: every call one event, whatever is lost on the way."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

import pytest
from django.db import connection, connections

from metering import rollups, sweeper
from metering.batching import Waiting
from metering.clean import clean_event
from metering.gate import Contribution, OpenGate
from metering.models import DailyUsage, Hold, QuarantinedRow, UsageCorrection, UsageEvent, Writer
from metering.recorder import Recorder, RecorderUnavailable
from metering.rows import Claim, EventRow, HoldRow
from metering.store import Store
from metering.wiring import current_store
from tests.metering.rows import NOON, PAYER, STRANGER, a_hold, an_event
from tests.metering.stores import LossyStore

T = TypeVar("T")
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def store() -> Store:
    return current_store()


def run(store: Store, act: Callable[[Recorder], Awaitable[None]], gate: OpenGate | None = None) -> None:
    """Run `act` with a recorder of its own, and stop that one at the end."""

    async def main() -> None:
        recorder = Recorder(store, gate or OpenGate(), deadline_s=5)
        try:
            await act(recorder)
        finally:
            await recorder.stop()

    asyncio.run(main())


async def in_thread(ask: Callable[[], T]) -> T:
    """Django's database, asked from within a loop; the thread's own connection is given back."""

    def asked() -> T:
        try:
            return ask()
        finally:
            connections.close_all()

    return await asyncio.to_thread(asked)


def assert_books_agree() -> None:
    assert [drift for day in {NOON.date()} for drift in rollups.check_day(day)] == []


def test_a_settled_call_is_one_event_and_its_day(store: Store) -> None:
    hold = a_hold()

    async def act(recorder: Recorder) -> None:
        assert await recorder.hold(hold) is True
        assert await recorder.settle(an_event(hold)) is True

    run(store, act)
    event = UsageEvent.objects.get()
    assert (event.tokens_input, event.tokens_output, event.tokens_total) == (10, 5, 15)
    assert (event.cost_total, event.charge_total) == (Decimal("0.0001"), Decimal("0.00012"))
    assert event.buckets == {"in_uncached": 10, "out_visible": 5} and event.rate_ids == [1, 2]
    assert (event.occurred_at, event.execution_id) == (NOON, str(hold.id))
    day = DailyUsage.objects.get()
    assert (day.events, day.quantity, day.cost_total, day.charge_total) == (
        1,
        1,
        Decimal("0.0001"),
        Decimal("0.00012"),
    )
    assert Hold.objects.count() == 0
    assert_books_agree()


def test_a_hold_is_committed_before_the_call_goes_out(store: Store) -> None:
    async def act(recorder: Recorder) -> None:
        await recorder.hold(a_hold())
        assert await in_thread(Hold.objects.count) == 1

    run(store, act)


def test_many_calls_of_two_customers_add_up(store: Store) -> None:
    holds = [a_hold(PAYER if number % 3 else STRANGER) for number in range(300)]

    async def act(recorder: Recorder) -> None:
        await asyncio.gather(*map(recorder.hold, holds))
        await asyncio.gather(*(recorder.settle(an_event(hold)) for hold in holds))

    run(store, act)
    sums = {
        day.customer_id: (day.events, day.tokens_total, day.charge_total) for day in DailyUsage.objects.all()
    }
    assert sums == {  # 200 × 15 = 3000 and 200 × 0.00012 = 0.024; 100 × 15 = 1500 and 100 × 0.00012 = 0.012
        PAYER: (200, 3000, Decimal("0.024")),
        STRANGER: (100, 1500, Decimal("0.012")),
    }
    assert_books_agree()


def test_a_commit_whose_answer_is_lost_counts_once(store: Store) -> None:
    network, hold = LossyStore(store), a_hold()

    async def act(recorder: Recorder) -> None:
        network.lose_answers = 1
        assert await recorder.hold(hold) is True
        network.lose_answers = 2
        assert await recorder.settle(an_event(hold)) is True

    run(network, act)
    assert network.lanes_opened > 2, "a connection with an unknown outcome is thrown away"
    assert DailyUsage.objects.get().events == 1
    assert UsageEvent.objects.count() == 1 and UsageCorrection.objects.count() == 0
    assert_books_agree()


def test_a_batch_that_never_arrived_is_written_later(store: Store) -> None:
    network, hold = LossyStore(store), a_hold()

    async def act(recorder: Recorder) -> None:
        network.lose_requests = 2
        assert await recorder.hold(hold) is True
        network.lose_requests = 2
        assert await recorder.settle(an_event(hold)) is True

    run(network, act)
    assert DailyUsage.objects.get().events == 1


def test_a_lock_splits_the_batch_and_loses_nothing(store: Store) -> None:
    network = LossyStore(store)
    holds = [a_hold(customer) for customer in (PAYER, STRANGER) for _ in range(5)]

    async def act(recorder: Recorder) -> None:
        await asyncio.gather(*map(recorder.hold, holds))
        network.lock = 3
        await asyncio.gather(*(recorder.settle(an_event(hold)) for hold in holds))

    run(network, act)
    assert sorted(DailyUsage.objects.values_list("events", flat=True)) == [5, 5]
    assert_books_agree()


def test_one_bad_row_stands_alone_in_quarantine(store: Store) -> None:
    holds = [a_hold() for _ in range(20)]
    events = [an_event(hold) for hold in holds]
    bad = events[7]
    bad.currency = None  # type: ignore[assignment]  # what the validator would not let through

    async def act(recorder: Recorder) -> None:
        await asyncio.gather(*map(recorder.hold, holds))
        assert await asyncio.gather(*map(recorder.settle, events)) == [True] * 20

    run(store, act)
    assert DailyUsage.objects.get().events == 19
    quarantined = QuarantinedRow.objects.get()
    assert quarantined.id == bad.id and str(bad.hold_id) in quarantined.row
    assert Hold.objects.count() == 0
    assert_books_agree()


@pytest.mark.engine("sqlite")
def test_a_sum_beyond_what_sqlite_holds_exactly_is_refused_and_kept(store: Store) -> None:
    """Amounts are integers of 10⁻¹² there: ± 9.2 million in a column."""
    most = Decimal(9000000)
    holds = [a_hold() for _ in range(3)]

    async def act(recorder: Recorder) -> None:
        await asyncio.gather(*map(recorder.hold, holds))
        await recorder.settle(an_event(holds[0], charge_total=most))
        await recorder.settle(an_event(holds[1], charge_total=most))
        await recorder.settle(an_event(holds[2], charge_total=Decimal(10000000)))

    run(store, act)
    assert DailyUsage.objects.get().charge_total == most
    assert QuarantinedRow.objects.count() == 2 and Hold.objects.count() == 0
    assert_books_agree()


def test_settling_twice_counts_once(store: Store) -> None:
    hold = a_hold()
    event = an_event(hold)

    async def act(recorder: Recorder) -> None:
        await recorder.hold(hold)
        await recorder.settle(event)
        await recorder.settle(event)

    run(store, act)
    assert DailyUsage.objects.get().events == 1
    assert QuarantinedRow.objects.count() == 0


def test_a_released_hold_leaves_nothing(store: Store) -> None:
    hold = a_hold()

    async def act(recorder: Recorder) -> None:
        await recorder.hold(hold)
        await recorder.release(hold)

    run(store, act)
    assert Hold.objects.count() == UsageEvent.objects.count() == 0


def test_a_process_declared_dead_that_wakes_corrects_what_was_swept(store: Store) -> None:
    from pricing.pricelist import RateCard

    hold, other = a_hold(), a_hold()

    def declare_dead() -> None:
        Writer.objects.filter(fenced_at__isnull=True).update(fenced_at=NOON)
        assert sweeper.sweep(current_store(), RateCard.empty(), lambda: NOON) == 1

    async def act(recorder: Recorder) -> None:
        await recorder.hold(hold)
        await in_thread(declare_dead)
        assert await recorder.settle(an_event(hold)) is True
        assert await recorder.settle(an_event(hold)) is True, "settling it again changes nothing"
        assert await recorder.hold(other) is True, "it goes on under a new writer id"
        assert await recorder.settle(an_event(other)) is True

    run(store, act)
    swept = UsageEvent.objects.get(status="interrupted")
    assert (swept.tokens_input, swept.tokens_output, swept.charge_total) == (10, None, 0)
    assert swept.execution_id == str(hold.id) and swept.usage_source == "estimated"
    assert list(
        UsageCorrection.objects.order_by("revision").values_list("revision", "events", "charge_total")
    ) == [
        (1, -1, Decimal(0)),
        (2, 1, Decimal("0.00012")),
    ]
    day = DailyUsage.objects.get()  # 1 swept − 1 + 1 settled late + 1 other
    assert (day.events, day.tokens_total, day.charge_total) == (2, 30, Decimal("0.00024"))
    assert day.estimated_events == 0
    assert_books_agree()


def test_a_database_that_is_away_refuses_the_hold_in_time(store: Store) -> None:
    network = LossyStore(store)
    network.lose_requests = 10**9

    async def main() -> None:
        recorder = Recorder(network, OpenGate(), deadline_s=0.2)
        with pytest.raises(RecorderUnavailable):
            await recorder.hold(a_hold())
        network.lose_requests = 0
        await recorder.stop()

    asyncio.run(main())
    assert Hold.objects.count() == 0, "the hold that was committed late was released"


def declare_dead_and_sweep() -> None:
    from pricing.pricelist import RateCard

    Writer.objects.filter(fenced_at__isnull=True).update(fenced_at=NOON)
    sweeper.sweep(current_store(), RateCard.empty(), lambda: NOON)


def test_a_correction_that_has_to_wait_costs_no_later_batch(store: Store) -> None:
    network, swept, later = LossyStore(store), a_hold(), [a_hold(STRANGER) for _ in range(3)]

    async def act(recorder: Recorder) -> None:
        await recorder.hold(swept)
        await in_thread(declare_dead_and_sweep)
        network.lock_corrections = 3
        late = asyncio.ensure_future(recorder.settle(an_event(swept)))
        for hold in later:
            await recorder.hold(hold)
            assert await recorder.settle(an_event(hold)) is True
        assert await late is True

    run(network, act)
    assert QuarantinedRow.objects.count() == 0 and Hold.objects.count() == 0
    assert UsageCorrection.objects.count() == 2
    assert {day.customer_id: day.events for day in DailyUsage.objects.all()} == {PAYER: 1, STRANGER: 3}
    assert_books_agree()


def test_a_database_that_forgot_the_last_batches_is_written_on(store: Store) -> None:
    """A standby that took over too early, or a restore: the writer's number is behind."""
    holds = [a_hold() for _ in range(4)]

    async def act(recorder: Recorder) -> None:
        for hold in holds[:3]:
            await recorder.hold(hold)
        await recorder.settle(an_event(holds[0]))
        await in_thread(lambda: Writer.objects.update(seq=0))
        assert await recorder.settle(an_event(holds[1])) is True
        assert await recorder.hold(holds[3]) is True
        await in_thread(lambda: Writer.objects.all().delete())
        assert await recorder.settle(an_event(holds[2])) is True
        assert await recorder.settle(an_event(holds[3])) is True

    run(store, act)
    assert DailyUsage.objects.get().events == 4 and Hold.objects.count() == 0
    assert_books_agree()


def test_an_error_while_counting_does_not_stop_the_books(store: Store) -> None:
    holds = [a_hold(), a_hold()]

    def broken(rows: Sequence[EventRow]) -> None:
        raise ZeroDivisionError

    async def main() -> None:
        recorder = Recorder(store, OpenGate(), on_settled=broken)
        for hold in holds:
            await recorder.hold(hold)
            assert await recorder.settle(an_event(hold)) is True
        await recorder.stop()

    asyncio.run(main())
    assert DailyUsage.objects.get().events == 2


def test_a_stopped_recorder_answers_everyone_and_takes_no_more(store: Store) -> None:
    hold = a_hold()

    async def main() -> None:
        recorder = Recorder(store, OpenGate())
        await recorder.hold(hold)
        stopping = asyncio.ensure_future(recorder.stop())
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await recorder.settle(an_event(hold))
        await stopping
        with pytest.raises(RecorderUnavailable):
            await recorder.hold(a_hold())
        recorder.start()
        assert await recorder.settle(an_event(hold)) is True
        await recorder.stop()

    asyncio.run(main())
    assert DailyUsage.objects.get().events == 1


class GivenUp(Waiting[HoldRow]):
    """Whose call is cancelled after the answer is there and before the call has seen it."""

    call: "asyncio.Future[bool]"

    def resolve(self, value: bool) -> bool:
        answered = super().resolve(value)
        self.call.cancel()
        return answered


def test_a_call_given_up_in_the_moment_of_its_hold_leaves_none(store: Store) -> None:
    async def act(recorder: Recorder) -> None:
        for _ in range(5):
            call = asyncio.ensure_future(recorder.hold(a_hold()))
            await asyncio.sleep(0)
            waiting = recorder._holds.queue[-1]
            given_up = GivenUp(waiting.row, waiting.answer, waiting.until)
            given_up.call = call
            recorder._holds.queue[-1] = given_up
            await asyncio.gather(call, return_exceptions=True)
            assert call.cancelled()

    run(store, act)
    assert Hold.objects.count() == 0


def test_a_quantity_finer_than_the_column_is_rounded_once(store: Store) -> None:
    holds = [a_hold() for _ in range(3)]

    async def act(recorder: Recorder) -> None:
        for hold in holds:
            await recorder.hold(hold)
            await recorder.settle(clean_event(an_event(hold, quantity=Decimal(1) / 3)))

    run(store, act)
    assert DailyUsage.objects.get().quantity == Decimal("0.999999999999")  # 3 × 0.333333333333
    assert_books_agree()


class PurseGate(OpenGate):
    """The seam in use: a purse per customer, which holds draw on and settles burn. Its table is made by the test."""

    TABLE = "create table purse (customer_id {uuid} primary key, free {number} not null check (free >= 0))"
    HOLD = Contribution(
        ctes="""sums as (select customer_id, id, sum(amount) over (partition by customer_id order by amount, id) as x from asked),
            lk as materialized (select customer_id, free from purse where customer_id in (select customer_id from sums) order by 1 for update),
            admitted as materialized (select s.customer_id, s.id, s.x from sums s join lk using (customer_id) where s.x <= lk.free),
            u as (update purse p set free = p.free - s.x from (select customer_id, max(x) as x from admitted group by 1) s
                where p.customer_id = s.customer_id)""",
        row_statements=(
            "update purse set free = free - :amount where customer_id = :customer_id and free >= :amount",
        ),
    )
    SETTLE = Contribution(
        ctes="""lk as materialized (select customer_id from purse where customer_id in (select customer_id from booked) order by 1 for update),
            back as (update purse p set free = p.free + b.held - b.charge from booked b join lk using (customer_id)
                where p.customer_id = b.customer_id)""",
        row_statements=("update purse set free = free + :held - :charge where customer_id = :customer_id",),
    )

    def hold(self, batch: Sequence[HoldRow]) -> Contribution | None:
        return self.HOLD

    def settle(self, batch: Sequence[EventRow]) -> Contribution | None:
        for row in batch:
            row.posting_id = batch[0].id  # what carries a posting is charged
        return self.SETTLE


@pytest.fixture
def purse() -> Callable[[UUID], Decimal]:
    scale = 10**12 if connection.vendor == "sqlite" else 1
    types = (
        {"uuid": "char(32)", "number": "bigint"}
        if connection.vendor == "sqlite"
        else {"uuid": "uuid", "number": "numeric"}
    )
    identifier = PAYER.hex if connection.vendor == "sqlite" else str(PAYER)
    with connection.cursor() as cursor:
        cursor.execute("drop table if exists purse")
        cursor.execute(PurseGate.TABLE.format(**types))
        cursor.execute("insert into purse values (%s, %s)", [identifier, 1 * scale])

    def free(customer: UUID) -> Decimal:
        with connection.cursor() as cursor:
            cursor.execute("select free from purse")
            row = cursor.fetchone()
        return Decimal(row[0]) / scale if row else Decimal(0)

    return free


def test_a_gate_moves_its_balance_in_the_recorders_own_transaction(
    store: Store, purse: Callable[[UUID], Decimal]
) -> None:
    holds = [a_hold(amount=Decimal("0.3")) for _ in range(5)]

    async def act(recorder: Recorder) -> None:
        admitted = await asyncio.gather(*map(recorder.hold, holds))
        assert sorted(admitted) == [False, False, True, True, True], "3 × 0.3 fit into 1, a fourth does not"
        for hold, went_out in zip(holds, admitted, strict=True):
            if went_out:
                await recorder.settle(an_event(hold))

    run(store, act, PurseGate())
    assert purse(PAYER) == Decimal("0.99964")  # 1 − 3 × 0.00012
    with connection.cursor() as cursor:
        cursor.execute("drop table purse")


def test_a_repeat_under_one_key_burns_no_balance(store: Store, purse: Callable[[UUID], Decimal]) -> None:
    claim = Claim("1" * 32, "a" * 32)
    holds = [a_hold(amount=Decimal("0.3"), claim=claim) for _ in range(3)]

    async def act(recorder: Recorder) -> None:
        await asyncio.gather(*map(recorder.hold, holds))
        await asyncio.gather(*(recorder.settle(an_event(hold, claim=claim)) for hold in holds))

    run(store, act, PurseGate())
    assert purse(PAYER) == Decimal("0.99988")  # 1 − 1 × 0.00012: three holds come back, one charge is burnt
    with connection.cursor() as cursor:
        cursor.execute("drop table purse")
