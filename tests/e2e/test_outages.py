"""The database is taken away from a running server: open plans are served and counted, closed ones refused, nothing restarts."""

from __future__ import annotations

import json
import random
import re
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import httpx
import pytest

from tests.e2e.outages import Mortals, Outage, mortal_databases
from tests.e2e.test_killed_web import Load, assert_each_is_in_the_books_once, wait_for_calls
from tests.servers import Database, WebProcess, manage, spool_of
from tests.upstream import RunningUpstream, upstream_server

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

CALL = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}


@pytest.fixture
def upstream() -> Iterator[RunningUpstream]:
    with upstream_server(pause_s=0.01) as running:
        yield running


@pytest.fixture(scope="module")
def mortals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mortals]:
    with mortal_databases(tmp_path_factory.mktemp("mortal")) as made:
        yield made


@pytest.fixture
def mortal(mortals: Mortals) -> Iterator[tuple[Database, Outage]]:
    """A fresh database that can be taken away; it is there again for the next test, whatever became of this one."""
    database, outage = mortals.fresh()
    yield database, outage
    outage.end()


@pytest.fixture
def start(
    mortal: tuple[Database, Outage], upstream: RunningUpstream, start_web: Callable[..., WebProcess]
) -> Callable[..., WebProcess]:
    """Starts a server on the mortal database."""
    env = {"UPSTREAM_OPENAI_URL": upstream.url, "UPSTREAM_OPENAI_KEY": "sk-upstream"}
    return lambda **more: start_web(mortal[0], env=env, **more)


def call(client: httpx.Client, name: str, **more: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json=CALL | {"user": name} | more, headers={"x-call-id": name})


