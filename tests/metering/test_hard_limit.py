"""A customer whose limit is a hard one: each call holds the most that it can cost, or does not go out."""

import asyncio
import gzip
import json
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from metering.gate import Account, Headers, OpenGate
from metering.hold_bound.text import text_tokens
from metering.problem import Refusal
from metering.routes import DEFAULT_ROUTES
from pricing.pricelist import RateCard
from tests.metering.asgi import Bench, Exchange, answering, exchange
from tests.metering.rows import NOON

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
ANSWER = json.dumps({"model": "gpt-5-mini", "usage": USAGE}).encode()
ASKED = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 100}
TEMPLATE = 64  # tokens that a chat template adds at the most


class Limited(OpenGate):
    async def resolve(self, headers: Headers, at: datetime) -> Account | Refusal:
        account = await super().resolve(headers, at)
        assert isinstance(account, Account)
        return msgspec.structs.replace(account, hard_limit=True)


class Watching:
    """An application that notes what is held while it answers."""

    def __init__(self) -> None:
        self.bench: Bench | None = None
        self.held: list[Decimal] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self.bench is not None
        self.held = [row.amount for row in self.bench.store.holds.values()]
        await answering(ANSWER)(scope, receive, send)


def asked(
    fields: Any,
    *,
    limited: bool = True,
    body: bytes | None = None,
    card: RateCard | None = None,
    **options: Any,
) -> tuple[Exchange, list[Decimal]]:
    app = Watching()
    app.bench = Bench(app, gate=Limited() if limited else OpenGate())
    if card is not None:
        app.bench.meter.card.card = card
    done = exchange(app.bench, json.dumps(fields).encode() if body is None else body, **options)
    return done, app.held


def most(fields: Any, tokens_output: int) -> Decimal:
    """In the book `list` a million tokens read cost 2 dollars, and written 4."""
    tokens_input = text_tokens(json.dumps(fields).encode()) + TEMPLATE
    return (tokens_input * Decimal(2) + tokens_output * Decimal(4)) / 1_000_000


def test_the_most_that_a_call_can_cost_is_held_while_it_runs() -> None:
    done, held = asked(ASKED)
    assert held == [most(ASKED, 100)]
    assert (done.status, done.bench.store.holds) == (200, {})
    # 10 × 2 + 5 × 4 per million
    assert done.bench.event.charge_total == Decimal("0.00004") <= held[0]


def test_a_customer_without_a_hard_limit_holds_nothing() -> None:
    assert asked(ASKED, limited=False)[1] == [Decimal(0)]


def test_a_call_without_a_limit_of_its_own_holds_what_its_model_can_write() -> None:
    fields = {**ASKED, "max_tokens": None}
    assert asked(fields)[1] == [most(fields, 128_000)]


def test_a_compressed_request_holds_what_it_says() -> None:
    body = gzip.compress(json.dumps(ASKED).encode())
    assert asked(None, body=body, headers={"content-encoding": "gzip"})[1] == [most(ASKED, 100)]


def test_a_model_of_the_demo_is_held_at_its_own_price_on_any_route() -> None:
    fields = {"model": "demo-small", "prompt": "Hello", "max_tokens": 10}
    assert asked(fields, path="/v1/execute")[1] == [most(fields, 10)]


def test_execute_finds_the_provider_of_the_model_by_its_price() -> None:
    fields = {"model": "gpt-5-mini", "prompt": "Hello", "max_tokens": 10}
    assert asked(fields, path="/v1/execute")[1] == [most(fields, 10)]


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        ({**ASKED, "model": "unheard-of"}, None),
        ({**ASKED, "model": None}, None),
        ({**ASKED, "models": ["gpt-5-mini", "claude-sonnet-4-5"]}, None),
        (None, b"{"),
        (None, b""),
    ],
)
def test_a_call_without_a_bound_does_not_go_out(fields: Any, body: bytes | None) -> None:
    done, held = asked(fields, body=body)
    assert (done.status, json.loads(done.content)["code"], held) == (402, "insufficient_credits", [])
    assert "limit what it may write" in json.loads(done.content)["detail"]
    assert done.headers["x-should-retry"] == "false"
    assert (done.bench.store.holds, done.bench.store.events) == ({}, {})


def test_what_no_credits_could_cover_does_not_go_out() -> None:
    done, held = asked({**ASKED, "max_tokens": 2**53})
    assert (done.status, json.loads(done.content)["code"], held) == (402, "insufficient_credits", [])


def test_before_the_prices_are_loaded_it_is_asked_to_come_again() -> None:
    done, _ = asked(ASKED, card=RateCard.empty())
    assert (done.status, json.loads(done.content)["code"]) == (503, "metering_unavailable")


def test_googles_calls_are_held_by_the_model_in_their_path() -> None:
    fields = {"contents": [{"parts": [{"text": "Hello"}]}], "generationConfig": {"maxOutputTokens": 10}}
    assert any("{model}" in route.pattern for route in DEFAULT_ROUTES)
    assert asked(fields, path="/v1beta/models/demo-small:generateContent")[1] == [most(fields, 10)]


def test_others_are_served_while_a_slow_body_is_weighed() -> None:
    """Half a million empty lists are a body that takes some hundred milliseconds to weigh; the loop goes round meanwhile.
    Were it weighed by the loop, that would go round exactly as often as for a small one."""
    slow = json.dumps({**ASKED, "stop": [[]] * 500_000}).encode()
    assert (
        asyncio.run(_turns_during_hold(slow))
        > asyncio.run(_turns_during_hold(json.dumps(ASKED).encode())) + 2
    )


async def _turns_during_hold(body: bytes) -> int:
    """How often the event loop goes round until the call of this body is held."""
    bench = Bench(answering(ANSWER), gate=Limited())
    account = await Limited().resolve((), NOON)
    route = next(route for route in DEFAULT_ROUTES if route.wire_format == "openai_chat")
    assert isinstance(account, Account)
    hold = asyncio.create_task(
        bench.meter.admit(route, account, at=NOON, headers=[], body=body, path=route.pattern, method="POST")
    )
    turns = 0
    while not hold.done():
        await asyncio.sleep(0)
        turns += 1
    assert not isinstance(hold.result(), Refusal)
    return turns
