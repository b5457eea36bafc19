"""A store in a process that was forked: what beats there is its own."""

import os
import signal
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from metering.models import Writer
from metering.wiring import current_store

pytestmark = pytest.mark.django_db(transaction=True)


def in_a_child(act: Callable[[], bool]) -> bool:
    """Whether `act` succeeds in a forked process, within three seconds."""
    child = os.fork()
    if child == 0:
        signal.alarm(3)
        succeeded = False
        try:
            succeeded = act()
        finally:
            os._exit(0 if succeeded else 1)
    _, status = os.waitpid(child, 0)
    return status == 0


def a_beating_store() -> tuple[Any, UUID]:
    store, writer = current_store(), uuid4()
    Writer.objects.create(id=writer, seq=1)
    store.beat([writer])
    return store, writer


def test_a_child_beats_on_a_connection_of_its_own() -> None:
    store, writer = a_beating_store()
    inherited = store._beat_connection

    def beat() -> bool:
        store.beat([writer])
        own = store._beat_connection is not inherited
        store.close()
        return own

    assert in_a_child(beat)
    store.beat([writer])
    assert store._beat_connection is inherited, "the child has left it alone"
    store.close()
    assert Writer.objects.get(id=writer).beat == 3


def test_a_child_can_beat_although_the_parent_was_just_beating() -> None:
    store, writer = a_beating_store()

    def beat() -> bool:
        store.beat([writer])
        store.close()
        return True

    with store._lock:
        assert in_a_child(beat)
    store.close()


def test_a_child_that_only_closes_takes_nothing_from_the_parent() -> None:
    store, writer = a_beating_store()
    connection = store._beat_connection
    assert in_a_child(lambda: store.close() is None)
    store.beat([writer])
    assert store._beat_connection is connection
    store.close()
