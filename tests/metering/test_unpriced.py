"""Unpriced is a state: listed together with the event, and ended when a rate covers its instant."""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.db import connection

from metering import rollups, tasks, unpriced
from metering.context import Terms
from metering.models import DailyUsage, UnpricedEvent, UsageCorrection, UsageEvent
from metering.rows import Amendment, EventRow, HoldRow
from metering.store import Store
from metering.store.bulk import BulkLane, hash_of
from metering.store.memory import MemoryStore
from metering.wiring import current_store
from pricing.catalog import load_rate_card
from pricing.pricelist import RateCard
from pricing.usage import Usage
from tests.metering.catalogue import LONG_AGO, a_rate, rated_event
from tests.metering.rows import NOON, PAYER, STRANGER, a_hold, an_event

MISSING = {"list": ["in_uncached", "out_visible"]}
LATER = NOON + timedelta(hours=2)


def an_unpriced_event(hold: HoldRow, **values: Any) -> EventRow:
    """The call, whose tokens cost us 0.0001 and have no price in the customers' book."""
    return an_event(
        hold, charge_total=None, pricing_status="partial", rate_ids=(1,), missing=MISSING, **values
    )


def settled(store: Store, holds: Sequence[HoldRow], events: Sequence[EventRow]) -> None:
    async def write() -> None:
        lane, writer = await store.open_lane("test"), uuid4()
        await lane.hold(writer, 1, holds, None)
        await lane.settle(writer, 2, events, None)
        await lane.close()

    asyncio.run(write())


def made(count: int = 1, customer: UUID = PAYER, **values: Any) -> list[EventRow]:
    """Calls that were settled while the catalogue was as it is now: 10 tokens in and 5 out each."""
    card, holds = load_rate_card(), [a_hold(customer) for _ in range(count)]
    events = [rated_event(hold, card, **values) for hold in holds]
    settled(current_store(), holds, events)
    return events


def rate_open(**options: Any) -> int:
    return unpriced.rate_open(current_store(), load_rate_card(), lambda: LATER, **options)


# That it is listed


@pytest.mark.django_db(transaction=True)
def test_an_event_without_a_price_is_listed_in_its_own_transaction() -> None:
    holds = [a_hold(), a_hold(STRANGER), a_hold()]
    events = [an_event(holds[0]), an_unpriced_event(holds[1]), an_unpriced_event(holds[2])]
    settled(current_store(), holds, events)
    listed = UnpricedEvent.objects.order_by("customer_id").values_list(
        "customer_id", "event_id", "created_at", "occurred_at", "provider", "model", "missing", "card_version"
    )
    assert list(listed) == [
        (event.customer_id, event.id, event.created_at, event.occurred_at, "demo", "demo-small", MISSING, 0)
        for event in (events[2], events[1])
    ]


@pytest.mark.django_db(transaction=True)
def test_a_settlement_without_its_hold_lists_nothing() -> None:
    settled(current_store(), [], [an_unpriced_event(a_hold())])
    assert UnpricedEvent.objects.count() == 0


def test_the_books_in_memory_list_it_as_well() -> None:
    store, holds = MemoryStore(), [a_hold(PAYER), a_hold(PAYER)]
    priced, unpriced = an_event(holds[0]), an_unpriced_event(holds[1])
    settled(store, holds, [priced, unpriced])
    assert list(store.unpriced) == [unpriced.id]


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine("postgresql")
def test_an_ingested_event_is_listed_once_however_often_it_is_sent() -> None:
    events = [an_unpriced_event(a_hold(), idempotency_key="one"), an_event(a_hold(), idempotency_key="two")]

    async def ingest() -> list[Any]:
        lane = BulkLane(connection.get_connection_params() | {"cursor_factory": None})
        writer, payloads = uuid4(), [hash_of(b"one"), hash_of(b"two")]
        results = [await lane.ingest(writer, number, events, payloads) for number in (1, 2)]
        await lane.close()
        return results

    assert asyncio.run(ingest()) == [["accepted", "accepted"], ["accepted", "accepted"]]
    assert UnpricedEvent.objects.get().event_id == events[0].id


# That it is rated


@pytest.mark.django_db(transaction=True)
def test_an_event_is_rated_once_a_rate_covers_its_instant() -> None:
    (event,) = made()
    stored = UsageEvent.objects.values().get()
    rates = [a_rate("in_uncached", "1", book="cost"), a_rate("out_visible", "2", book="cost")]
    rates += [a_rate("in_uncached", "3"), a_rate("out_visible", "6")]
    assert rate_open() == 1
    assert UsageEvent.objects.values().get() == stored
    row = UsageCorrection.objects.get()
    assert row.cost_total == Decimal("0.00002")  # 10 × 1/1e6 + 5 × 2/1e6
    assert row.charge_total == Decimal("0.00006")  # 10 × 3/1e6 + 5 × 6/1e6
    assert (row.event_id, row.revision, row.reason, row.created_at) == (event.id, 1, "priced", LATER)
    assert (row.old["pricing_status"], row.new["pricing_status"]) == ("unpriced", "priced")
    assert row.new["rate_ids"] == [rate.pk for rate in rates]
    day = DailyUsage.objects.get()
    assert (day.events, day.unpriced_events, day.charge_total) == (1, 0, Decimal("0.00006"))
    assert UnpricedEvent.objects.count() == 0
    assert rollups.check_day(NOON.date()) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(("since", "until"), [(NOON + timedelta(seconds=1), None), (LONG_AGO, NOON)])