def metric(web: WebProcess, name: str) -> float:
    found = re.search(rf"^{name} (\S+)$", httpx.get(f"{web.url}/metrics", timeout=30).text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def until_drained(web: WebProcess) -> None:
    for _ in range(600):
        if not metric(web, "tollgate_spool_records") and not list(
            spool_of(web.database.url).glob("*/*.spool")
        ):
            return
        time.sleep(0.1)
    raise AssertionError(web.output[-4000:])


def users(database: Database) -> list[str]:
    return sorted(row["user_id"] for row in database.rows("select user_id from usage_events"))


def aftermath(database: Database) -> list[str]:
    """What is left to differ between the books once the dead are swept."""
    found: list[str] = json.loads(manage(database.url, "-m", "tests.e2e.aftermath").splitlines()[-1])
    return found


def test_an_outage_costs_open_plans_nothing_and_recovery_needs_no_restart(
    mortal: tuple[Database, Outage], start: Callable[..., WebProcess]
) -> None:
    database, outage = mortal
    web = start()
    with web.client() as payer, web.client(api_key=database.seed.prepaid_api_key) as prepaid:
        assert call(payer, "before").status_code == 200
        assert call(prepaid, "poor").status_code == 402
        outage.begin()
        answers = [call(payer, f"during-{number}", stream=number % 2 == 0) for number in range(10)]
        refused = call(prepaid, "closed")
        ready = httpx.get(f"{web.url}/readyz", timeout=30)
        spooled, age = metric(web, "tollgate_spool_records"), metric(web, "tollgate_spool_age_seconds")
        outage.end()
        until_drained(web)
        assert call(payer, "after").status_code == 200
        assert call(prepaid, "poor").status_code == 402
    assert [answer.status_code for answer in answers] == [200] * 10
    assert (refused.status_code, refused.json()["code"]) == (503, "metering_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    assert spooled == 10 and age > 0
    assert (ready.status_code, ready.json()["checks"]["spool"]["state"]) == (200, "degraded")
    web.stop()
    assert users(database) == sorted(["before", "after", *(f"during-{number}" for number in range(10))])
    assert (aftermath(database), database.rows("select id from usage_holds")) == ([], [])


def test_a_call_that_an_outage_overtakes_is_durable_before_its_last_byte(
    mortal: tuple[Database, Outage], start: Callable[..., WebProcess], upstream: RunningUpstream
) -> None:
    """Held in the database, settled in the spool, and then the process is killed: the event is there all the same."""
    database, outage = mortal
    web = start()
    with web.client() as client:
        body = CALL | {"user": "overtaken", "stream": True}
        headers = {"x-fault": "slow", "x-pause": "0.2"}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as answer:
            pieces = answer.iter_raw()
            read = next(pieces)
            outage.begin()
            read += b"".join(pieces)
        assert b"[DONE]" in read
    web.kill()
    outage.end()
    assert aftermath(database) == []
    event = database.rows("select user_id, status, tokens_output from usage_events")
    assert [(one["user_id"], one["status"], one["tokens_output"]) for one in event] == [
        ("overtaken", "ok", 5)
    ]


def test_a_process_killed_in_an_outage_leaves_its_calls_to_the_next_one(
    mortal: tuple[Database, Outage], start: Callable[..., WebProcess], upstream: RunningUpstream
) -> None:
    """One call was answered, one was at the provider: the next process writes the first, the sweep ends the second."""
    database, outage = mortal
    web = start()
    with web.client() as client:
        assert call(client, "before").status_code == 200
        outage.begin()
        assert call(client, "answered").status_code == 200
        slow = {"x-fault": "slow", "x-pause": "5", "x-call-id": "running"}
        body = CALL | {"user": "running", "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body, headers=slow) as answer:
            next(answer.iter_raw())
            web.kill()
    outage.end()
    again = start()
    until_drained(again)
    assert users(database) == ["answered", "before"]
    again.stop()
    assert aftermath(database) == []
    events = database.rows("select user_id, status from usage_events")
    assert sorted((one["user_id"], one["status"]) for one in events) == [
        ("answered", "ok"), ("before", "ok"), ("running", "interrupted"),
    ]  # fmt: skip
    assert list(spool_of(database.url).glob("*/*.spool")) == []


@pytest.mark.engine("postgresql")
def test_a_database_that_hangs_is_as_good_as_away(
    mortal: tuple[Database, Outage], start: Callable[..., WebProcess]
) -> None:
    database, outage = mortal
    web = start()
    with web.client() as client:
        assert call(client, "before").status_code == 200
        outage.freeze()
        try:
            answers = [call(client, f"during-{number}").status_code for number in range(5)]
        finally:
            outage.thaw()
        until_drained(web)
        assert call(client, "after").status_code == 200
    web.stop()
    assert answers == [200] * 5
    assert users(database) == sorted(["before", "after", *(f"during-{number}" for number in range(5))])
    assert (aftermath(database), database.rows("select id from usage_holds")) == ([], [])


@pytest.mark.kill(seeds=3)
def test_a_process_killed_around_an_outage_loses_and_doubles_nothing(
    kill_seed: int,
    mortal: tuple[Database, Outage],
    start: Callable[..., WebProcess],
    upstream: RunningUpstream,
) -> None:
    """Killed before, in, or after the outage, in the middle of the drain: as the dice fall."""
    database, outage = mortal
    dice, names = random.Random(kill_seed), count()
    web = start()
    load = Load(web, kill_seed, names)
    wait_for_calls(upstream, dice.randint(5, 40))
    outage.begin()
    if dice.random() < 0.3:
        time.sleep(dice.random() * 0.2)
        web.kill()
        load.stop()
        outage.end()
    else:
        wait_for_calls(upstream, len(upstream.calls) + dice.randint(1, 150))
        outage.end()
        time.sleep(dice.random() * 2.5)  # recovery begins within two seconds
        web.kill()
        load.stop()

    restarted = start()
    second = Load(restarted, kill_seed + 500, names)
    wait_for_calls(upstream, len(upstream.calls) + 20)
    second.stop()
    restarted.stop()

    assert aftermath(database) == []
    went_out = {one.caller for one in upstream.calls}
    assert_each_is_in_the_books_once(database, went_out, load.answered | second.answered)
    assert list(spool_of(database.url).glob("*/*.spool")) == []
