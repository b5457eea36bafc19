"""Rate limits over a real Redis: exact for all gates together, and never without an answer when Redis is not there."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
import redis

from billing import keys
from billing.admission import BillingGate, Snapshot
from billing.shared_rate_limits import PREFIX, UNIT, SharedRateLimits
from metering.gate import Account
from metering.problem import Refusal
from tests.billing.test_admission import AT, PAYER, SECRET
from tests.local_servers import LocalServer, start_redis
from tests.metering.rows import a_hold, an_event

pytestmark = pytest.mark.anyio

CUSTOMER, KEY = PAYER.customer_id.hex, PAYER.api_key_id.hex
OTHER_SECRET = "tg_live_" + "b" * 32
FAR_AHEAD_MS = 10**13  # an instant that Redis's clock has not reached: a bucket filled then does not fill now
PATIENCE_S = 30.0


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServer]:
    server = start_redis(tmp_path_factory.mktemp("redis"))
    yield server
    server.stop()


@pytest.fixture
def server(started: LocalServer) -> LocalServer:
    """A Redis of these tests alone, empty."""
    books, until = Books(started), time.monotonic() + PATIENCE_S
    while not books.are_there() and time.monotonic() < until:
        time.sleep(0.01)
    books.redis.flushall()
    return started


class Books:
    """What Redis holds, looked at and written from outside."""

    def __init__(self, server: LocalServer) -> None:
        self.redis: Any = redis.Redis.from_url(server.url)

    def are_there(self) -> bool:
        try:
            return bool(self.redis.ping())
        except redis.ConnectionError:
            return False

    def put(self, bucket: str, parts: int) -> None:
        """So much is in the bucket, and no time passes for it."""
        self.redis.set(PREFIX + bucket, f"{parts} {FAR_AHEAD_MS}")

    def parts(self, bucket: str) -> int | None:
        kept = self.redis.get(PREFIX + bucket)
        return None if kept is None else int(kept.split()[0])

    def questions(self) -> int:
        """How often the script was called by its name."""
        return int(self.redis.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0))

    def now_ms(self) -> int:
        seconds, microseconds = self.redis.time()
        return int(seconds * 1000 + microseconds // 1000)


class Process:
    """A gate as a process of its own has it. Its clock stands still, so its own buckets do not fill."""

    def __init__(
        self, url: str, *, processes: int = 1, call_s_max: float = PATIENCE_S, **limits: int | None
    ) -> None:
        other_key = msgspec.structs.replace(PAYER, api_key_id=UUID(int=9))
        self.snapshots = {
            keys.digest(secret): msgspec.structs.replace(snapshot, processes=processes, **limits)
            for secret, snapshot in ((SECRET, PAYER), (OTHER_SECRET, other_key))
        }
        self.shared = SharedRateLimits(url, lambda: 1000.0, call_s_max=call_s_max, away_s=0.05)
        self.gate = BillingGate(self.load, monotonic=lambda: 1000.0, shared_limits=self.shared)

    async def load(self, digest: str) -> Snapshot | None:
        return self.snapshots.get(digest)

    async def resolve(self, secret: str = SECRET) -> Account | Refusal:
        return await self.gate.resolve([(b"x-api-key", secret.encode())], AT)

    async def admits(self, secret: str = SECRET) -> bool:
        return isinstance(await self.resolve(secret), Account)

    async def left(self) -> str:
        """What the answer to one more call says is left."""
        found = await self.resolve()
        headers = dict(found.headers if isinstance(found, Refusal) else found.rate_headers)
        return headers[b"ratelimit"].decode()

    async def refusal(self) -> Refusal:
        found = await self.resolve()
        assert isinstance(found, Refusal), found
        return found

    def settle(self, tokens: int) -> None:
        hold = a_hold(PAYER.customer_id)
        hold.api_key_id = PAYER.api_key_id
        event = an_event(hold, tokens_total=tokens)
        event.api_key_id = PAYER.api_key_id
        self.gate.settle([event])
        self.gate.settle([event])  # a batch that is written again

    async def until_counted_in_redis(self, books: Books, bucket: str) -> None:
        """Call until Redis has counted one."""
        async with asyncio.timeout(PATIENCE_S):
            while not books.are_there() or books.parts(bucket) is None:
                await self.resolve()
                await asyncio.sleep(0.01)


async def eventually(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.005)


async def test_two_gates_share_a_limit_exactly(server: LocalServer) -> None:
    books, limit = Books(server), 600
    gates = [Process(server.url, requests_per_minute=limit, processes=2) for _ in range(2)]
    began = books.now_ms()
    answers = await asyncio.gather(*(gates[number % 3 == 0].admits() for number in range(1500)))
    came_in = (books.now_ms() - began) * limit // 60_000
    assert limit <= sum(answers) <= limit + came_in, "a minute's worth, and what came in meanwhile"
    for gate in gates:
        await gate.shared.close()


async def test_calls_of_one_turn_are_answered_by_one_script_call(server: LocalServer) -> None:
    books, gate = Books(server), Process(server.url, requests_per_minute=1000)
    await gate.admits()
    before = books.questions()
    assert all(await asyncio.gather(*(gate.admits() for _ in range(100))))
    assert books.questions() == before + 1
    await gate.shared.close()


async def test_calls_that_come_while_redis_is_asked_are_answered_together_after_it(
    server: LocalServer,
) -> None:
    books, gate = Books(server), Process(server.url, requests_per_minute=1000)
    await gate.admits()
    before = books.questions()
    server.process.send_signal(signal.SIGSTOP)
    try:
        waiting = []
        for _ in range(10):
            waiting.append(asyncio.create_task(gate.admits()))
            for _ in range(3):  # turns of the loop: the first one's question is on its way
                await asyncio.sleep(0)
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert all(await asyncio.gather(*waiting))
    assert books.questions() == before + 2, "the first, and the nine others"
    await gate.shared.close()


async def test_a_call_without_a_limit_asks_nobody() -> None:
    gate = Process("redis://127.0.0.1:1")
    assert await gate.admits()
    assert gate.shared._connecting is None


@pytest.mark.parametrize(
    ("parts", "admitted", "left", "wait_ms"),
    [
        (UNIT - 1, False, '"requests";r=0;t=6', 1),  # one part is missing, and each millisecond brings ten
        (UNIT - 11, False, '"requests";r=0;t=7', 2),
        (UNIT, True, '"requests";r=0;t=60', 0),
        (UNIT + 1, True, '"requests";r=0;t=60', 0),
        (2 * UNIT, True, '"requests";r=1;t=54', 0),
        (10 * UNIT, True, '"requests";r=9;t=6', 0),
        (11 * UNIT, True, '"requests";r=9;t=6', 0),  # no more fits in than a minute's worth
        (-UNIT, False, '"requests";r=0;t=66', 12_000),
    ],
)
async def test_a_request_needs_a_whole_one_in_the_bucket(
    server: LocalServer, parts: int, admitted: bool, left: str, wait_ms: int
) -> None:
    books, gate = Books(server), Process(server.url, requests_per_minute=10)
    books.put(f"{CUSTOMER}:requests", parts)
    found = await gate.resolve()
    headers = dict(found.rate_headers if isinstance(found, Account) else found.headers)
    assert isinstance(found, Account) is admitted
    if isinstance(found, Refusal):
        assert found.retry_after_ms == wait_ms
        assert books.parts(f"{CUSTOMER}:requests") == parts, "a refused call takes nothing"
        left = f'"requests";r=0;t={-(-(10 * UNIT - parts) // 10_000)}'
    assert headers[b"ratelimit"].decode() == left
    await gate.shared.close()


async def test_a_call_takes_from_its_key_and_its_customer_or_from_none(server: LocalServer) -> None:
    books = Books(server)
    gate = Process(server.url, requests_per_minute=3, key_requests_per_minute=2)
    for bucket, requests in ((f"{CUSTOMER}:requests", 3), (f"{KEY}:requests", 2)):
        books.put(bucket, requests * UNIT)
    assert [await gate.admits() for _ in range(4)] == [True, True, False, False]
    assert (books.parts(f"{CUSTOMER}:requests"), books.parts(f"{KEY}:requests")) == (UNIT, 0)
    assert "of this API key is 2 requests" in (await gate.refusal()).detail
    assert [await gate.admits(OTHER_SECRET) for _ in range(2)] == [True, False], "the customer's third"
    other = f"{UUID(int=9).hex}:requests"
    assert (books.parts(f"{CUSTOMER}:requests"), (books.parts(other) or 0) >= UNIT) == (0, True)
    await gate.shared.close()


async def test_tokens_that_one_gate_settles_are_missing_in_the_other(server: LocalServer) -> None:
    books, bucket = Books(server), f"{CUSTOMER}:tokens"
    one, other = (Process(server.url, tokens_per_minute=600, key_tokens_per_minute=10_000) for _ in range(2))
    books.put(bucket, 600 * UNIT)
    assert await one.admits() and await other.admits()
    for tokens, left in ((599, 1), (1, 0), (1, -1)):
        one.settle(tokens)
        await eventually(partial(lambda expected: books.parts(bucket) == expected, left * UNIT))
        assert await other.admits() is (left >= 0)
    refused = await other.refusal()
    assert (refused.retry_after_ms, refused.retry_after_s) == (100, 1)  # one of 600 a minute
    assert "600 tokens" in refused.detail
    assert (books.parts(f"{KEY}:tokens") or 0) >= (10_000 - 601) * UNIT
    for gate in (one, other):
        await gate.shared.close()


async def test_an_emptied_redis_gives_nobody_a_second_minutes_worth(server: LocalServer) -> None:
    """The gates call in turn, so each knows all but the other's last call."""
    books, limit = Books(server), 100
    gates = [Process(server.url, requests_per_minute=limit, processes=2) for _ in range(2)]
    began, admitted, emptied = books.now_ms(), 0, 0
    for number in range(300):
        if number in (30, 70, 150):
            books.redis.flushall()  # with the script
            emptied += 1
        admitted += await gates[number % 2].admits()
    came_in = (books.now_ms() - began) * limit // 60_000
    assert limit <= admitted <= limit + emptied + came_in
    for gate in gates:
        await gate.shared.close()