def test_a_rate_for_another_time_prices_nothing(since: Any, until: Any) -> None:
    made()
    a_rate("in_uncached", "3", since=since, until=until)
    assert rate_open() == 0
    assert UsageCorrection.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_what_is_still_missing_stays_listed() -> None:
    made()
    a_rate("in_uncached", "3")
    assert rate_open() == 0
    assert UnpricedEvent.objects.get().missing == {
        "cost": ["in_uncached", "out_visible"],
        "list": ["out_visible"],
    }
    assert DailyUsage.objects.get().charge_total == Decimal("0.00003")  # 10 × 3/1e6
    for book in ("cost", "list"):
        a_rate("out_visible", "6", book=book)
    a_rate("in_uncached", "1", book="cost")
    assert rate_open() == 1
    assert list(UsageCorrection.objects.order_by("revision").values_list("revision", "charge_total")) == [
        (1, Decimal("0.00003")),
        (2, Decimal("0.00003")),  # 5 × 6/1e6
    ]
    assert rollups.check_day(NOON.date()) == []


@pytest.mark.django_db(transaction=True)
def test_an_event_is_rated_by_its_own_books() -> None:
    a_rate("in_uncached", "1", book="cost"), a_rate("out_visible", "2", book="cost")
    made(terms=Terms(list_book="vip"))
    a_rate("in_uncached", "3"), a_rate("out_visible", "6")
    assert rate_open() == 0
    a_rate("in_uncached", "2", book="vip"), a_rate("out_visible", "4", book="vip")
    assert rate_open() == 1
    assert DailyUsage.objects.get().charge_total == Decimal("0.00004")  # 10 × 2/1e6 + 5 × 4/1e6


@pytest.mark.django_db(transaction=True)
def test_who_pays_nothing_by_a_rule_pays_nothing_afterwards() -> None:
    usage = Usage(
        buckets={"in_uncached": 10}, provider="demo", model_requested="demo-small", unknown_sides=("output",),
        source="estimated", extractor="sweep/1",
    )  # fmt: skip
    made(usage=usage, terms=Terms(free=True), status="interrupted")
    a_rate("in_uncached", "1", book="cost"), a_rate("in_uncached", "3")
    assert rate_open() == 1
    day = DailyUsage.objects.get()
    assert (day.cost_total, day.charge_total, day.unpriced_events) == (Decimal("0.00001"), 0, 1), (
        "its output is unknown"
    )


@pytest.mark.django_db(transaction=True)
def test_nothing_is_read_until_the_catalogue_changes() -> None:
    made(3)
    a_rate("in_uncached", "3", model="another")
    assert unpriced.waits_for(load_rate_card().version)
    assert rate_open(page=2) == 0
    assert not unpriced.waits_for(load_rate_card().version)
    a_rate("in_uncached", "3")
    assert unpriced.waits_for(load_rate_card().version)


@pytest.mark.django_db(transaction=True)
def test_many_are_rated_in_pages_of_few() -> None:
    made(7), made(5, STRANGER)
    for book in ("cost", "list"):
        a_rate("in_uncached", "1", book=book), a_rate("out_visible", "2", book=book)
    assert rate_open(page=3) == 12
    assert {day.customer_id: day.charge_total for day in DailyUsage.objects.all()} == {
        PAYER: 7 * Decimal("0.00002"),
        STRANGER: 5 * Decimal("0.00002"),
    }
    assert rollups.check_day(NOON.date()) == []


@pytest.mark.django_db(transaction=True)
def test_an_entry_whose_event_is_gone_is_taken_off() -> None:
    made()
    a_rate("in_uncached", "3")
    with connection.cursor() as cursor:
        cursor.execute("delete from usage_events")  # as retention does
    rate_open()
    assert UnpricedEvent.objects.count() == 0 and UsageCorrection.objects.count() == 0


