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
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.conf import settings
from django.db import connection

from billing import ledger
from billing.ledger_check import check_ledger
from billing.models import Customer
from metering import sweeper
from metering.models import Hold, Writer
from metering.wiring import current_store
from pricing import clock
from pricing.pricelist import RateCard
from tests.chaos.audit import phantom_refusals, problems, steps_of
from tests.chaos.proxy import CuttingProxy
from tests.local_servers import die_with_parent

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.kill, pytest.mark.timeout(300)]

PROCESSES, CALLS, CUSTOMERS = 4, 250, 12
CREDITS = Decimal(300)  # 1,000 calls come to about 0.64 each: enough for half of them
LOOKS_MAX = 300
LINE = len(f"{UUID(int=0)}\n")  # what a process writes for a call that went out
Process = subprocess.Popen[bytes]


class Crowd:
    """Four processes that make calls on one database. With every other seed the customers, or the only one,
    have credits, too few for all."""

    def __init__(self, seed: int, directory: Path, store: dict[str, Any]) -> None:
        self.random = random.Random(seed)
        self.has_credits, self._customers = seed % 2 == 0, 1 if seed % 4 == 0 else CUSTOMERS
        self._credits = CREDITS / self._customers
        if self.has_credits:
            give_credits(self._customers, self._credits)
        self._directory = directory
        self._logs: dict[Process, Path] = {}
        for number in range(PROCESSES):
            self._start(seed * 100 + number, store)

    def _start(self, seed: int, store: dict[str, Any]) -> None:
        went_out, output = self._directory / f"went-out-{seed}", self._directory / f"output-{seed}"
        order = {
            "store": store,
            "seed": seed,
            "calls": CALLS,
            "customers": self._customers,
            "went_out": str(went_out),
            "go": str(self._directory / "go"),
            "credits": self.has_credits,
            "story": str(self._directory / f"story-{seed}"),
        }
        with output.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.crowd", json.dumps(order)],
                cwd=settings.BASE_DIR, stdout=out, stderr=out, preexec_fn=die_with_parent(signal.SIGKILL),
            )  # fmt: skip
        self._logs[process] = went_out

    @property
    def processes(self) -> list[Process]:
        return list(self._logs)

    def start(self) -> None:
        """Let all of them start at once, as soon as each of them can."""
        while not all(log.exists() for log in self._logs.values()):
            assert not any(map(ended, self.processes)), self.output()
            time.sleep(0.002)
        (self._directory / "go").touch()

    def strike(self, victims: Iterable[Process], blow: Callable[[Process], object]) -> None:
        """Strike each of the victims in the middle of its work: once it has made a number of calls, random for each. Not
        after a time, in which a busy machine does nothing and an idle one everything."""
        due = {victim: self._random_share(CALLS) for victim in victims}
        while due:
            reached = [
                victim for victim, calls in due.items() if self._made(victim) >= calls or ended(victim)
            ]
            for victim in reached:
                time.sleep(self.random.random() * 0.01)  # not always just after a hold was committed
                blow(victim)
                del due[victim]
            time.sleep(0.001)

    def strike_all(self, times: int, blow: Callable[[], object]) -> None:
        """Strike so often in the middle of what all of them do together."""
        for calls in sorted(self._random_share(PROCESSES * CALLS) for _ in range(times)):
            self._wait_until(lambda calls=calls: sum(map(self._made, self.processes)) >= calls)  # type: ignore[misc]
            blow()

    def _random_share(self, calls: int) -> int:
        """A number of calls that leaves a quarter of them to be made."""
        return self.random.randint(1, calls * 3 // 4)

    def _made(self, process: Process) -> int:
        return self._logs[process].stat().st_size // LINE

    def _wait_until(self, reached: Callable[[], bool]) -> None:
        """Until it is reached, or nobody is left who could reach it; which of both, what is counted at the end tells."""
        while any(not ended(process) for process in self.processes) and not reached():
            time.sleep(0.002)

    def finish(self) -> None:
        for process in self.processes:
            process.wait(240)
            assert process.returncode in (0, -signal.SIGKILL), self.output()

    def went_out(self) -> list[str]:
        return [line for log in self._logs.values() for line in log.read_text().split()]

    def problems(self) -> list[str]:
        """What is wrong when all is over; empty when each call is in the books once, nobody has overspent, and nobody was
        refused what there was."""
        found = problems(self.went_out())
        if self.has_credits:
            stories = (
                line for path in self._directory.glob("story-*") for line in path.read_text().splitlines()
            )
            steps = steps_of(stories)
            found += map(str, check_ledger())
            found += phantom_refusals(
                steps, {str(UUID(int=n + 1)): self._credits for n in range(self._customers)}
            )
            assert any(step.admitted is False for step in steps), "credits for all: nothing was tried"
        return found

    def output(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self._directory.glob("output-*")))


