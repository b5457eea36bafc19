"""Prepaid credits from outside: what the customer sees when they run out, and that nobody ever gets beyond them.

The double answers 12 tokens with 5. One call of `CALL` holds the same amount each time.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import redis

from tests.e2e.conftest import UPSTREAM_KEY, Payer
from tests.local_servers import LocalServer, new_run_directory, start_postgres
from tests.servers import Database, Databases, WebProcess, start_web
from tests.upstream import RunningUpstream, upstream_server

CALL = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}
# 12 × 0.15 + 5 × 0.60 per million, and 20 % on top
CHARGE = (12 * Decimal("0.15") + 5 * Decimal("0.60")) / 1_000_000 * Decimal("1.2")
PROCESSES = 4


@pytest.fixture(scope="module")
def provider() -> Iterator[RunningUpstream]:
    with upstream_server(pause_s=0.05) as running:
        yield running


@pytest.fixture
def upstream(provider: RunningUpstream) -> RunningUpstream:
    """As if nobody had called it before."""
    provider.forget()
    return provider


@pytest.fixture(scope="module")
def server(databases: Databases, provider: RunningUpstream) -> Iterator[WebProcess]:
    web = start_on(databases.fresh(), provider)
    yield web
    web.stop()


@pytest.fixture
def payer(server: WebProcess) -> Payer:
    """A customer without credits yet, on a plan that wants them beforehand."""
    return Payer.on(server, "prepaid")


def start_on(database: Database, upstream: RunningUpstream) -> WebProcess:
    provider = {"UPSTREAM_OPENAI_URL": upstream.url, "UPSTREAM_OPENAI_KEY": UPSTREAM_KEY}
    return start_web(database, provider, workers=PROCESSES)


def operator(server: WebProcess) -> httpx.Client:
    return server.client(api_key=server.database.seed.operator_token)


def grant(server: WebProcess, payer: Payer, amount: Decimal) -> None:
    with operator(server) as client:
        answer = client.post(f"/v1/customers/{payer.name}/credits", json={"amount": str(amount)})
    assert answer.status_code == 201, answer.text


def balance(server: WebProcess, payer: Payer) -> dict[str, Any]:
    with operator(server) as client:
        found: dict[str, Any] = client.get(f"/v1/customers/{payer.name}/balance").raise_for_status().json()
    return found


def test_a_customer_without_credits_is_told_so_in_the_words_of_its_client(
    server: WebProcess, payer: Payer, upstream: RunningUpstream
) -> None:
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=payer.key, max_retries=2) as client,
        pytest.raises(openai.APIStatusError) as refused,
    ):
        client.chat.completions.create(**CALL)  # type: ignore[call-overload]
    assert refused.value.status_code == 402
    assert refused.value.response.json()["code"] == "insufficient_credits"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert (upstream.calls, balance(server, payer)["held"]) == ([], "0"), "nothing went out"


def test_credits_are_spent_to_the_last_digit_and_never_beyond(
    server: WebProcess, payer: Payer, upstream: RunningUpstream
) -> None:
    """Credit is eight times what one call holds. Of many calls at once eight go out at a time."""
    held = reserved_by(server, payer, upstream)
    at_once, calls = 8, 200
    with operator(server) as client:
        left = Decimal(balance(server, payer)["available"])
        client.post(
            f"/v1/customers/{payer.name}/credits", json={"amount": str(held * at_once - left)}
        ).raise_for_status()
    upstream.forget()
    granted = held * at_once
    answers = asyncio.run(call_many(server, payer, calls))
    went_out = answers[200]
    assert set(answers) <= {200, 402} and answers[402] > 0 and went_out >= at_once
    assert upstream.double.most_at_once <= at_once, "never more in flight than the credit covers"
    assert len(upstream.calls) == went_out
    after = balance(server, payer)
    assert Decimal(after["available"]) == granted - went_out * CHARGE >= 0
    assert (after["held"], after["written_off"]) == ("0", "0")


def reserved_by(server: WebProcess, payer: Payer, upstream: RunningUpstream) -> Decimal:
    """What one call holds: read from the books while the provider is answering."""
    grant(server, payer, Decimal(1))

    async def ask() -> Decimal:
        async with client_of(server, payer) as client:
            call = asyncio.create_task(
                client.post("/v1/chat/completions", json=CALL, headers={"x-fault": "slow", "x-pause": "1"})
            )
            while not upstream.calls:  # noqa: ASYNC110  the double is a server like any other
                await asyncio.sleep(0.01)
            held = Decimal(balance(server, payer)["held"])
            assert (await call).status_code == 200
            return held

    held = asyncio.run(ask())
    assert CHARGE < held < Decimal("0.001")
    with operator(server) as client:
        [grant_made] = client.get(f"/v1/customers/{payer.name}/credits").json()["data"]
        client.post(
            f"/v1/customers/{payer.name}/credits/{grant_made['id']}/refund", json={"reason": "test"}
        ).raise_for_status()
    return held


def client_of(server: WebProcess, payer: Payer) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=server.url, timeout=60, limits=httpx.Limits(max_connections=None),
        headers={"Authorization": f"Bearer {payer.key}"},
    )  # fmt: skip


async def call_many(server: WebProcess, payer: Payer, calls: int) -> Counter[int]:
    """So many calls at once, and how they were answered."""
    async with client_of(server, payer) as client:
        asked = [
            client.post("/v1/chat/completions", json=CALL, headers={"x-fault": "slow"}) for _ in range(calls)
        ]
        return Counter(answer.status_code for answer in await asyncio.gather(*asked))


def test_with_credit_for_all_none_is_refused(server: WebProcess, payer: Payer) -> None:
    grant(server, payer, Decimal(1))
    assert asyncio.run(call_many(server, payer, 100)) == Counter({200: 100})
    after = balance(server, payer)
    assert Decimal(after["available"]) == 1 - 100 * CHARGE
    assert (after["held"], after["consumed"]) == ("0", f"{(100 * CHARGE).normalize():f}")


def test_a_plan_that_caps_lets_calls_out_with_less_until_next_to_nothing_is_left(
    server: WebProcess, payer: Payer, upstream: RunningUpstream
) -> None:
    """Credit is 95 % of what one call holds: the first goes out with less than it asks for, and each later one with less than
    the one before, until what is left buys no token."""
    with operator(server) as client:
        client.post(f"/v1/customers/{payer.name}/subscriptions", json={"plan": "capping"}).raise_for_status()
    held = reserved_by(server, payer, upstream)
    granted = (held * Decimal("0.95")).quantize(Decimal("0.000000000001"))
    grant(server, payer, granted)
    upstream.forget()
    limits, refused = asyncio.run(call_until_refused(server, payer))
    assert refused["code"] == "insufficient_credits"
    assert limits and limits == sorted(limits, reverse=True) and limits[0] < 50
    assert [call.document["max_tokens"] for call in upstream.calls] == limits
    after = balance(server, payer)
    assert Decimal(after["available"]) == granted - len(limits) * CHARGE >= 0
    assert (after["held"], after["written_off"]) == ("0", "0")


async def call_until_refused(server: WebProcess, payer: Payer) -> tuple[list[int], dict[str, Any]]:
    """The limits that calls went out with, one after the other, and the refusal at the end."""
    limits: list[int] = []
    async with client_of(server, payer) as client:
        while True:
            answer = await client.post("/v1/chat/completions", json=CALL)
            if answer.status_code != 200:
                return limits, answer.json()
            limits.append(int(answer.headers["x-usage-max-tokens"]))


@pytest.mark.engine("postgresql")
@pytest.mark.timeout(300)
def test_a_crash_of_the_database_and_an_emptied_redis_let_nobody_overspend(
    tmp_path: Path, upstream: RunningUpstream, redis_url: str
) -> None:
    """The database is ended at once, twice, while calls are in flight, and Redis loses all it had. Calls may be refused
    for want of the database then (503); the books are exact afterwards."""
    directory = new_run_directory()  # (PostgreSQL runs as another user when we are root)
    postgres = start_postgres(directory)
    try:
        with Databases(tmp_path, postgres.url) as databases:
            server = start_on(databases.fresh(), upstream)
            try:
                payer = Payer.on(server, "prepaid")
                held = reserved_by(server, payer, upstream)
                grant(server, payer, held * 8)
                upstream.forget()
                answers = asyncio.run(call_through(server, payer, postgres, redis_url))
                assert answers[200] > 8 and set(answers) <= {200, 402, 503}
                assert upstream.double.most_at_once <= 8
                wait_until_nothing_is_held(server, payer)
                after, events = balance(server, payer), server.database.rows(CHARGES)
                assert Decimal(after["available"]) == held * 8 - len(upstream.calls) * CHARGE >= 0
                assert (
                    sum(Decimal(str(event["charge_total"])) for event in events[1:])
                    == len(upstream.calls) * CHARGE
                )
            finally:
                server.stop()
    finally:
        postgres.stop()
        shutil.rmtree(directory, ignore_errors=True)


CHARGES = "select charge_total from usage_events where status <> 'interrupted' order by created_at"


async def call_through(
    server: WebProcess, payer: Payer, postgres: LocalServer, redis_url: str
) -> Counter[int]:
    """Rounds of calls; the database crashes in the middle of the second and of the fourth."""
    answers: Counter[int] = Counter()
    for number in range(6):
        if number % 2:
            calls = asyncio.create_task(call_many(server, payer, 30))
            await asyncio.sleep(0.1)
            postgres.crash()  # (in this thread: with another one that ends the server would end)
            await asyncio.to_thread(redis.Redis.from_url(redis_url).flushall)
            answers += await calls
        else:
            answers += await call_many(server, payer, 30)
    return answers


def wait_until_nothing_is_held(server: WebProcess, payer: Payer) -> None:
    """A settle that met the crash is written once the database is back; a hold whose answer was lost is released."""
    for _ in range(600):
        if balance(server, payer)["held"] == "0":
            return
        time.sleep(0.1)
    raise AssertionError(f"still held: {server.database.rows('select * from usage_holds')}")
