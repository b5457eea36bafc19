"""Limits from outside, with four web processes: nobody gets beyond them, and nobody is refused who fits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import UPSTREAM_KEY, Payer
from tests.servers import Databases, WebProcess, start_web
from tests.upstream import RunningUpstream, upstream_server

CALL: dict[str, Any] = {
    "model": "gpt-4o-mini",
    "messages": [{"role": "user", "content": "Hello"}],
    "max_tokens": 50,
}
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
    env = {"UPSTREAM_OPENAI_URL": provider.url, "UPSTREAM_OPENAI_KEY": UPSTREAM_KEY}
    web = start_web(databases.fresh(), env, workers=PROCESSES)
    yield web
    web.stop()


@pytest.fixture
def payer(server: WebProcess) -> Payer:
    return Payer.on(server)


def by_operator(server: WebProcess, method: str, path: str, **body: Any) -> Any:
    with server.client(api_key=server.database.seed.operator_token) as client:
        return client.request(method, path, json=body).raise_for_status().json()


async def call_many(server: WebProcess, payer: Payer, calls: int, **fields: Any) -> Counter[Any]:
    """So many calls at once: how they were answered, by the code of the refusal or 200."""
    headers = {"Authorization": f"Bearer {payer.key}"}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, timeout=60, limits=limits, headers=headers) as client:
        asked = [
            client.post("/v1/chat/completions", json=CALL | fields, headers={"x-fault": "slow"})
            for _ in range(calls)
        ]
        answers = await asyncio.gather(*asked)
    return Counter(answer.json().get("code", 200) for answer in answers)


def test_a_hard_quota_is_used_up_to_the_last_call_and_not_beyond(
    server: WebProcess, payer: Payer, upstream: RunningUpstream
) -> None:
    by_operator(server, "PUT", f"/v1/usage/{payer.name}/quotas/api_calls", included=50, hard=True)
    answers = asyncio.run(call_many(server, payer, 30)) + asyncio.run(call_many(server, payer, 60))
    assert answers == {200: 50, "quota_exceeded": 40}
    assert len(upstream.calls) == 50
    feature = by_operator(server, "GET", f"/v1/usage/{payer.name}")["features"]["api_calls"]
    assert (feature["current"], feature["remaining"], feature["in_flight"]) == ("50", "0", "0")


def test_a_token_budget_lets_through_what_fits_and_is_never_passed(
    server: WebProcess, payer: Payer, upstream: RunningUpstream
) -> None:
    """A call uses 17 tokens, and takes room for the most that it may use while it is in flight."""
    budget = by_operator(
        server, "POST", f"/v1/customers/{payer.name}/budgets", amount=2000, measure="tokens", hard=True
    )
    answers: Counter[Any] = Counter()
    while not answers["budget_exceeded"] or answers[200] < 50:
        answers += asyncio.run(call_many(server, payer, 40))
    spent = int(by_operator(server, "GET", f"/v1/customers/{payer.name}/budgets/{budget['id']}")["spent"])
    assert spent == 17 * len(upstream.calls) == 17 * answers[200]
    assert spent <= 2000


def test_each_end_user_has_a_budget_of_its_own(server: WebProcess, payer: Payer) -> None:
    by_operator(server, "PUT", f"/v1/usage/{payer.name}/quotas/api_calls", included=1000, hard=True)
    by_operator(
        server,
        "POST",
        f"/v1/customers/{payer.name}/budgets",
        amount=0,
        measure="tokens",
        hard=True,
        scope="end_user",
        user_id="ada",
    )
    assert asyncio.run(call_many(server, payer, 5, user="ada")) == {"budget_exceeded": 5}
    assert asyncio.run(call_many(server, payer, 5, user="bob")) == {200: 5}


def test_the_official_client_is_told_and_does_not_try_again(
    server: WebProcess, payer: Payer, upstream: RunningUpstream
) -> None:
    by_operator(server, "PUT", f"/v1/usage/{payer.name}/quotas/api_calls", included=0, hard=True)
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=payer.key, max_retries=2) as client,
        pytest.raises(openai.RateLimitError) as refused,
    ):
        client.chat.completions.create(**CALL)
    assert refused.value.code == "quota_exceeded"
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert upstream.calls == []
