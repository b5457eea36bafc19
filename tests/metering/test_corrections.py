"""Corrections: what they say, that they are written once, and that they move the day they count on."""

import asyncio
import threading
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from django.db import connection, connections, transaction
from hypothesis import given, strategies as st

from metering import rollups
from metering.corrections import CHANGEABLE, Written, as_corrected, correction, differences, late_settlement
from metering.histories import histories
from metering.models import DailyUsage, UnpricedEvent, UsageCorrection, UsageEvent
from metering.rated import PRICED_COLUMNS
from metering.rows import Amendment, CorrectionRow, EventRow, HoldRow
from metering.store import Store
from metering.store.memory import MemoryStore
from metering.wiring import current_store
from tests.metering.rows import NOON, PAYER, a_hold, an_event

LATER = NOON + timedelta(days=3)
amounts = st.none() | st.decimals(min_value=0, max_value=10**6, places=12)


def settled(store: Store, *pairs: tuple[HoldRow, EventRow]) -> None:
    async def write() -> None:
        lane, writer = await store.open_lane("test"), uuid4()
        await lane.hold(writer, 1, [hold for hold, _ in pairs], None)
        await lane.settle(writer, 2, [event for _, event in pairs], None)
        await lane.close()

    asyncio.run(write())


def amended(store: Store, *amendments: Amendment) -> set[UUID]:
    async def write() -> set[UUID]:
        lane = await store.open_lane("test")
        done = await lane.amend(amendments)
        await lane.close()
        return done

    return asyncio.run(write())


def corrected(store: Store, *rows: EventRow) -> set[UUID]:
    async def write() -> set[UUID]:
        lane = await store.open_lane("test")
        done = await lane.correct(rows)
        await lane.close()
        return done

    return asyncio.run(write())


def a_correction(
    event: EventRow, revision: int = 1, *, missing: Any = None, at: datetime = LATER, **changes: Any
) -> Amendment:
    """The amendment that gives `event` these values, if it was corrected `revision` - 1 times."""
    new = msgspec.structs.replace(event, **changes)
    row = correction(event, new, revision=revision, at=at, reason="test", columns=PRICED_COLUMNS)
    return Amendment(
        customer_id=event.customer_id, event_id=event.id, created_at=event.created_at, occurred_at=event.occurred_at,
        provider=event.provider, model=event.model, missing=missing, revision=revision - 1,
        on_credit=event.posting_id is not None, corrections=(row,), card_version=7,
    )  # fmt: skip


# What they say


@given(st.fixed_dictionaries({}, optional={
    "cost_total": amounts, "charge_total": amounts, "model": st.text(max_size=20), "rate_ids": st.tuples(st.integers(1, 9)),
    "pricing_status": st.sampled_from(["priced", "partial"]), "tokens_output": st.none() | st.integers(0, 2**53),
    "buckets": st.dictionaries(st.text(max_size=9), st.integers()), "occurred_at": st.datetimes().map(lambda at: at.replace(tzinfo=NOON.tzinfo)),
    "api_key_id": st.uuids(),
}))  # fmt: skip
def test_the_new_values_laid_over_the_event_give_back_what_it_became(changes: dict[str, Any]) -> None:
    event = an_event(a_hold())
    became = msgspec.structs.replace(event, **changes)
    said = {name: new for name, (_, new) in differences(event, became, CHANGEABLE).items()}
    stored = msgspec.json.decode(msgspec.json.encode(said))
    assert as_corrected(event, [stored]) == became


def test_a_correction_says_what_differs_and_adds_the_difference() -> None:
    event = an_event(a_hold())
    row = a_correction(event, charge_total=Decimal("0.00015"), rate_ids=(1, 3)).corrections[0]
    assert row.old == {"charge_total": "0.00012", "rate_ids": [1, 2]}
    assert row.new == {"charge_total": "0.00015", "rate_ids": [1, 3]}
    assert (row.charge_total, row.cost_total, row.events, row.quantity) == (Decimal("0.00003"), 0, 0, 0)


