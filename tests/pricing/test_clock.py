"""The clock is real time plus an offset."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pricing import clock
from pricing.models import ClockOffset


@pytest.fixture(autouse=True)
def _real_time_afterwards() -> Iterator[None]:
    yield
    clock.set_offset(timedelta(0))


def test_now_is_real_time_and_aware() -> None:
    before = datetime.now(UTC)
    assert before <= clock.now() <= datetime.now(UTC)
    assert clock.now().tzinfo is UTC


def test_an_offset_moves_it() -> None:
    clock.set_offset(timedelta(days=40))
    before = datetime.now(UTC)
    assert clock.now() >= before + timedelta(days=40)
    assert clock.offset() == timedelta(days=40)


@pytest.mark.django_db
def test_nobody_has_moved_the_shared_clock_at_first() -> None:
    assert ClockOffset.read() == timedelta(0)


@pytest.mark.django_db
def test_moving_the_shared_clock_is_stored_exactly_and_holds_here_at_once() -> None:
    offset = ClockOffset.move_to(datetime(2031, 2, 28, 23, 59, tzinfo=UTC))
    assert ClockOffset.read() == clock.offset() == offset
    assert clock.now() >= datetime(2031, 2, 28, 23, 59, tzinfo=UTC)


@pytest.mark.django_db
def test_shifts_add_up() -> None:
    ClockOffset.shift(timedelta(days=2, microseconds=1))
    ClockOffset.shift(timedelta(hours=-1))
    assert ClockOffset.read() == clock.offset() == timedelta(days=2, hours=-1, microseconds=1)
