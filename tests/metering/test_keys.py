"""One call sent several times under one idempotency key, against real databases: every attempt an event, one charge."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from django.db import connections

from metering import rollups, sweeper
from metering.corrections import event_from, late_settlement
from metering.gate import OpenGate
from metering.models import DailyUsage, Hold, IdempotencyKey, UsageCorrection, UsageEvent, Writer
from metering.recorder import KeyConflict, Recorder
from metering.rows import EVENT_COLUMNS, Claim, EventRow, HoldRow, KeyMove, Standing
from metering.store import Store
from metering.store.memory import MemoryStore
from metering.wiring import current_store
from pricing.pricelist import RateCard
from tests.metering.rows import NOON, PAYER, STRANGER, a_hold, an_event
from tests.metering.stores import LossyStore

pytestmark = pytest.mark.django_db(transaction=True)

COST, CHARGE = Decimal("0.0001"), Decimal("0.00012")  # of `an_event`
KEY = Claim("0" * 31 + "1", "a" * 32)


@pytest.fixture
def store() -> Store:
    return current_store()


def run(store: Store, act: Callable[[Recorder], Awaitable[None]]) -> None:
    async def main() -> None:
        recorder = Recorder(store, OpenGate(), deadline_s=5)
        try:
            await act(recorder)
        finally:
            await recorder.stop()

    asyncio.run(main())


def an_attempt(hold: HoldRow, **values: Any) -> EventRow:
    return an_event(hold, claim=hold.claim, **values)


def attempts(count: int, claim: Claim = KEY, customer: UUID = PAYER) -> list[HoldRow]:
    return [a_hold(customer, claim=claim) for _ in range(count)]


def charges(holds: Sequence[HoldRow]) -> list[Decimal | None]:
    """What each attempt was charged, in order."""
    found = dict(UsageEvent.objects.values_list("execution_id", "charge_total"))
    return [found[str(hold.id)] for hold in holds]


def assert_books_agree() -> None:
    assert list(rollups.check_day(NOON.date())) == []


def test_an_attempt_after_the_answer_costs_us_and_not_the_customer(store: Store) -> None:
    first, second = attempts(2)
    told = [an_attempt(first), an_attempt(second)]

    async def act(recorder: Recorder) -> None:
        for hold, event in zip((first, second), told, strict=True):
            assert await recorder.hold(hold) is True
            assert await recorder.settle(event) is True

    run(store, act)
    assert charges([first, second]) == [CHARGE, 0]
    paid, repeat = (UsageEvent.objects.get(execution_id=str(hold.id)) for hold in (first, second))
    assert repeat.context == {"repeat_of": str(paid.id), "charged_before": "0.00012"}
    assert paid.context == {"key": KEY.key_hash}, "whoever may pay can be found again"
    assert (repeat.cost_total, repeat.tokens_total, repeat.quantity, repeat.pricing_status) == (
        COST,
        15,
        0,
        "priced",
    )
    assert [event.charge_total for event in told] == [CHARGE, 0], "the call in hand knows what was booked"
    day = DailyUsage.objects.get()
    assert (day.events, day.quantity, day.cost_total, day.charge_total) == (2, 1, 2 * COST, CHARGE)
    assert_books_agree()


def test_attempts_that_are_settled_together_are_charged_once(store: Store) -> None:
    holds = attempts(5)

    async def act(recorder: Recorder) -> None:
        assert await asyncio.gather(*map(recorder.hold, holds)) == [True] * 5
        await asyncio.gather(*(recorder.settle(an_attempt(hold)) for hold in holds))

    run(store, act)
    assert sorted(charge or 0 for charge in charges(holds)) == [0, 0, 0, 0, CHARGE]
    assert len({event.context.get("repeat_of") for event in UsageEvent.objects.all()}) == 2
    assert DailyUsage.objects.get().quantity == 1
    assert_books_agree()


def test_who_failed_leaves_the_paying_to_a_later_one(store: Store) -> None:
    failed, answered = attempts(2)

    async def act(recorder: Recorder) -> None:
        await recorder.hold(failed)
        await recorder.settle(an_event(failed, charge_total=Decimal(0), status="error", status_code=500))
        await recorder.hold(answered)
        await recorder.settle(an_attempt(answered))

    run(store, act)
    assert charges([failed, answered]) == [0, CHARGE]


def test_an_answer_cut_short_is_charged_for_its_part_and_the_whole_one_for_the_rest(store: Store) -> None:
    cut, whole, again = attempts(3)
    part = Decimal("0.00005")

    async def act(recorder: Recorder) -> None:
        for hold, values in (
            (cut, {"status": "client_disconnected", "usage_source": "estimated", "charge_total": part}),
            (whole, {}),
            (again, {"charge_total": 3 * CHARGE}),
        ):
            await recorder.hold(hold)
            await recorder.settle(an_attempt(hold, **values))

    run(store, act)
    assert charges([cut, whole, again]) == [part, CHARGE - part, 0], (
        "0.00005 + 0.00007 = 0.00012, then nothing"
    )
    counted = dict(UsageEvent.objects.values_list("execution_id", "quantity"))
    assert [counted[str(hold.id)] for hold in (cut, whole, again)] == [1, 0, 0]
    assert DailyUsage.objects.get().charge_total == CHARGE
    assert UsageEvent.objects.get(execution_id=str(whole.id)).context == {
        "charged_before": "0.00005",
        "key": KEY.key_hash,
    }
    assert_books_agree()


def test_an_answer_that_a_client_left_unread_but_was_read_to_its_end_is_the_one_that_is_paid(
    store: Store,
) -> None:
    drained, again = attempts(2)

    async def act(recorder: Recorder) -> None:
        for hold, status in ((drained, "client_disconnected"), (again, "ok")):
            await recorder.hold(hold)
            await recorder.settle(an_attempt(hold, status=status))

    run(store, act)
    assert charges([drained, again]) == [CHARGE, 0]


def test_an_answer_without_a_price_is_priced_once_when_there_is_one(store: Store) -> None:
    first, second = attempts(2)
    unknown: dict[str, Any] = {"charge_total": None, "cost_total": None, "pricing_status": "unpriced"}

    async def act(recorder: Recorder) -> None:
        for hold in (first, second):
            await recorder.hold(hold)
            await recorder.settle(an_attempt(hold, **unknown))

    run(store, act)
    assert charges([first, second]) == [None, 0]
    repeat = UsageEvent.objects.get(execution_id=str(second.id))
    assert repeat.pricing_status == "partial", "its cost is still unknown"
    assert_books_agree()


def test_a_key_that_stands_for_another_payload_refuses_the_call(store: Store) -> None:
    first, other = a_hold(claim=KEY), a_hold(claim=Claim(KEY.key_hash, "b" * 32))

    async def act(recorder: Recorder) -> None:
        assert await recorder.hold(first) is True
        with pytest.raises(KeyConflict):
            await recorder.hold(other)
        stranger = a_hold(STRANGER, claim=Claim(KEY.key_hash, "b" * 32))
        assert await recorder.hold(stranger) is True, (
            "keys of two customers have nothing to do with each other"
        )

    run(store, act)
    assert set(Hold.objects.values_list("id", "customer_id")) == {
        (first.id, PAYER),
        (Hold.objects.get(customer_id=STRANGER).id, STRANGER),
    }


def test_of_two_payloads_at_once_one_goes_out_and_no_other_call_is_held_up(store: Store) -> None:
    rivals = [a_hold(claim=Claim(KEY.key_hash, letter * 32)) for letter in "ab"]
    others = [a_hold() for _ in range(5)]

    async def act(recorder: Recorder) -> None:
        found = await asyncio.gather(*map(recorder.hold, [*rivals, *others]), return_exceptions=True)
        assert sorted(type(one).__name__ for one in found[:2]) == ["KeyConflict", "bool"]
        assert found[2:] == [True] * 5

    run(store, act)
    assert Hold.objects.count() == 6


def test_a_lost_answer_neither_charges_twice_nor_forgets_what_was_booked(store: Store) -> None:
    network, (first, second) = LossyStore(store), attempts(2)
    repeat, other = an_attempt(second), a_hold(claim=Claim(KEY.key_hash, "b" * 32))

    async def act(recorder: Recorder) -> None:
        network.lose_answers = 1
        assert await recorder.hold(first) is True
        network.lose_answers = 1
        await recorder.settle(an_attempt(first))
        network.lose_answers = 1
        with pytest.raises(KeyConflict):
            await recorder.hold(other)
        await recorder.hold(second)
        network.lose_answers = 1
        await recorder.settle(repeat)

    run(network, act)
    assert charges([first, second]) == [CHARGE, 0] and repeat.charge_total == 0
    assert_books_agree()


async def declare_dead_and_sweep() -> None:
    def act() -> None:
        Writer.objects.filter(fenced_at__isnull=True).update(fenced_at=NOON)
        sweeper.sweep(current_store(), RateCard.empty(), lambda: NOON)
        connections.close_all()

    await asyncio.to_thread(act)


@pytest.mark.parametrize(
    "late_first", [True, False], ids=["wakes before the repeat", "wakes after the repeat"]
)
def test_an_attempt_that_was_swept_and_wakes_is_charged_only_where_no_other_was(
    store: Store, late_first: bool
) -> None:
    swept, other = attempts(2)
    late = an_attempt(swept)

    async def act(recorder: Recorder) -> None:
        await recorder.hold(swept)
        await declare_dead_and_sweep()
        if late_first:
            assert await recorder.settle(late) is True
        await recorder.hold(other)
        await recorder.settle(an_attempt(other))
        assert await recorder.settle(late) is True
        assert await recorder.settle(an_attempt(swept)) is True, "once more changes nothing"

    run(store, act)
    truth = UsageCorrection.objects.get(revision=2)
    assert (truth.charge_total, truth.quantity, truth.cost_total) == (
        (CHARGE, 1, COST) if late_first else (0, 0, COST)
    )
    assert charges([swept, other]) == ([0, 0] if late_first else [0, CHARGE])
    assert late.charge_total == truth.charge_total
    day = DailyUsage.objects.get()
    assert (day.events, day.quantity, day.charge_total) == (2, 1, CHARGE)
    assert_books_agree()


def test_a_correction_that_was_made_for_another_standing_of_the_key_is_not_written(store: Store) -> None:
    swept, other = attempts(2)

    async def act(recorder: Recorder) -> None:
        await recorder.hold(swept)
        await declare_dead_and_sweep()
        await recorder.hold(other)
        await recorder.settle(an_attempt(other))

    run(store, act)
    event = event_from(UsageEvent.objects.filter(status="interrupted").values(*EVENT_COLUMNS).get())
    answered = IdempotencyKey.objects.get()

    async def amend(before: Standing) -> set[UUID]:
        lane = await store.open_lane("test")
        move = KeyMove(KEY.key_hash, before, Standing(KEY.payload_hash, event.id, CHARGE, Decimal(1)))
        amendment = late_settlement(event, [], an_attempt(swept), move)
        assert amendment is not None
        done = await lane.amend([amendment])
        await lane.close()
        return done

    for stale in (Standing(KEY.payload_hash), Standing(KEY.payload_hash, None, CHARGE, Decimal(1))):
        assert asyncio.run(amend(stale)) == set(), "as it stood before the other answered"
    assert UsageCorrection.objects.count() == 0
    assert IdempotencyKey.objects.get().event_id == answered.event_id
    as_it_stands = Standing(KEY.payload_hash, answered.event_id, CHARGE, Decimal(1))
    assert asyncio.run(amend(as_it_stands)) == {event.id}
    assert UsageCorrection.objects.count() == 2
    assert IdempotencyKey.objects.get().event_id == event.id
    assert_books_agree()


def test_two_processes_that_race_for_the_same_keys_charge_each_once(store: Store) -> None:
    dice = random.Random(7)
    keys = [Claim(f"{number:032x}", "a" * 32) for number in range(20)]
    holds = [a_hold(dice.choice((PAYER, STRANGER)), claim=dice.choice(keys)) for _ in range(200)]

    async def main() -> None:
        recorders = [Recorder(current_store(), OpenGate(), deadline_s=20) for _ in range(2)]

        async def call(number: int, hold: HoldRow) -> None:
            recorder = recorders[number % 2]
            assert await recorder.hold(hold) is True
            await recorder.settle(an_attempt(hold))

        await asyncio.gather(*(call(number, hold) for number, hold in enumerate(holds)))
        for recorder in recorders:
            await recorder.stop()

    asyncio.run(main())
    paid = UsageEvent.objects.filter(charge_total=CHARGE)
    distinct = {(hold.customer_id, hold.claim) for hold in holds}
    assert paid.count() == len(distinct) == IdempotencyKey.objects.count()
    assert UsageEvent.objects.filter(charge_total=0).count() == 200 - len(distinct)
    assert set(IdempotencyKey.objects.values_list("event_id", flat=True)) == set(
        paid.values_list("id", flat=True)
    )
    assert sum(day.charge_total for day in DailyUsage.objects.all()) == len(distinct) * CHARGE
    assert_books_agree()


STATUSES = [
    ("ok", "reported"),
    ("ok", "estimated"),
    ("client_disconnected", "reported"),
    ("client_disconnected", "estimated"),
    ("error_after_output", "reported_partial"),
]


@pytest.mark.parametrize("seed", range(3))
def test_every_store_decides_alike(store: Store, seed: int) -> None:
    """Random attempts in random batches, on the database and on the store that books row by row."""
    dice = random.Random(seed)
    batches = [
        [
            _some_attempt(dice, Claim(f"{dice.randrange(6):032x}", "a" * 32))
            for _ in range(dice.randrange(1, 8))
        ]
        for _ in range(12)
    ]
    model = MemoryStore()

    async def write(into: Store) -> None:
        lane, writer = await into.open_lane("test"), UUID(int=1)
        settler = UUID(int=2)
        for number, batch in enumerate(batches, start=1):
            await lane.hold(writer, number, [hold for hold, _ in batch], None)
            await lane.settle(settler, number, [msgspec.structs.replace(event) for _, event in batch], None)
        await lane.close()

    asyncio.run(write(model))
    asyncio.run(write(store))
    columns = ("id", "charge_total", "quantity", "pricing_status", "context")
    found = {row[0]: row[1:] for row in UsageEvent.objects.values_list(*columns)}
    assert found == {
        event.id: (
            event.charge_total,
            event.quantity,
            event.pricing_status,
            document(event.context),
        )
        for event in model.events.values()
    }
    standings = {
        bytes(key.key_hash).hex(): (key.event_id, key.charged or 0, key.counted or 0)
        for key in IdempotencyKey.objects.all()
    }
    assert standings == {
        key: (standing.answered_by, standing.charged, standing.counted)
        for (_, key), standing in model.keys.items()
    }
    assert_books_agree()


def document(context: Any) -> Any:
    return msgspec.json.decode(context) if isinstance(context, msgspec.Raw) else context


def _some_attempt(dice: random.Random, claim: Claim) -> tuple[HoldRow, EventRow]:
    hold = a_hold(claim=claim)
    status, source = dice.choice(STATUSES)
    charge = dice.choice([None, Decimal(0), Decimal(dice.randrange(1, 9)) / 1000])
    values: dict[str, Any] = {"claim": None} if dice.random() < 0.2 else {"claim": claim}
    return hold, an_event(
        hold, status=status, usage_source=source, charge_total=charge, quantity=Decimal(dice.randrange(3)),
        pricing_status="unpriced" if charge is None else "priced", **values,
    )  # fmt: skip