def test_a_later_correction_wins() -> None:
    event = an_event(a_hold())
    now = as_corrected(event, [{"charge_total": "1"}, {"charge_total": "2", "id": "no"}, {"model": "m"}])
    assert (now.id, now.charge_total, now.model) == (event.id, 2, "m")


def test_a_settlement_that_was_booked_is_not_booked_again() -> None:
    hold = a_hold()
    swept, truth = an_event(hold, status="interrupted"), an_event(hold)
    first = late_settlement(swept, [], truth)
    assert first is not None
    assert late_settlement(swept, [written_of(row) for row in first.corrections], truth) is None


def written_of(row: CorrectionRow) -> Written:
    return Written(row.revision, row.reason, row.new)


# That they are written once


@pytest.fixture
def store() -> Store:
    return current_store()


@pytest.mark.django_db(transaction=True)
def test_an_amendment_moves_the_day_and_leaves_the_event_alone(store: Store) -> None:
    hold = a_hold()
    event = an_event(hold)
    settled(store, (hold, event))
    before = UsageEvent.objects.values().get()
    assert amended(store, a_correction(event, charge_total=Decimal("0.0002"))) == {event.id}
    assert UsageEvent.objects.values().get() == before
    day = DailyUsage.objects.get()
    assert (day.events, day.charge_total, day.cost_total) == (1, Decimal("0.0002"), Decimal("0.0001"))
    (history,) = histories(UsageEvent.objects.all())
    assert (history.event.charge_total, history.now.charge_total) == (Decimal("0.00012"), Decimal("0.0002"))
    assert rollups.check_day(NOON.date()) == []


@pytest.mark.django_db(transaction=True)
def test_a_revision_is_taken_once(store: Store) -> None:
    hold, other = a_hold(), a_hold()
    event, untouched = an_event(hold), an_event(other)
    settled(store, (hold, event), (other, untouched))
    assert amended(store, a_correction(event, charge_total=Decimal(1))) == {event.id}
    late = a_correction(event, charge_total=Decimal(2)), a_correction(untouched, charge_total=Decimal(3))
    assert amended(store, *late) == {untouched.id}, "the other one of the page is written all the same"
    assert DailyUsage.objects.get().charge_total == 4
    assert rollups.check_day(NOON.date()) == []


@pytest.mark.django_db(transaction=True)
def test_an_amendment_closes_and_opens_the_list_of_what_is_unpriced(store: Store) -> None:
    hold = a_hold()
    event = an_event(hold, charge_total=None, pricing_status="partial", missing={"list": ["out_visible"]})
    settled(store, (hold, event))
    amended(store, a_correction(event, missing={"list": ["x"]}, charge_total=Decimal("0.1")))
    listed = UnpricedEvent.objects.get()
    assert (listed.missing, listed.card_version, DailyUsage.objects.get().unpriced_events) == (
        {"list": ["x"]},
        7,
        1,
    )
    now = msgspec.structs.replace(event, charge_total=Decimal("0.1"))
    amended(store, a_correction(now, 2, charge_total=Decimal("0.2"), pricing_status="priced"))
    assert UnpricedEvent.objects.count() == DailyUsage.objects.get().unpriced_events == 0
    assert rollups.check_day(NOON.date()) == []