def give_credits(customers: int, amount: Decimal) -> None:
    """The customers, each with credits of so much."""
    for number in range(customers):
        customer = Customer.objects.create(
            id=UUID(int=number + 1), external_id=f"customer-{number}", name="Of the crowd"
        )
        ledger.set_hard(customer, hard=True)
        ledger.grant(customer, amount, "USD", key="first", at=clock.now())


def ended(process: Process) -> bool:
    return process.poll() is not None


def look(every_s: float) -> None:
    """Look once for the dead, and sweep what they left."""
    sweeper.sweep(current_store(), RateCard.empty(), clock.now, every=timedelta(seconds=every_s * 0.8))
    time.sleep(every_s)


def sweep_the_dead() -> None:
    """When all processes have ended: look until nobody is left. A statement that a process sent before it was killed may
    still be on its way, and counts as a beat when it arrives."""
    for _ in range(LOOKS_MAX):
        look(every_s=0.1)
        if not Writer.objects.filter(fenced_at__isnull=True).exists() and not Hold.objects.exists():
            return


def freeze(process: Process) -> None:
    """Stop a process where it is; on SQLite not in the middle of its turn, when it would stop every other writer: a
    database in a file belongs to one machine, and a machine that is stopped stops as a whole."""
    while not ended(process):
        process.send_signal(signal.SIGSTOP)
        wait_until_stopped(process)
        if connection.vendor != "sqlite" or turnstile_moves(f"{connection.settings_dict['NAME']}.turnstile"):
            return
        process.send_signal(signal.SIGCONT)
        time.sleep(0.01)


def wait_until_stopped(process: Process) -> None:
    """Until the signal has reached every thread of the process (or the process has ended): before, a thread on another
    core runs on, and may yet take its turn. The kernel says so to the parent, whom we leave the news."""
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def turnstile_moves(path: str) -> bool:
    """Whether anybody gets through. Half a second without is no proof that nobody does, but reason to try once more."""
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
    crowd.start()
    crowd.strike(crowd.random.sample(crowd.processes, 2), blow=lambda process: process.kill())
    crowd.finish()
    sweep_the_dead()
    assert crowd.problems() == []


def test_a_process_stopped_declared_dead_and_woken_charges_once(kill_seed: int, crowd_of: Any) -> None:
    crowd = crowd_of(kill_seed, target())
    crowd.start()
    sleeper = crowd.random.choice(crowd.processes)
    crowd.strike([sleeper], blow=freeze)
    for _ in range(sweeper.LOOKS_UNTIL_DEAD + 1):
        look(every_s=0.5)  # the others, who are alive, beat every 0.2 s
    sleeper.send_signal(signal.SIGCONT)
    crowd.finish()
    sweep_the_dead()
    assert crowd.problems() == []


@pytest.mark.engine("postgresql")  # SQLite has no connection to cut; test_recorder loses its answers
def test_connections_cut_in_the_middle_of_commit_count_once(kill_seed: int, crowd_of: Any) -> None:
    store = target()
    host, port = store["postgresql"].get("host", ""), int(store["postgresql"].get("port") or 5432)
    behind: tuple[str, int] | str = f"{host}/.s.PGSQL.{port}" if host.startswith("/") else (host, port)
    with CuttingProxy(behind, kill_seed) as proxy:
        through = {**store["postgresql"], "host": "127.0.0.1", "port": proxy.port, "sslmode": "disable"}
        crowd = crowd_of(kill_seed, {"postgresql": through})
        crowd.start()
        crowd.strike_all(times=5, blow=lambda: terminate_one(crowd.random))
        crowd.finish()
        assert proxy.cuts > 0
    sweep_the_dead()
    assert crowd.problems() == []


def terminate_one(rng: random.Random) -> None:
    """End a server process in the middle of whatever it does for one of ours."""
    parameters = connection.get_connection_params()
    named = {
        name: parameters[name]
        for name in ("dbname", "user", "password", "host", "port")
        if parameters.get(name)
    }
    with psycopg.connect(autocommit=True, **named) as administrator:
        found = administrator.execute(
            "select pid from pg_stat_activity where datname = current_database()"
            " and application_name in ('tollgate hold', 'tollgate settle')"
        ).fetchall()
        if found:
            administrator.execute("select pg_terminate_backend(%s)", [rng.choice(found)[0]])
