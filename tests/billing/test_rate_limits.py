"""Rate limits by token buckets: a minute's worth at once, then as it fills; tokens when they are known."""

from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given, strategies as st

from billing import keys
from billing.rate_limits import RateLimits, Standing, limited_by
from metering.gate import Account
from metering.problem import Refusal, problem_headers
from tests.billing.test_admission import PAYER, SECRET, Directory
from tests.metering.rows import a_hold, an_event

ONE, OTHER, KEY, OTHER_KEY = UUID(int=1), UUID(int=2), UUID(int=3), UUID(int=4)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.limits = RateLimits(lambda: self.seconds)
        self.standing = Standing((), None)

    def headers(self) -> dict[str, str]:
        return {name.decode(): value.decode() for name, value in self.standing.headers}

    def request(
        self,
        customer: UUID = ONE,
        key: UUID = KEY,
        *,
        requests: int | None = 60,
        tokens: int | None = None,
        key_requests: int | None = None,
        key_tokens: int | None = None,
        processes: int = 1,
    ) -> int | None:
        """None where it is admitted, else the seconds to wait."""
        limited = limited_by(
            customer, key, requests=requests, tokens=tokens, key_requests=key_requests, key_tokens=key_tokens
        )
        assert limited is not None
        self.standing = self.limits.admit(limited, processes)
        return None if self.standing.refusal is None else self.standing.refusal.retry_after_s

    def used(self, tokens: int | None, customer: UUID = ONE, key: UUID = KEY) -> UUID:
        event_id = uuid4()
        self.limits.used(customer, key, tokens, event_id)
        return event_id


def test_a_minutes_worth_may_come_at_once_and_then_one_as_each_fills() -> None:
    clock = Clock()
    assert [clock.request() for _ in range(60)] == [None] * 60
    assert clock.request() == 1  # 60 a minute: the next one is there in a second
    clock.seconds += 0.999
    assert clock.request() == 1
    clock.seconds += 0.002
    assert [clock.request(), clock.request()] == [None, 1]


def test_a_customer_does_not_use_up_what_is_anothers() -> None:
    clock = Clock()
    assert [clock.request(requests=1), clock.request(requests=1), clock.request(OTHER, requests=1)] == [
        None,
        60,
        None,
    ]


def test_processes_share_a_limit() -> None:
    clock = Clock()
    assert [clock.request(requests=8, processes=4) for _ in range(3)] == [None, None, 30]  # 2 a minute each
    assert Clock().request(requests=1, processes=4) is None, "each may do one at the least"


def test_tokens_are_taken_when_they_are_known_and_the_debt_is_waited_for() -> None:
    clock = Clock()
    ask: Any = {"requests": None, "tokens": 600}
    assert clock.request(**ask) is None
    clock.used(600)
    assert clock.request(**ask) is None, "nothing is owed yet"
    clock.used(300)
    assert clock.request(**ask) == 30  # 300 of 600 a minute
    clock.seconds += 30
    assert clock.request(**ask) is None
    clock.used(10**9, OTHER)  # who has no limit is not counted
    clock.used(None)


def test_a_refused_request_costs_nothing() -> None:
    clock = Clock()
    clock.request(requests=1)
    for _ in range(100):
        assert clock.request(requests=1) == 60
    clock.seconds += 60
    assert clock.request(requests=1) is None


def test_a_raised_limit_holds_from_the_next_request_on() -> None:
    clock = Clock()
    assert [clock.request(requests=1), clock.request(requests=1)] == [None, 60]
    clock.seconds += 1
    assert clock.request(requests=120) is None  # a second at 120 a minute brings two


def test_a_key_has_a_limit_of_its_own_beside_its_customers() -> None:
    clock = Clock()
    ask: Any = {"requests": 3, "key_requests": 2}
    assert [clock.request(**ask) for _ in range(3)] == [None, None, 30]  # 2 a minute with this key
    assert clock.request(key=OTHER_KEY, **ask) is None, "the third of the customer's three"
    # The key may do one more, its customer may not: 3 a minute.
    assert clock.request(key=OTHER_KEY, **ask) == 20


def test_what_the_customers_limit_refuses_costs_the_key_nothing_and_the_other_way_round() -> None:
    clock = Clock()
    ask: Any = {"requests": 1, "key_requests": 2}
    assert [clock.request(**ask) for _ in range(10)] == [None] + [60] * 9
    assert clock.request(requests=None, key_requests=2) is None, "one of the key's two is left"
    clock = Clock()
    ask = {"requests": 2, "key_requests": 1}
    assert [clock.request(**ask) for _ in range(10)] == [None] + [60] * 9
    assert clock.request(requests=2) is None, "one of the customer's two is left"