@pytest.mark.django_db(transaction=True)
def test_an_event_whose_books_are_in_another_currency_by_now_stays_listed() -> None:
    made(currency="EUR")
    for book in ("cost", "list"):
        a_rate("in_uncached", "1", book=book), a_rate("out_visible", "2", book=book)
    assert rate_open() == 0
    assert UnpricedEvent.objects.count() == 1 and UsageCorrection.objects.count() == 0
    assert [(lack.book, lack.buckets) for lack in unpriced.lacks()] == [
        ("cost", ("currency USD",)), ("list", ("currency USD",)),
    ]  # fmt: skip
    assert not unpriced.waits_for(load_rate_card().version), "it was asked, and is not asked again"


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine("sqlite")
def test_an_event_that_the_database_refuses_holds_up_no_other() -> None:
    """Amounts are integers of 10⁻¹² there: ± 9.2 million in a column, and 2 million tokens at 9 dollars are more."""
    card, holds = RateCard.empty(), [a_hold(), a_hold(), a_hold()]
    much = Usage(buckets={"in_uncached": 2_000_000}, provider="demo", model_served="demo-small")
    events = [rated_event(hold, card, usage) for hold, usage in zip(holds, (None, much, None), strict=True)]
    settled(current_store(), holds, events)
    for book in ("cost", "list"):
        a_rate("in_uncached", "9000000", book=book), a_rate("out_visible", "2", book=book)
    assert rate_open() == 2
    assert UnpricedEvent.objects.get().event_id == events[1].id
    assert rollups.check_day(NOON.date()) == []


@pytest.mark.django_db(transaction=True)
def test_the_job_rates_what_waits() -> None:
    made()
    assert tasks.rate_unpriced() == 0
    for book in ("cost", "list"):
        a_rate("in_uncached", "1", book=book), a_rate("out_visible", "2", book=book)
    assert [tasks.rate_unpriced(), tasks.rate_unpriced()] == [1, 0]


# That it is shown


@pytest.mark.django_db(transaction=True)
def test_what_is_missing_is_told_by_book_and_model() -> None:
    a_rate("in_uncached", "1", book="cost"), a_rate("out_visible", "2", book="cost")
    first, *_ = made(2)
    made(usage=Usage(buckets={"page": 2}, provider="demo", model_served="demo-large"))
    found = [(lack.book, lack.model, lack.buckets, lack.events) for lack in unpriced.lacks()]
    assert sorted(found) == [
        ("cost", "demo-large", ("page",), 1),
        ("list", "demo-large", ("page",), 1),
        ("list", "demo-small", ("in_uncached", "out_visible"), 2),
    ]
    assert {lack.since for lack in unpriced.lacks()} == {first.occurred_at}
    assert unpriced.count_open() == 3


def said(event: EventRow, missing: dict[str, list[str]] | None, card_version: int) -> Amendment:
    """What somebody who asked that version of the catalogue found missing, and nothing to correct."""
    return Amendment(
        customer_id=event.customer_id, event_id=event.id, created_at=event.created_at, occurred_at=event.occurred_at,
        provider=event.provider, model=event.model, missing=missing, revision=0, on_credit=False, card_version=card_version,
    )  # fmt: skip


def amended(one: Amendment) -> bool:
    async def write() -> bool:
        lane = await current_store().open_lane("test")
        try:
            return bool(await lane.amend([one]))
        finally:
            await lane.close()

    return asyncio.run(write())


def listed() -> list[tuple[Any, int]]:
    return list(UnpricedEvent.objects.values_list("missing", "card_version"))


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("missing", [{"list": ["in_uncached"]}, None], ids=["some", "nothing"])
def test_who_asked_an_older_catalogue_does_not_overwrite_what_a_newer_one_said(missing: Any) -> None:
    [event] = made()
    assert amended(said(event, {"list": ["out_visible"]}, card_version=8))
    assert not amended(said(event, missing, card_version=7))
    assert listed() == [({"list": ["out_visible"]}, 8)]
    assert amended(said(event, missing, card_version=8)), "the same catalogue may be asked twice"


@pytest.mark.django_db(transaction=True)
@pytest.mark.engine("postgresql")
def test_who_asked_an_older_catalogue_is_told_so_even_if_the_newer_answer_is_just_being_written() -> None:
    [event] = made()
    parameters = connection.get_connection_params()
    named = {
        name: parameters[name]
        for name in ("dbname", "user", "password", "host", "port")
        if parameters.get(name)
    }
    with psycopg.connect(**named) as newer, ThreadPoolExecutor(1) as threads:
        newer.execute('update usage_unpriced set missing = \'{"list": ["out_visible"]}\', card_version = 8')
        stale = threads.submit(amended, said(event, None, card_version=7))
        wait_until_somebody_waits_for_a_lock()
        newer.commit()
        assert stale.result(10) is False
    assert listed() == [({"list": ["out_visible"]}, 8)]


def wait_until_somebody_waits_for_a_lock() -> None:
    for _ in range(1000):
        with connection.cursor() as cursor:
            cursor.execute(
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            if cursor.fetchone() != (0,):
                return
        time.sleep(0.005)
    raise AssertionError("nobody waits")
