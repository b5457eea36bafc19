"""Four processes against each other, killed, frozen and cut off at random: each call that went out is one event, or one
swept hold, and daily usage equals events plus corrections."""

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from metering import sweeper
from metering.wiring import current_store
from pricing import clock
from pricing.pricelist import RateCard
from tests.chaos.audit import problems
from tests.chaos.proxy import CuttingProxy
from tests.local_servers import die_with_parent

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.kill, pytest.mark.timeout(300)]

PROCESSES, CALLS, CUSTOMERS = 4, 250, 12


class Crowd:
    """Four processes that make calls on one database."""

    def __init__(self, seed: int, directory: Path, store: dict[str, Any]) -> None:
        self.random = random.Random(seed)
        self._directory = directory
        self._logs: list[Path] = []
        self.processes = [self._start(seed * 100 + number, store) for number in range(PROCESSES)]

    def _start(self, seed: int, store: dict[str, Any]) -> "subprocess.Popen[bytes]":
        went_out, output = self._directory / f"went-out-{seed}", self._directory / f"output-{seed}"
        self._logs.append(went_out)
        order = {
            "store": store,
            "seed": seed,
            "calls": CALLS,
            "customers": CUSTOMERS,
            "went_out": str(went_out),
            "go": str(self._directory / "go"),
        }
        with output.open("wb") as out:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.crowd", json.dumps(order)],
                cwd=settings.BASE_DIR, stdout=out, stderr=out, preexec_fn=die_with_parent(signal.SIGKILL),
            )  # fmt: skip

    def pause(self, longest_s: float) -> None:
        time.sleep(self.random.random() * longest_s)

    def wait_until_busy(self) -> None:
        """Let all of them start at once, and return when each has made a call."""
        self._wait_for_all(lambda log: log.exists())
        (self._directory / "go").touch()
        self._wait_for_all(lambda log: log.stat().st_size > 0)

    def _wait_for_all(self, reached: Callable[[Path], bool]) -> None:
        while not all(reached(log) for log in self._logs):
            assert any(process.poll() is None for process in self.processes), self.output()
            time.sleep(0.01)

    def finish(self) -> None:
        for process in self.processes:
            process.wait(120)
            assert process.returncode in (0, -signal.SIGKILL), self.output()

    def went_out(self) -> list[str]:
        return [line for log in self._logs if log.exists() for line in log.read_text().split()]

    def output(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._directory.glob("output-*")))


def sweep_the_dead() -> int:
    """Look until whoever is silent is dead: their beats come every 0.2 s here, the looks every 0.5 s."""
    swept = 0
    for _ in range(sweeper.LOOKS_UNTIL_DEAD + 1):
        swept += sweeper.sweep(
            current_store(), RateCard.empty(), clock.now, every=timedelta(milliseconds=400)
        )
        time.sleep(0.5)
    return swept


def freeze(pid: int) -> None:
    """Stop a process where it is; on SQLite not in the middle of its turn, when it would stop every other writer: a
    database in a file belongs to one machine, and a machine that is stopped stops as a whole."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        if connection.vendor != "sqlite" or turnstile_moves(f"{connection.settings_dict['NAME']}.turnstile"):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.01)


def turnstile_moves(path: str) -> bool:
    """Whether anybody gets through: whoever holds it now lets go within half a second."""
    with open(path, "rb") as file:  # noqa: PTH123
        for _ in range(250):
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(0.002)
            else:
                return True
    return False


def target() -> dict[str, Any]:
    """This test's database, as a process of the crowd takes it."""
    database = connection.settings_dict
    if connection.vendor == "sqlite":
        return {"sqlite": str(database["NAME"])}
    parameters = connection.get_connection_params()
    named = {name: parameters.get(name) for name in ("dbname", "user", "password", "host", "port")}
    return {"postgresql": {name: value for name, value in named.items() if value}}


@pytest.fixture
def crowd_of(tmp_path: Path) -> Iterator[Any]:
    made: list[Crowd] = []

    def make(seed: int, store: dict[str, Any]) -> Crowd:
        made.append(Crowd(seed, tmp_path, store))
        return made[-1]

    yield make
    for crowd in made:
        for process in crowd.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()


def test_processes_killed_under_load_lose_and_double_nothing(kill_seed: int, crowd_of: Any) -> None:
    crowd = crowd_of(kill_seed, target())
    crowd.wait_until_busy()
    for process in crowd.random.sample(crowd.processes, 2):
        crowd.pause(0.15)
        process.kill()
    crowd.finish()
    sweep_the_dead()
    assert problems(crowd.went_out()) == []


def test_a_process_stopped_declared_dead_and_woken_charges_once(kill_seed: int, crowd_of: Any) -> None:
    crowd = crowd_of(kill_seed, target())
    crowd.wait_until_busy()
    crowd.pause(0.1)
    sleeper = crowd.random.choice(crowd.processes)
    freeze(sleeper.pid)
    sweep_the_dead()
    os.kill(sleeper.pid, signal.SIGCONT)
    crowd.finish()
    sweep_the_dead()
    assert problems(crowd.went_out()) == []


@pytest.mark.engine("postgresql")  # SQLite has no connection to cut; test_recorder loses its answers
def test_connections_cut_in_the_middle_of_commit_count_once(kill_seed: int, crowd_of: Any) -> None:
    store = target()
    host, port = store["postgresql"].get("host", ""), int(store["postgresql"].get("port") or 5432)
    behind: tuple[str, int] | str = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
    with ExitStack() as stack:
        proxy = stack.enter_context(CuttingProxy(behind, kill_seed))
        through = {
            "postgresql": {
                **store["postgresql"],
                "host": "127.0.0.1",
                "port": proxy.port,
                "sslmode": "disable",
            }
        }
        proxy.cutting = True
        crowd = crowd_of(kill_seed, through)
        crowd.wait_until_busy()
        for _ in range(5):
            crowd.pause(0.2)
            _terminate_one(crowd.random)
        crowd.finish()
        assert proxy.cuts > 0
    sweep_the_dead()
    assert problems(crowd.went_out()) == []


def _terminate_one(rng: random.Random) -> None:
    parameters = connection.get_connection_params()
    named = {
        name: parameters[name]
        for name in ("dbname", "user", "password", "host", "port")
        if parameters.get(name)
    }
    with psycopg.connect(autocommit=True, **named) as administrator:
        found = administrator.execute(
            "select pid from pg_stat_activity where application_name in ('tollgate hold', 'tollgate settle')"
        ).fetchall()
        if found:
            administrator.execute("select pg_terminate_backend(%s)", [rng.choice(found)[0]])
