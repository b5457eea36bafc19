"""Calls of a customer who has limits, through the middleware: what fits goes out, and a refusal says why and until when."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from metering.estimate import RequestFacts
from metering.gate import Account, Headers, OpenGate
from metering.hold_bound import hold_bound
from metering.limits import Limit
from metering.problem import Refusal
from pricing.pricelist import RateCard
from tests.metering.asgi import Bench, Exchange, answering, exchange

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
ANSWER = json.dumps({"model": "gpt-5-mini", "usage": USAGE}).encode()
ASKED = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "Hello there"}], "max_tokens": 100}
SINCE, UNTIL = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)


class Limiting(OpenGate):
    def __init__(self, *limits: Limit) -> None:
        super().__init__()
        self.limits = limits

    async def resolve(self, headers: Headers, at: datetime) -> Account | Refusal:
        account = await super().resolve(headers, at)
        assert isinstance(account, Account)
        return msgspec.structs.replace(account, limits=self.limits)


def a_limit(measure: Any, most: str, **values: Any) -> Limit:
    code = values.pop("code", "quota_exceeded")
    return Limit(
        code=code, title=measure, measure=measure, most=Decimal(most), since=SINCE, until=UNTIL, **values
    )


def calls(*limits: Limit, times: int, fields: Any = ASKED, card: RateCard | None = None) -> list[Exchange]:
    bench = Bench(answering(ANSWER), gate=Limiting(*limits))
    if card is not None:
        bench.meter.card.card = card
    return [call(bench, fields) for _ in range(times)]


def call(bench: Bench, fields: Any) -> Exchange:
    bench.recorder.start()
    return exchange(bench, json.dumps(fields).encode())


def document(done: Exchange) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.content)
    return found


def code_of(done: Exchange) -> str:
    return str(document(done)["code"])


def test_a_quota_of_two_calls_lets_two_through_and_tells_the_third_when_it_resets() -> None:
    first, second, third = calls(a_limit("quantity", "2"), times=3)
    assert (first.status, second.status, third.status) == (200, 200, 429)
    assert code_of(third) == "quota_exceeded"
    assert third.headers["x-should-retry"] == "false"
    wait = timedelta(seconds=int(third.headers["retry-after"]))
    assert timedelta(days=3000) < wait < UNTIL - SINCE
    assert "resets at 2036-01-01T00:00:00Z" in document(third)["detail"]


def most_tokens(fields: Any) -> int:
    bound = hold_bound(json.dumps(fields).encode(), "openai_chat", RequestFacts(model=fields["model"]))
    assert bound.tokens_input is not None and bound.tokens_output is not None
    return sum(bound.tokens_input.values()) + bound.tokens_output


@pytest.mark.parametrize(("room_for", "second"), [(14, 429), (15, 200), (16, 200)])
def test_a_token_budget_counts_what_was_used_and_asks_room_for_the_most_that_comes(
    room_for: int, second: int
) -> None:
    """The first call uses 15 tokens, so the second one fits if the budget is 15 more than the most that one call takes."""
    budget = a_limit("tokens", str(most_tokens(ASKED) + room_for), code="budget_exceeded")
    done = calls(budget, times=2)
    assert [one.status for one in done] == [200, second]
    if second == 429:
        assert code_of(done[1]) == "budget_exceeded"


def test_a_call_whose_tokens_nobody_can_bound_is_refused_under_a_token_budget() -> None:
    unheard_of = {"model": "unheard-of", "messages": ASKED["messages"]}
    (done,) = calls(a_limit("tokens", "1000000", code="budget_exceeded"), times=1, fields=unheard_of)
    assert (done.status, code_of(done)) == (429, "budget_exceeded")
    assert "limit what it may write" in document(done)["detail"]


def test_a_call_without_a_price_is_refused_under_a_money_budget_and_not_under_a_quota() -> None:
    unknown = {**ASKED, "model": "nobody-knows-1"}
    (done,) = calls(a_limit("charge", "1000", code="budget_exceeded"), times=1, fields=unknown)
    assert (done.status, code_of(done)) == (429, "budget_exceeded")
    (done,) = calls(a_limit("quantity", "1000"), times=1, fields=unknown)
    assert done.status == 200


def test_calls_at_once_are_refused_for_a_moment() -> None:
    at_once = Limit(code="rate_limited", title="calls", measure="calls", most=Decimal(0))
    (done,) = calls(at_once, times=1)
    assert (done.status, code_of(done), done.headers["retry-after"]) == (429, "rate_limited", "1")


@pytest.mark.parametrize("most", ["1", "2"])
def test_a_budget_for_each_end_user_is_spent_by_each_alone(most: str) -> None:
    each = a_limit("quantity", most, each_user=True)
    bench = Bench(answering(ANSWER), gate=Limiting(each))
    statuses = [call(bench, {**ASKED, "user": user}).status for user in ("ada", "ada", "bob", "ada", "bob")]
    assert statuses == ([200, 429, 200, 429, 429] if most == "1" else [200, 200, 200, 429, 200])
