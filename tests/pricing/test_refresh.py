"""Every process sees a new price within seconds, and keeps its prices when the database is away."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import DatabaseError, connection

from pricing import clock
from pricing.models import ClockOffset, PriceBook, Rate
from pricing.pricelist import CurrentCard
from pricing.refresh import Refresher

JANUARY = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
def current() -> Iterator[CurrentCard]:
    yield CurrentCard()
    clock.set_offset(timedelta(0))


def add_rate(price: str, bucket: str = "in_uncached") -> Rate:
    book, _ = PriceBook.objects.get_or_create(slug="cost", defaults={"name": "Cost"})
    return Rate.objects.create(
        book=book, provider="acme", model="large", bucket=bucket, price=Decimal(price), effective_from=JANUARY
    )


def price(current: CurrentCard) -> Decimal | None:
    prices = current.card.prices_for("cost", "acme", "large", datetime.now(UTC))
    return prices.unit_price_input if prices else None


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


@pytest.mark.django_db
def test_the_first_look_loads_the_card_even_when_it_is_empty(current: CurrentCard) -> None:
    assert Refresher(current).refresh_now()
    assert current.age_s is not None


@pytest.mark.django_db
def test_a_card_is_loaded_only_when_the_catalogue_has_changed(current: CurrentCard) -> None:
    refresher = Refresher(current)
    add_rate("2")
    assert refresher.refresh_now()
    card = current.card
    assert not refresher.refresh_now()
    assert current.card is card
    add_rate("3", "out_visible")
    assert refresher.refresh_now()
    assert current.card.rates == 2


@pytest.mark.django_db
def test_looking_costs_one_query(
    current: CurrentCard, django_assert_num_queries: Callable[[int], object]
) -> None:
    refresher = Refresher(current)
    refresher.refresh_now()
    with django_assert_num_queries(1):  # type: ignore[attr-defined]
        refresher.refresh_now()


@pytest.mark.django_db
def test_a_look_takes_over_the_shared_clock(current: CurrentCard) -> None:
    ClockOffset.shift(timedelta(days=3))
    clock.set_offset(timedelta(0))
    Refresher(current).refresh_now()
    assert clock.offset() == timedelta(days=3)


@pytest.mark.django_db(transaction=True)
def test_a_running_refresher_brings_in_a_new_price(current: CurrentCard) -> None:
    refresher = Refresher(current, every_s=0.02)
    refresher.start()
    try:
        wait_until(lambda: current.loaded_at is not None)
        rate = add_rate("2")
        wait_until(lambda: price(current) == Decimal(2) / 1_000_000)
        rate.supersede(Decimal(3), JANUARY + timedelta(days=1))
        wait_until(lambda: price(current) == Decimal(3) / 1_000_000)
    finally:
        refresher.stop()


@pytest.mark.django_db(transaction=True)
def test_a_table_that_is_away_leaves_the_prices_and_is_reported_once(
    current: CurrentCard, caplog: pytest.LogCaptureFixture
) -> None:
    add_rate("2")
    refresher = Refresher(current, every_s=0.02)
    refresher.refresh_now()
    with connection.cursor() as cursor:
        cursor.execute("alter table tollgate_clock rename to tollgate_clock_away")
    try:
        with pytest.raises(DatabaseError):
            refresher.refresh_now()
        with caplog.at_level(logging.WARNING, logger="pricing.refresh"):
            refresher.start()
            wait_until(lambda: len(caplog.records) == 1)
            assert price(current) == Decimal(2) / 1_000_000
    finally:
        with connection.cursor() as cursor:
            cursor.execute("alter table tollgate_clock_away rename to tollgate_clock")
    loaded_at = current.loaded_at or 0
    wait_until(lambda: (current.loaded_at or 0) > loaded_at)
    refresher.stop()
    assert len(caplog.records) == 1


@pytest.mark.django_db(transaction=True)
def test_starting_twice_is_starting_once_and_a_stopped_one_starts_again(current: CurrentCard) -> None:
    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "pricing-refresh"]

    refresher = Refresher(current, every_s=0.02)
    refresher.start()
    refresher.start()
    assert len(threads()) == 1
    refresher.stop()
    assert threads() == []
    refresher.start()
    assert len(threads()) == 1
    refresher.stop()


@pytest.mark.django_db(transaction=True)
def test_the_child_of_a_fork_starts_its_own_thread(current: CurrentCard) -> None:
    refresher = Refresher(current, every_s=30)  # idle while the process forks
    refresher.start()
    wait_until(lambda: current.loaded_at is not None)
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        current.loaded_at = None
        refresher.start()
        wait_until(lambda: current.loaded_at is not None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    refresher.stop()
    assert os.waitstatus_to_exitcode(status) == 0