def test_the_longest_wait_is_told_where_several_limits_refuse() -> None:
    clock = Clock()
    ask: Any = {"requests": 6, "key_requests": 6, "key_tokens": 60}
    assert [clock.request(**ask) for _ in range(6)] == [None] * 6
    clock.used(90)
    assert clock.request(**ask) == 30  # 10 s to the next request, 30 s until 30 of 60 tokens are made up


def test_tokens_count_for_the_key_and_for_its_customer() -> None:
    clock = Clock()
    ask: Any = {"requests": None, "tokens": 600, "key_tokens": 60}
    assert clock.request(**ask) is None and clock.request(key=OTHER_KEY, **ask) is None
    clock.used(61)
    assert clock.request(**ask) == 1, "one token beyond the key's 60"
    assert clock.request(key=OTHER_KEY, **ask) is None
    clock.used(540, key=OTHER_KEY)
    assert clock.request(key=OTHER_KEY, requests=None, tokens=600) == 1, (
        "61 + 540: one beyond the customer's 600"
    )


def test_the_tokens_of_a_call_that_is_settled_again_are_taken_once() -> None:
    clock = Clock()
    ask: Any = {"requests": None, "tokens": 60}
    assert clock.request(**ask) is None
    event_id = clock.used(60)
    clock.limits.used(ONE, KEY, 60, event_id)
    assert clock.request(**ask) is None


def test_nothing_is_kept_of_calls_without_a_limit() -> None:
    assert limited_by(ONE, KEY) is None


def test_the_answer_says_what_is_left_of_each_limit_and_when_it_is_full_again() -> None:
    clock = Clock()
    ask: Any = {"requests": 60, "tokens": 1000, "key_requests": 6}
    clock.request(**ask)
    assert clock.headers() == {
        "ratelimit-policy": '"requests";q=60;w=60, "tokens";q=1000;w=60, "key-requests";q=6;w=60',
        "ratelimit": '"requests";r=59;t=1, "tokens";r=1000;t=0, "key-requests";r=5;t=10',
    }
    clock.used(250)
    clock.request(**ask)
    assert clock.headers()["ratelimit"] == '"requests";r=58;t=2, "tokens";r=750;t=15, "key-requests";r=4;t=20'
    clock.used(1000)  # 250 more than there were: nothing is left, and it takes 75 s to be full again
    assert clock.request(**ask) == 15
    assert '"tokens";r=0;t=75' in clock.headers()["ratelimit"]
    assert '"requests";r=58' in clock.headers()["ratelimit"], "a refused call takes no request"


def test_a_refusal_says_when_to_come_back_to_the_millisecond() -> None:
    clock = Clock()
    for milliseconds in (0, 400, 599, 1, 0):
        clock.seconds += milliseconds / 1000
        clock.request(requests=1)
    refusal = clock.standing.refusal
    assert refusal is not None
    assert (refusal.retry_after_s, refusal.retry_after_ms) == (59, 59_000)
    clock.seconds += 58.9995
    clock.request(requests=1)
    assert clock.standing.refusal is not None
    headers = dict(problem_headers(clock.standing.refusal, "id"))
    assert (headers[b"retry-after"], headers[b"retry-after-ms"]) == (
        b"1",
        b"1",
    )  # half a millisecond, rounded up
    assert headers[b"ratelimit"] == b'"requests";r=0;t=1'
    clock.seconds += 0.0005
    assert clock.request(requests=1) is None


@given(st.integers(1, 600), st.lists(st.floats(0, 5), min_size=1, max_size=200))
def test_no_minute_sees_more_than_two_minutes_worth(limit: int, pauses: list[float]) -> None:
    """A full bucket and what comes in during the minute: never more than twice the limit in any one."""
    clock, admitted = Clock(), []
    for pause in pauses:
        clock.seconds += pause
        if clock.request(requests=limit) is None:
            admitted.append(clock.seconds)
    for since in admitted:
        assert sum(since <= at < since + 60 for at in admitted) <= 2 * limit


@pytest.mark.anyio
async def test_the_gate_refuses_what_is_too_fast_and_says_when_to_come_back() -> None:
    directory = Directory()
    directory.snapshots[keys.digest(SECRET)] = msgspec.structs.replace(
        PAYER, requests_per_minute=2, tokens_per_minute=1000
    )
    assert [isinstance(await directory.resolve(), Account) for _ in range(2)] == [True, True]
    refused = await directory.resolve()
    assert isinstance(refused, Refusal)
    assert (refused.status, refused.code, refused.retry_after_s, refused.retryable) == (
        429,
        "rate_limited",
        30,
        True,
    )
    directory.seconds += 60
    assert isinstance(await directory.resolve(), Account)
    directory.gate.settle([an_event(a_hold(PAYER.customer_id), tokens_total=2000)])
    refused = await directory.resolve()
    assert isinstance(refused, Refusal) and "1,000 tokens" in refused.detail and refused.retry_after_s == 60