@pytest.mark.django_db(transaction=True)
def test_an_event_asked_for_in_vain_is_marked_unless_it_was_corrected_meanwhile(store: Store) -> None:
    hold = a_hold()
    event = an_event(hold, charge_total=None, pricing_status="partial", missing={"list": ["out_visible"]})
    settled(store, (hold, event))
    asked = msgspec.structs.replace(
        a_correction(event), corrections=(), missing={"list": ["out_visible"]}, card_version=9
    )
    assert amended(store, asked) == {event.id}
    assert UnpricedEvent.objects.get().card_version == 9
    amended(store, a_correction(event, charge_total=Decimal("0.1"), pricing_status="priced"))
    assert amended(store, asked) == set()
    assert UnpricedEvent.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_a_swept_event_that_was_corrected_before_its_settlement_came_is_taken_back_whole(
    store: Store,
) -> None:
    hold = a_hold()
    swept = an_event(
        hold, status="interrupted", usage_source="estimated", tokens_output=None, charge_total=Decimal(0)
    )
    settled(store, (hold, swept))
    amended(store, a_correction(swept, cost_total=Decimal("0.5")))
    truth = an_event(hold, model="demo-large", charge_total=Decimal("0.00012"))
    for _ in range(2):
        assert corrected(store, truth) == {hold.id}
    assert list(
        UsageCorrection.objects.order_by("revision").values_list("revision", "model", "events", "cost_total")
    ) == [
        (1, "demo-small", 0, Decimal("0.4999")),  # 0.5 - 0.0001
        (2, "demo-small", -1, Decimal("-0.5")),
        (3, "demo-large", 1, Decimal("0.0001")),
    ]
    assert [(day.model, day.events, day.cost_total) for day in DailyUsage.objects.order_by("model")] == [
        ("demo-large", 1, Decimal("0.0001")),
        ("demo-small", 0, 0),
    ]
    (history,) = histories(UsageEvent.objects.all())
    assert (history.now.status, history.now.model, history.now.tokens_output) == ("ok", "demo-large", 5)
    assert rollups.check_day(NOON.date()) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine("postgresql")
def test_who_comes_second_waits_and_writes_nothing(store: Store) -> None:
    hold = a_hold()
    event = an_event(hold)
    settled(store, (hold, event))
    written, go = threading.Event(), threading.Event()

    def first() -> None:
        try:
            with transaction.atomic(), connection.cursor() as cursor:
                cursor.execute(
                    "insert into usage_corrections select gen_random_uuid(), customer_id, id, 1, now(), 'by hand', null, '[]', '{}', '{}',"
                    " period_start, occurred_at::date, feature, provider, model, api_key_id, currency, 0, 0, 0, 0, 0, 0, 0, 0, 0 from usage_events"
                )
                written.set()
                go.wait(10)
        finally:
            connections.close_all()

    thread = threading.Thread(target=first)
    thread.start()
    assert written.wait(10)
    threading.Timer(0.3, go.set).start()
    assert amended(store, a_correction(event, charge_total=Decimal(1))) == set()
    thread.join()
    assert UsageCorrection.objects.get().reason == "by hand"
    assert rollups.check_day(NOON.date()) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("change", [
    "update usage_corrections set charge_total = charge_total + 1",
    "update usage_corrections set currency = 'EUR'",
    "update daily_usage set currency = 'EUR'",
    "delete from usage_corrections",
])  # fmt: skip
def test_a_correction_that_does_not_add_up_is_found(store: Store, change: str) -> None:
    hold = a_hold()
    event = an_event(hold)
    settled(store, (hold, event))
    amended(store, a_correction(event, charge_total=Decimal("0.0002")))
    with connection.cursor() as cursor:
        cursor.execute(change)
    assert {drift.customer_id for drift in rollups.check_day(NOON.date())} == {PAYER}


@pytest.mark.django_db(transaction=True)
def test_a_correction_that_says_something_else_than_it_adds_is_found(store: Store) -> None:
    hold = a_hold()
    event = an_event(hold)
    settled(store, (hold, event))
    amended(store, a_correction(event, charge_total=Decimal("0.0002")))
    UsageCorrection.objects.update(new={"charge_total": "0.0003"})
    assert [(drift.column, drift.events, drift.daily) for drift in rollups.check_day(NOON.date())] == [
        ("charge_total", Decimal("0.0002"), Decimal("0.0003"))
    ]


def test_the_books_in_memory_are_corrected_alike() -> None:
    store, hold = MemoryStore(), a_hold()
    event = an_event(hold, charge_total=None, pricing_status="partial", missing={"list": ["out_visible"]})
    settled(store, (hold, event))
    change = a_correction(event, charge_total=Decimal("0.1"), pricing_status="priced")
    assert amended(store, change) == {event.id}
    assert amended(store, change) == set()
    (day,) = store.daily.values()
    assert (day["events"], day["charge_total"], day["unpriced_events"], store.unpriced) == (
        1,
        Decimal("0.1"),
        0,
        {},
    )