async def test_a_redis_that_dies_leaves_each_process_its_share_of_what_was_left(server: LocalServer) -> None:
    books, bucket = Books(server), f"{CUSTOMER}:requests"
    gate = Process(server.url, requests_per_minute=10, processes=2)
    books.put(bucket, 10 * UNIT)
    assert [await gate.admits() for _ in range(4)] == [True] * 4
    server.stop()
    try:
        # 6 of 10 are left, and this is one of two processes.
        assert [await gate.admits() for _ in range(5)] == [True, True, True, False, False]
    finally:
        server.start_again()
    await gate.until_counted_in_redis(books, bucket)
    assert (books.parts(bucket) or 0) < UNIT, "what the process knew was put back"
    books.put(bucket, 2 * UNIT)
    assert [await gate.admits() for _ in range(3)] == [True, True, False]
    await gate.shared.close()


async def test_a_redis_that_does_not_answer_is_not_waited_for(server: LocalServer) -> None:
    books, bucket = Books(server), f"{CUSTOMER}:requests"
    gate = Process(server.url, requests_per_minute=4, call_s_max=0.05)
    books.put(bucket, 4 * UNIT)
    assert await gate.admits()
    server.process.send_signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(PATIENCE_S):
            answers = await asyncio.gather(*(gate.admits() for _ in range(50)))
            assert sum(answers) == 3, "four a minute, of which one is gone"
            assert gate.shared._script is None and not await gate.admits()
    finally:
        server.process.send_signal(signal.SIGCONT)
    books.redis.flushall()
    await gate.until_counted_in_redis(books, bucket)
    await gate.shared.close()


