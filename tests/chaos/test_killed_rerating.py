"""Re-rating and the job that rates what had no price, killed again and again while calls go on: every event is corrected once,
and the books are whole after each death."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import pytest
from django.conf import settings
from django.db import connection

from metering import rollups
from metering.models import DailyUsage, Rerating, UnpricedEvent, UsageCorrection, UsageEvent
from metering.wiring import current_store
from pricing.catalog import load_rate_card
from pricing.models import Rate
from tests.chaos.audit import problems
from tests.local_servers import die_with_parent
from tests.metering.catalogue import LONG_AGO, a_rate, rated_event
from tests.metering.rows import NOON, a_hold

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.kill(seeds=4), pytest.mark.timeout(300)]

CUSTOMERS, CALLS, PAGE, DEATHS = 4, 60, 3, 2
RERATE = ("rerate", "--from", "2026-11-20", "--to", "2026-11-21", "--apply", "--page", str(PAGE))
RATE_OPEN = (
    "from metering import unpriced, wiring\nfrom pricing import catalog, clock\n"
    f"unpriced.rate_open(wiring.current_store(), catalog.load_rate_card(), clock.now, page={PAGE})"
)


def calls(count: int, first: int = 0) -> None:
    """Calls of every customer that are settled by the rates of now: 10 tokens in and 5 out."""
    card = load_rate_card()
    holds = [
        a_hold(UUID(int=customer + 1), NOON + timedelta(seconds=first + number)) for customer in range(CUSTOMERS) for number in range(count)
    ]  # fmt: skip

    async def write() -> None:
        lane, writer = await current_store().open_lane("test"), uuid4()
        await lane.hold(writer, 1, holds, None)
        await lane.settle(writer, 2, [rated_event(hold, card) for hold in holds], None)
        await lane.close()

    asyncio.run(write())


def price_everything(price: str) -> None:
    for book in ("cost", "list"):
        a_rate("in_uncached", price, book=book), a_rate("out_visible", price, book=book)


def database_url() -> str:
    """This test's database, as DATABASE_URL takes it."""
    if connection.vendor == "sqlite":
        return f"sqlite:///{connection.settings_dict['NAME']}"
    return urlsplit(os.environ["DATABASE_URL"])._replace(path=f"/{connection.settings_dict['NAME']}").geturl()


def started(arguments: tuple[str, ...], output: Path) -> "subprocess.Popen[bytes]":
    with output.open("ab") as out:
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments], cwd=settings.BASE_DIR, stdout=out, stderr=out,
            env={**os.environ, "DATABASE_URL": database_url()}, preexec_fn=die_with_parent(signal.SIGKILL),
        )  # fmt: skip


def killed_after(process: "subprocess.Popen[bytes]", corrections: int, pause: float) -> bool:
    """Kill the process a moment after it has written so many corrections; False when it was done before."""
    until = UsageCorrection.objects.count() + corrections
    while UsageCorrection.objects.count() < until and process.poll() is None:
        time.sleep(0.01)
    time.sleep(pause)
    process.kill()
    return process.wait(60) == -signal.SIGKILL


def dies_and_goes_on(arguments: tuple[str, ...], seed: int, output: Path) -> int:
    """Start it, kill it, use the API, and so on until it ends by itself; how often it died."""
    rng, deaths = random.Random(seed), 0
    for number in range(DEATHS):
        process = started(arguments, output)
        if not killed_after(process, rng.randrange(1, 30), rng.random() * 0.02):
            assert process.returncode == 0, output.read_text()
            break
        deaths += 1
        assert rollups.check_day(NOON.date()) == []
        calls(1, first=1000 + number)
    process = started(arguments, output)
    assert process.wait(120) == 0, output.read_text()
    return deaths


def test_what_is_killed_goes_on_and_corrects_every_event_once(kill_seed: int, tmp_path: Path) -> None:
    """The command with even seeds, the job with odd ones."""
    (a_price_that_was_wrong if kill_seed % 2 == 0 else a_price_that_came_late)(kill_seed, tmp_path / "output")
    assert UsageCorrection.objects.count() == CUSTOMERS * CALLS, (
        "those that were settled meanwhile had the new price"
    )
    assert UnpricedEvent.objects.count() == 0
    events = UsageEvent.objects.count()
    assert sum(day.charge_total for day in DailyUsage.objects.all()) == events * Decimal(
        "0.000045"
    )  # 15 × 3/1e6
    assert problems([]) == []
    assert rollups.check_day(NOON.date()) == []


def a_price_that_was_wrong(seed: int, output: Path) -> None:
    price_everything("1")
    calls(CALLS)
    for rate in list(Rate.objects.filter(book__slug="list")):
        rate.supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    assert dies_and_goes_on(RERATE, seed, output) > 0
    first = Rerating.objects.order_by("started_at").first()
    assert first is not None and (first.state, first.totals[0]["corrections"]) == ("done", CUSTOMERS * CALLS)


def a_price_that_came_late(seed: int, output: Path) -> None:
    calls(CALLS)
    price_everything("3")
    assert dies_and_goes_on(("shell", "-c", RATE_OPEN), seed, output) > 0


SETTLERS, ROUNDS = 4, 8
SETTLE = "from tests.chaos import test_killed_rerating as it\nfor n in range({rounds}): it.calls(1, first={first} + n)"


def test_two_at_once_beside_processes_that_settle_correct_every_event_once(tmp_path: Path) -> None:
    """Whoever finds the other at the run stops and says so; what is left, the next one does."""
    price_everything("1")
    calls(CALLS)
    for rate in list(Rate.objects.filter(book__slug="list")):
        rate.supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    settlers = [
        started(
            ("shell", "-c", SETTLE.format(rounds=ROUNDS, first=1000 + 100 * number)), tmp_path / "settlers"
        )
        for number in range(SETTLERS)
    ]
    pair = [started(RERATE, tmp_path / f"rerate-{number}") for number in range(2)]
    for process in (*pair, *settlers):
        process.wait(120)
    assert [process.returncode for process in settlers] == [0] * SETTLERS, (tmp_path / "settlers").read_text()
    told = [(tmp_path / f"rerate-{number}").read_text() for number in range(2)]
    assert all(
        process.returncode == 0 or "another process is working on this run" in text
        for process, text in zip(pair, told, strict=True)
    ), told
    last = started(RERATE, tmp_path / "last")
    assert last.wait(120) == 0, (tmp_path / "last").read_text()
    assert UsageCorrection.objects.count() == CUSTOMERS * CALLS
    events = CUSTOMERS * (CALLS + SETTLERS * ROUNDS)
    assert UsageEvent.objects.count() == events
    charged = sum(day.charge_total for day in DailyUsage.objects.all())
    assert charged == events * Decimal("0.000045")  # 15 × 3/1e6
    assert problems([]) == []
    assert rollups.check_day(NOON.date()) == []
