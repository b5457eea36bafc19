"""A plan that caps: a call that does not fit goes out with less, and is told how much."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from django.http import HttpRequest, HttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from metering.django_middleware import MeteringEntry
from metering.estimate import RequestFacts
from metering.gate import Account, Headers, OpenGate
from metering.hold_bound import hold_amount, hold_bound
from metering.limits import Limit
from metering.loop_thread import LoopThread
from metering.problem import Refusal
from tests.metering.asgi import Bench, Exchange, exchange, streaming
from tests.metering.rows import NOON
from tests.metering.test_limited_calls import a_limit

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
ANSWER = json.dumps({"model": "gpt-5-mini", "usage": USAGE}).encode()
ASKED = {
    "model": "gpt-5-mini",
    "messages": [{"role": "user", "content": "Hello there"}],
    "max_completion_tokens": 100,
}


class Capping(OpenGate):
    """One customer with so many tokens or so much money left, on a plan that caps, or not."""

    def __init__(self, *limits: Limit, caps: bool = True) -> None:
        super().__init__()
        self.limits, self.caps = limits, caps

    async def resolve(self, headers: Headers, at: Any) -> Account | Refusal:
        account = await super().resolve(headers, at)
        assert isinstance(account, Account)
        return msgspec.structs.replace(
            account, limits=self.limits, when_short="cap" if self.caps else "refuse"
        )


class Echo:
    """An application that notes the body and the length that it is sent."""

    def __init__(self) -> None:
        self.body, self.length = b"", ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.length = dict(scope["headers"])[b"content-length"].decode()
        message = await receive()
        self.body = message["body"]
        assert not message["more_body"]
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": ANSWER})


def packed(fields: Any) -> bytes:
    return json.dumps(fields, separators=(",", ":")).encode()


def call(gate: OpenGate, fields: Any = ASKED, app: Any = None) -> tuple[Exchange, Echo]:
    echo = Echo()
    body = packed(fields)
    return exchange(Bench(app or echo, gate=gate), body, headers={"content-length": str(len(body))}), echo


def tokens(fields: Any) -> int:
    """The most that the call reads and writes."""
    bound = hold_bound(packed(fields), "openai_chat", RequestFacts(model=fields["model"]))
    assert bound.tokens_input is not None and bound.tokens_output is not None
    return sum(bound.tokens_input.values()) + bound.tokens_output


def best(room: int, asked: Any) -> int:
    """The highest limit with which the call fits: its number is read as well, so fewer digits leave room for more."""
    return max(limit for limit in range(1, 101) if tokens(asked | {"max_completion_tokens": limit}) <= room)


@pytest.mark.parametrize("less", [1, 2, 40, 89, 90, 91, 98, 99, 100])
@pytest.mark.parametrize("answers", [{}, {"n": 2}])
def test_a_call_goes_out_with_as_much_as_there_is_room_for(less: int, answers: Any) -> None:
    asked = ASKED | answers
    room = tokens(asked) - less
    done, echo = call(Capping(a_limit("tokens", str(room))), asked)
    assert (done.status, done.headers["x-usage-max-tokens"]) == (200, str(best(room, asked)))
    assert json.loads(echo.body) == asked | {"max_completion_tokens": best(room, asked)}
    assert int(echo.length) == len(echo.body)


def test_a_call_that_fits_goes_out_as_it_is() -> None:
    done, echo = call(Capping(a_limit("tokens", str(tokens(ASKED)))))
    assert (done.status, echo.body) == (200, packed(ASKED))
    assert "x-usage-max-tokens" not in done.headers


@pytest.mark.parametrize(("room", "status"), [(0, 200), (-1, 429)])
def test_with_room_for_nothing_it_is_refused_as_ever(room: int, status: int) -> None:
    least = tokens(ASKED | {"max_completion_tokens": 1})
    done, _ = call(Capping(a_limit("tokens", str(least + room))))
    assert done.status == status
    if status == 429:
        assert json.loads(done.content)["code"] == "quota_exceeded"
        assert "x-usage-max-tokens" not in done.headers


def test_a_plan_that_refuses_does_not_cap() -> None:
    done, _ = call(Capping(a_limit("tokens", str(tokens(ASKED) - 1)), caps=False))
    assert done.status == 429


def test_a_used_up_quota_of_calls_is_not_helped_by_fewer_tokens() -> None:
    done, _ = call(Capping(a_limit("quantity", "0")))
    assert (done.status, json.loads(done.content)["code"]) == (429, "quota_exceeded")


def test_money_buys_as_many_tokens_as_it_covers() -> None:
    """The room is what a limit of 30 costs at the most, and the last digit less and more."""
    card = Bench(Echo()).meter.card.card

    def cost(limit: int) -> Decimal:
        body = packed(ASKED | {"max_completion_tokens": limit})
        bound = hold_bound(body, "openai_chat", RequestFacts(model="gpt-5-mini"))
        found = hold_amount(
            card, bound, book="list", currency="USD", provider="openai", model="gpt-5-mini", at=NOON
        )
        assert found is not None
        return found

    digit = Decimal("0.000000000001")
    for room, limit in ((cost(30) - digit, 29), (cost(30), 30), (cost(30) + digit, 30)):
        done, _ = call(Capping(a_limit("charge", f"{room:f}", code="budget_exceeded")))
        assert (done.status, done.headers["x-usage-max-tokens"]) == (200, str(limit))


def test_two_limits_are_kept_both() -> None:
    rooms = tokens(ASKED) - 10, tokens(ASKED) - 60
    done, _ = call(Capping(*(a_limit("tokens", str(room)) for room in rooms)))
    assert (done.status, done.headers["x-usage-max-tokens"]) == (200, str(best(rooms[1], ASKED)))


def test_a_stream_is_told_as_well() -> None:
    chunks = [b'data: {"choices":[],"usage":' + json.dumps(USAGE).encode() + b"}\n\n", b"data: [DONE]\n\n"]
    done, _ = call(
        Capping(a_limit("tokens", str(tokens(ASKED) - 10))), ASKED | {"stream": True}, streaming(chunks)
    )
    assert done.status == 200
    assert int(done.headers["x-usage-max-tokens"]) <= 90


def test_a_request_that_says_no_limit_gets_one() -> None:
    plain = {name: value for name, value in ASKED.items() if name != "max_completion_tokens"}
    done, echo = call(Capping(a_limit("tokens", "500")), plain)
    assert done.status == 200
    assert json.loads(echo.body) == plain | {"max_completion_tokens": int(done.headers["x-usage-max-tokens"])}
    assert tokens(json.loads(echo.body)) == 500


def test_nothing_is_spent_beyond_what_there_was() -> None:
    gate = Capping(a_limit("tokens", "200"))
    bench = Bench(Echo(), gate=gate)
    statuses = []
    for _ in range(20):
        bench.recorder.start()
        body = packed(ASKED)
        statuses.append(exchange(bench, body, headers={"content-length": str(len(body))}).status)
    used = sum(event.tokens_total or 0 for event in bench.store.events.values())
    assert used <= 200 and statuses.count(200) == used // 15 and 429 in statuses
    assert 200 - used < tokens(ASKED | {"max_completion_tokens": 1}), "until nothing fits any more"


class Views:
    """Django views that note what they were sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, str]] = []

    def answer(self, request: HttpRequest) -> HttpResponse:
        self.sent.append((request.body, request.headers["content-length"]))
        return HttpResponse(ANSWER, content_type="application/json")

    async def answer_async(self, request: HttpRequest) -> HttpResponse:
        return self.answer(request)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_django_view_gets_the_lowered_request(kind: str) -> None:
    room = tokens(ASKED) - 40
    bench, loop, views = Bench(Echo(), gate=Capping(a_limit("tokens", str(room)))), LoopThread(), Views()
    entry = MeteringEntry(bench.meter, loop)
    path, body = "/v1/chat/completions", packed(ASKED)
    try:
        if kind == "sync":
            made = RequestFactory().post(path, body, content_type="application/json")
            response: Any = entry.call(views.answer, made)
        else:
            request = AsyncRequestFactory().post(path, body, content_type="application/json")
            response = asyncio.run(entry.call_async(views.answer_async, request))
    finally:
        loop.run(bench.recorder.stop())
    assert response["X-Usage-Max-Tokens"] == str(best(room, ASKED))
    ((sent, length),) = views.sent
    assert json.loads(sent) == ASKED | {"max_completion_tokens": best(room, ASKED)}
    assert int(length) == len(sent)
