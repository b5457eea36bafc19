"""Unpriced is a state: listed together with the event, healed when a rate covers its instant."""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection

from metering.models import UnpricedEvent
from metering.rows import EventRow, HoldRow
from metering.store import Store
from metering.store.bulk import BulkLane, hash_of
from metering.store.memory import MemoryStore
from metering.wiring import current_store
from tests.metering.rows import PAYER, STRANGER, a_hold, an_event

MISSING = {"list": ["in_uncached", "out_visible"]}


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
