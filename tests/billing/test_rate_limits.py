"""Rate limits by token buckets: a minute's worth at once, then as it fills; tokens when they are known."""

from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, strategies as st

from billing import keys
from billing.rate_limits import RateLimits
from metering.gate import Account
from metering.problem import Refusal
from tests.billing.test_admission import PAYER, SECRET, Directory
from tests.metering.rows import a_hold, an_event

ONE, OTHER = UUID(int=1), UUID(int=2)


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0
        self.limits = RateLimits(lambda: self.seconds)

    def request(
        self,
        customer: UUID = ONE,
        *,
        requests: int | None = 60,
        tokens: int | None = None,
        processes: int = 1,
    ) -> int | None:
        """None where it is admitted, else the seconds to wait."""
        refusal = self.limits.admit(customer, requests=requests, tokens=tokens, processes=processes)
        return None if refusal is None else refusal.retry_after_s


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
    clock.limits.used(ONE, 600)
    assert clock.request(**ask) is None, "nothing is owed yet"
    clock.limits.used(ONE, 300)
    assert clock.request(**ask) == 30  # 300 of 600 a minute
    clock.seconds += 30
    assert clock.request(**ask) is None
    clock.limits.used(OTHER, 10**9)  # who has no limit is not counted
    clock.limits.used(ONE, None)


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
