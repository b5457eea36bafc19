"""A plan's rate limit from outside: official clients are told when to come back, and do."""

from __future__ import annotations

import httpx
import openai
import pytest

from tests.servers import Databases, WebProcess, manage, start_web

LIMITED = """
import django; django.setup()
from billing.models import Customer, Plan, PlanVersion
from billing.plans import publish
from billing.subscriptions import subscribe
from pricing import clock
plan = Plan.objects.create(slug="slow", name="Slow")
version = PlanVersion.objects.create(plan=plan, number=1, currency="USD", requests_per_minute=2)
publish(version, clock.now())
subscribe(Customer.objects.get(external_id="payer"), "slow", clock.now())
"""


@pytest.fixture
def server(databases: Databases) -> WebProcess:
    database = databases.fresh()
    manage(database.url, "-c", LIMITED)
    return start_web(database)


def test_a_customer_beyond_its_rate_is_told_when_to_come_back(server: WebProcess) -> None:
    try:
        with server.client() as client:
            answers = [client.post("/v1/execute", json={"prompt": "Hello"}) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        refused = answers[-1]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"requests";q=2;w=60'}
        assert answers[0].headers["ratelimit"] == '"requests";r=1;t=30', (
            "full again when one is back: 2 a minute"
        )
        assert refused.headers["ratelimit"].startswith('"requests";r=0;')
        assert refused.json()["code"] == "rate_limited" and "2 requests a minute" in refused.json()["detail"]
        seconds, milliseconds = int(refused.headers["retry-after"]), int(refused.headers["retry-after-ms"])
        assert 1 <= milliseconds <= 30_000 and seconds * 1000 - 1000 < milliseconds <= seconds * 1000
        assert len(server.database.rows("select * from usage_events")) == 2, "a refused call is none"
        with (
            openai.OpenAI(
                base_url=f"{server.url}/v1", api_key=server.database.seed.api_key, max_retries=0
            ) as official,
            pytest.raises(openai.RateLimitError),
        ):
            official.chat.completions.create(model="demo-small", messages=[])
        with server.client(api_key=server.database.seed.other_api_key) as other:
            assert other.post("/v1/execute", json={"prompt": "Hello"}).status_code == httpx.codes.OK
    finally:
        server.stop()
