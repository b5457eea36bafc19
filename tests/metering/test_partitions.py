"""Months of usage_events: made ahead, and never in the way of an insert."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest
from django.db import connection

from metering import partitions
from metering.models import UsageEvent
from metering.wiring import current_store
from tests.metering.rows import a_hold, an_event

pytestmark = pytest.mark.django_db(transaction=True)
on_postgresql = pytest.mark.engine("postgresql")
DECEMBER = datetime(2031, 12, 15, tzinfo=UTC)


@pytest.fixture
def months() -> Iterator[None]:
    """Takes away what the test made."""
    yield
    with connection.cursor() as cursor:
        cursor.execute("delete from usage_events")
        for month in ("2031_12", "2032_01", "2032_02", "2032_03"):
            cursor.execute(f"drop table if exists usage_events_{month}")


def partition_of(event_id: UUID) -> str:
    with connection.cursor() as cursor:
        cursor.execute("select tableoid::regclass::text from usage_events where id = %s", [event_id])
        row = cursor.fetchone()
    return str(row[0]) if row else ""


def write_event(at: datetime) -> UUID:
    hold = a_hold(at=at)
    event = an_event(hold)

    async def write() -> None:
        lane, writer = await current_store().open_lane("test"), uuid4()
        await lane.hold(writer, 1, [hold], None)
        await lane.settle(writer, 2, [event], None)
        await lane.close()

    asyncio.run(write())
    return event.id


@on_postgresql
@pytest.mark.usefixtures("months")
def test_this_month_and_the_next_ones_are_made_once() -> None:
    months = ["usage_events_2031_12", "usage_events_2032_01", "usage_events_2032_02", "usage_events_2032_03"]
    assert partitions.ensure(DECEMBER) == months
    assert partitions.ensure(DECEMBER) == []
    assert partition_of(write_event(DECEMBER)) == "usage_events_2031_12"


@on_postgresql
@pytest.mark.usefixtures("months")
def test_an_event_of_no_month_is_caught_and_moved_when_its_month_is_made() -> None:
    event = write_event(DECEMBER)
    assert partition_of(event) == "usage_events_default"
    partitions.ensure(DECEMBER)
    assert partition_of(event) == "usage_events_2031_12"
    assert UsageEvent.objects.filter(id=event).count() == 1


@on_postgresql
@pytest.mark.usefixtures("months")
def test_the_first_instant_of_a_month_is_in_it_and_the_last_one_before_is_not() -> None:
    partitions.ensure(DECEMBER)
    new_year = datetime(2032, 1, 1, tzinfo=UTC)
    a_second_to = partition_of(write_event(new_year - timedelta(seconds=1)))
    assert a_second_to == "usage_events_2032_01", "settled a second later, which is the event's own instant"
    assert partition_of(write_event(new_year - timedelta(seconds=2))) == "usage_events_2031_12"


@pytest.mark.engine("sqlite")
def test_sqlite_has_one_table_and_nothing_to_do() -> None:
    assert partitions.ensure(DECEMBER) == []