async def test_a_redis_that_is_not_there_at_the_start_is_found_later(server: LocalServer) -> None:
    books, bucket = Books(server), f"{CUSTOMER}:requests"
    gate = Process(server.url, requests_per_minute=2)
    server.stop()
    try:
        assert [await gate.admits() for _ in range(3)] == [True, True, False]
        assert (await gate.left()) == '"requests";r=0;t=60'
    finally:
        server.start_again()
    await gate.until_counted_in_redis(books, bucket)
    await gate.shared.close()


async def test_tokens_are_not_lost_while_redis_is_away(server: LocalServer) -> None:
    gate = Process(server.url, tokens_per_minute=600)
    assert await gate.admits()
    server.stop()
    try:
        gate.settle(400)  # on its way to Redis when that turns out to be gone
        await eventually(lambda: gate.shared._script is None)
        assert await gate.admits()
        gate.settle(300)
        assert (await gate.refusal()).retry_after_ms == 10_000  # 100 of 600 a minute
    finally:
        server.start_again()
    await gate.shared.close()


async def test_a_bucket_that_is_none_costs_nobody_his_answer(server: LocalServer) -> None:
    books = Books(server)
    books.redis.rpush(f"{PREFIX}{CUSTOMER}:requests", "not ours")
    gate = Process(server.url, requests_per_minute=2)
    assert [await gate.admits() for _ in range(3)] == [True, True, False]
    await gate.shared.close()


async def test_a_call_that_is_given_up_takes_no_other_with_it(server: LocalServer) -> None:
    gate = Process(server.url, requests_per_minute=10)
    await gate.admits()
    leaves, stays = asyncio.create_task(gate.admits()), asyncio.create_task(gate.admits())
    await asyncio.sleep(0)
    leaves.cancel()
    assert await stays
    with suppress(asyncio.CancelledError):
        await leaves
    await gate.shared.close()


def test_an_address_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="scheme"):
        SharedRateLimits("http://cache:6379")
