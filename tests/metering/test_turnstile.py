"""The turnstile: writers of SQLite take turns, ours and Django's."""

import asyncio
import fcntl
import gc
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.db import connection, transaction

from metering.gate import OpenGate
from metering.models import Hold, UsageEvent, Writer
from metering.recorder import Recorder
from metering.turnstile import Turnstile
from metering.wiring import current_store
from tests.metering.rows import a_hold, an_event

ROOT = Path(__file__).resolve().parents[2]
TAKE_TURNS = """
import sys, time
from metering.turnstile import Turnstile
turnstile, turns = Turnstile(sys.argv[1]), 0
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + 1.5
while time.monotonic() < end:
    turnstile.acquire()
    turns += 1
    time.sleep(0.001)  # a commit
    turnstile.release()
print(turns)
"""


def descriptors() -> int:
    """How many turnstile files this process has open."""
    files = Path("/proc/self/fd")
    return sum("turnstile" in str(file.readlink()) for file in files.iterdir() if file.is_symlink())


def is_taken(path: Path) -> bool:
    """Whether anybody holds the lock."""
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_who_waits_gets_through_after_who_holds(tmp_path: Path) -> None:
    first, second = Turnstile(str(tmp_path / "db")), Turnstile(str(tmp_path / "db"))
    order = []
    first.acquire()

    def wait() -> None:
        second.acquire()
        order.append("second")
        second.close()

    thread = threading.Thread(target=wait)
    thread.start()
    order.append("first")
    first.release()
    thread.join(10)
    assert order == ["first", "second"]
    first.close()


def test_releasing_twice_or_unheld_does_nothing(tmp_path: Path) -> None:
    turnstile = Turnstile(str(tmp_path / "db"))
    turnstile.release()
    turnstile.acquire()
    turnstile.close()
    turnstile.close()
    assert turnstile.held is False


@pytest.mark.engine("sqlite")
@pytest.mark.django_db(transaction=True)
def test_django_holds_the_turnstile_for_a_transaction_and_for_a_single_write() -> None:
    connection.ensure_connection()
    turnstile: Any = connection.turnstile  # type: ignore[attr-defined]
    with transaction.atomic():
        assert turnstile.held
    assert not turnstile.held
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        raise ZeroDivisionError
    assert not turnstile.held
    with connection.cursor() as cursor:
        cursor.execute("create table t (n integer)")
        cursor.execute("drop table t")
    assert not turnstile.held


def test_a_connection_of_the_recorder_is_durable(tmp_path: Path) -> None:
    from metering.store.sqlite import connect

    db: sqlite3.Connection = connect(str(tmp_path / "db"))
    assert db.execute("pragma journal_mode").fetchone() == ("wal",)
    assert db.execute("pragma synchronous").fetchone() == (2,), "FULL"
    db.close()


def test_two_busy_processes_take_turns(tmp_path: Path) -> None:
    command = [sys.executable, "-c", TAKE_TURNS, str(tmp_path / "db")]
    pair = [
        subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in pair:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in pair:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    turns = [int(process.communicate(timeout=30)[0]) for process in pair]
    assert min(turns) * 3 >= sum(turns), turns


def test_a_forgotten_turnstile_gives_its_descriptor_back(tmp_path: Path) -> None:
    before = descriptors()
    turnstile = Turnstile(str(tmp_path / "db"))
    turnstile.acquire()
    assert descriptors() == before + 1
    del turnstile
    gc.collect()
    assert descriptors() == before
    assert not is_taken(tmp_path / "db.turnstile")


def test_a_child_gives_back_what_it_inherited_and_leaves_the_parents_turn_alone(tmp_path: Path) -> None:
    turnstile = Turnstile(str(tmp_path / "db"))
    turnstile.acquire()
    before, path = descriptors(), tmp_path / "db.turnstile"
    child = os.fork()
    if child == 0:
        turnstile.release()
        os._exit(0 if (descriptors(), turnstile.held, is_taken(path)) == (before - 1, False, True) else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert is_taken(path)
    turnstile.close()


@pytest.mark.engine("sqlite")
@pytest.mark.django_db(transaction=True)
def test_threads_of_django_leave_no_descriptor_behind() -> None:
    before = descriptors()
    for _ in range(5):
        thread = threading.Thread(target=lambda: Writer.objects.filter(seq=-1).update(seq=0))
        thread.start()
        thread.join()
    gc.collect()
    assert descriptors() == before


@pytest.mark.engine("sqlite")
@pytest.mark.django_db(transaction=True)
def test_who_stops_does_not_wait_for_ever_at_the_turnstile() -> None:
    turnstile = Turnstile(connection.settings_dict["NAME"])

    async def stop_while_it_is_held() -> None:
        recorder, hold = Recorder(current_store(), OpenGate(), beat_s=0.05), a_hold()
        await recorder.hold(hold)
        turnstile.acquire()
        recorder.settle(an_event(hold)).add_done_callback(asyncio.Future.exception)
        await asyncio.sleep(0.2)  # the settlement and the beat are waiting by now
        try:
            await asyncio.wait_for(asyncio.shield(stopping := asyncio.ensure_future(recorder.stop(0.2))), 10)
        finally:
            turnstile.close()
            await stopping

    asyncio.run(stop_while_it_is_held())
    before = time.monotonic()
    while Hold.objects.exists() and time.monotonic() < before + 10:
        time.sleep(0.01)
    assert UsageEvent.objects.count() == 1, "what was waiting is written once it is its turn"


@pytest.mark.engine("sqlite")
@pytest.mark.django_db(transaction=True)
def test_a_closed_lane_can_be_closed_again() -> None:
    async def close_twice() -> None:
        lane = await current_store().open_lane("test")
        assert await lane.writer_state(uuid4()) is None
        await lane.close()
        await lane.close()

    asyncio.run(close_twice())
