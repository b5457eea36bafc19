"""Rate limits for the whole cluster, by token buckets in Redis. No Django.

Calls that come in the same turn of the event loop are answered by one script call, and so are those that come while one is
under way: one is at a time. The script reads Redis's own clock and counts in whole numbers, so the limit is exact over any
number of processes. Tokens that were used travel with the next script call.

Redis only makes it better. Whatever it does, the process's own buckets (`RateLimits`) know the last that it said: while it is
away, slow or wrong they go on from their share of that, and the first call to a bucket that Redis has lost (it was emptied, or
started again) puts back what the process knows. No call waits longer than `call_s_max`; after that none waits at all, until
Redis has answered in the background.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import msgspec
from redis.asyncio import Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript

from billing.rate_limits import Bucket, Limited, RateLimit, RateLimits, Standing, standing

log = logging.getLogger("billing.rate_limits")

CONNECT_S_MAX = 1.0
FIRST_CONNECT_S_MAX = 0.25  # the first calls of a process wait so long for Redis, so that they count there
CALLS_MAX = 500  # of one script call, which keeps Redis from everybody else
LATE_TURNS = 4  # of the event loop, for an answer that has come while the loop was busy
TOKENS_MAX = 10**11  # what the script can take at once without rounding
PREFIX = "{tollgate}:rate:"  # in braces: what a cluster of Redis keeps in one place
UNIT = 60_000  # parts of a request or token, so that each millisecond brings a whole number of them: the limit a minute

SCRIPT = """
-- KEYS are buckets, each kept as "level at" in parts and milliseconds; ARGV[1] says of each {limit a minute, the level to begin
-- with where it is not kept, what a call takes}, then what was used of which, then for each call the buckets that it needs.
local UNIT, LEAST = 60000, -8e15
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local asked = cjson.decode(ARGV[1])
local levels, ats = {}, {}
for i, key in ipairs(KEYS) do
  local per_minute, level, at = asked.buckets[i][1], asked.buckets[i][2], now
  local was, since = string.match(redis.call('GET', key) or '', '^(-?%d+) (%d+)$')
  if was then
    at = math.max(now, tonumber(since))
    level = tonumber(was) + (at - since) * per_minute
  end
  levels[i], ats[i] = math.min(level, per_minute * UNIT), at
end
for _, one in ipairs(asked.used) do
  levels[one[1]] = math.max(LEAST, levels[one[1]] - one[2] * UNIT)
end
local answer = {}
for _, call in ipairs(asked.calls) do
  local admitted = 1
  for _, i in ipairs(call) do
    if levels[i] < asked.buckets[i][3] * UNIT then admitted = 0 end
  end
  answer[#answer + 1] = admitted
  for _, i in ipairs(call) do
    levels[i] = levels[i] - admitted * asked.buckets[i][3] * UNIT
    answer[#answer + 1] = levels[i]
  end
end
for i, key in ipairs(KEYS) do
  local per_minute = asked.buckets[i][1]
  -- A second longer than until it is full, by when every process thinks so too.
  local kept_ms = math.ceil((per_minute * UNIT - levels[i]) / per_minute) + 1000
  redis.call('SET', key, string.format('%.0f %.0f', levels[i], ats[i]), 'PX', string.format('%.0f', kept_ms))
end
return answer
"""


class SharedRateLimits:
    """The buckets in the Redis under `url`, and those of this process. Belongs to one event loop."""

    def __init__(
        self,
        url: str,
        monotonic: Callable[[], float] = time.monotonic,
        *,
        call_s_max: float = 0.05,  # a call waits so long for Redis's answer, and then takes the process's own
        away_s: float = 1.0,  # between attempts to reach a Redis that did not answer
    ) -> None:
        parse_url(url)  # raises ValueError for one that no client could use
        self._url, self._call_s_max, self._away_s = url, call_s_max, away_s
        self._local = RateLimits(monotonic)
        self._calls: list[_Call] = []
        self._used: dict[str, tuple[Bucket, int]] = {}
        self._client: Redis | None = None
        self._script: AsyncScript | None = None  # None: Redis is away
        self._was_tried, self._retry_at = False, -math.inf
        self._connecting: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()  # the loop holds tasks weakly

    async def admit(self, limited: Limited, processes: int) -> Standing:
        """Take one request, or say how long to wait; as `RateLimits.admit`, for all processes together."""
        if self._script is None and not await self._is_back():
            return self._local.admit(limited, processes)
        call = _Call(limited, processes, asyncio.get_running_loop().create_future())
        self._calls.append(call)
        self._send_soon()
        return await call.answer

    def used(self, customer_id: UUID, api_key_id: UUID, tokens: int | None, event_id: UUID) -> None:
        """Take the tokens of a settled call, where they are limited: soon, and from the process's own where Redis is away."""
        for bucket in self._local.drawn_on(customer_id, api_key_id, tokens, event_id):
            if self._script is None:
                bucket.level -= tokens or 0
            else:
                _, before = self._used.get(bucket.limit.bucket, (bucket, 0))
                self._used[bucket.limit.bucket] = (bucket, before + (tokens or 0))
                self._send_soon()

    async def close(self) -> None:
        """Send what is waiting, and let go of Redis."""
        for task in (self._connecting, self._sending):
            if task is not None:
                await asyncio.wait([task])
        if self._client is not None:
            self._let_go(self._client)
        self._client = self._script = None
        if self._ending:
            await asyncio.wait(self._ending)

    async def _is_back(self) -> bool:
        """Whether Redis is there. Asked again in the background and not too often, so that no call waits for one that is not."""
        if self._connecting is None and asyncio.get_running_loop().time() >= self._retry_at:
            self._connecting = asyncio.create_task(self._connect())
        if self._connecting is not None and not self._was_tried:
            await asyncio.wait([self._connecting], timeout=FIRST_CONNECT_S_MAX)
        return self._script is not None

    async def _connect(self) -> None:
        client = Redis.from_url(
            self._url, socket_timeout=CONNECT_S_MAX, socket_connect_timeout=CONNECT_S_MAX, retry=Retry(NoBackoff(), 0),
        )  # fmt: skip
        try:
            async with asyncio.timeout(CONNECT_S_MAX):
                await client.script_load(SCRIPT)
        except Exception as error:  # noqa: BLE001  (whatever the client raises, callers get an answer)
            self._is_away(client, error)
        else:
            self._client, self._script = client, client.register_script(SCRIPT)
            log.info("rate limits are counted in Redis")
        finally:
            self._was_tried, self._connecting = True, None

    def _send_soon(self) -> None:
        # The task begins in the next turn of the loop, when all calls of this one are here.
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_all())

    async def _send_all(self) -> None:
        try:
            while self._calls or self._used:
                calls, self._calls = self._calls[:CALLS_MAX], self._calls[CALLS_MAX:]
                used, self._used = list(self._used.values()), {}
                await self._send(calls, used)
        finally:
            self._sending = None

    async def _send(self, calls: "list[_Call]", used: list[tuple[Bucket, int]]) -> None:
        """Have one batch answered: by Redis, or by this process's own buckets."""
        answer = None
        if self._script is not None and self._client is not None:
            try:
                answer = await self._ask(self._script, self._question(calls, used))
                standings = _standings(calls, answer)
            except Exception as error:  # noqa: BLE001  (whatever the client raises, callers get an answer)
                self._is_away(self._client, error)
                answer = None
        if answer is None:
            for bucket, tokens in used:
                bucket.level -= tokens
            for call in calls:
                call.tell(self._local.admit(call.limited, call.processes))
            return
        for bucket, tokens in used:  # this process's share of them, until the next answer says what is left
            bucket.level -= tokens * bucket.share / bucket.limit.per_minute
        for call, (levels, said) in zip(calls, standings, strict=True):
            self._local.take_over(call.limited, call.processes, levels)
            call.tell(said)

    def _question(
        self, calls: "Sequence[_Call]", used: Sequence[tuple[Bucket, int]]
    ) -> tuple[list[str], bytes]:
        """The script's keys, and its argument."""
        numbers: dict[str, int] = {}
        buckets: list[tuple[int, int, int]] = []

        def number_of(limit: RateLimit, level: float) -> int:
            number = numbers.get(limit.bucket)
            if number is None:
                number = numbers[limit.bucket] = len(numbers) + 1
                buckets.append((limit.per_minute, math.floor(level * UNIT + 0.5), limit.takes))
            return number

        taken = [
            (number_of(bucket.limit, bucket.level_of_all), min(tokens, TOKENS_MAX)) for bucket, tokens in used
        ]
        needed = []
        for call in calls:
            known = self._local.known(call.limited, call.processes)
            needed.append(
                [number_of(limit, level) for limit, level in zip(call.limited.limits, known, strict=True)]
            )
        question = {"buckets": buckets, "used": taken, "calls": needed}
        return [PREFIX + bucket for bucket in numbers], msgspec.json.encode(question)

    async def _ask(self, script: AsyncScript, question: tuple[list[str], bytes]) -> list[int]:
        """What the script says. Raises TimeoutError where that takes too long; it may have run all the same."""
        keys, argument = question
        asking: asyncio.Task[Any] = asyncio.ensure_future(script(keys=keys, args=[argument]))
        try:
            await asyncio.wait([asking], timeout=self._call_s_max)
            for _ in range(LATE_TURNS):
                if asking.done():
                    break
                await asyncio.sleep(0)
            if not asking.done():
                raise TimeoutError(f"no answer within {self._call_s_max * 1000:.0f} ms")
            answer: list[int] = asking.result()
            return answer
        finally:
            asking.cancel()

    def _is_away(self, client: Redis, error: Exception) -> None:
        """Let this process's own buckets answer, and try again in a while."""
        self._retry_at = asyncio.get_running_loop().time() + self._away_s
        if self._script is not None or not self._was_tried:
            told = "Redis is away, rate limits are counted by each process: %s: %s"
            log.warning(told, type(error).__name__, error)
        self._client = self._script = None
        self._let_go(client)

    def _let_go(self, client: Redis) -> None:
        task = asyncio.create_task(_closed(client))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)


class _Call:
    """A call that waits for its answer."""

    __slots__ = ("answer", "limited", "processes")

    def __init__(self, limited: Limited, processes: int, answer: "asyncio.Future[Standing]") -> None:
        self.limited, self.processes, self.answer = limited, processes, answer

    def tell(self, said: Standing) -> None:
        if not self.answer.done():  # its client may have gone
            self.answer.set_result(said)


def _standings(calls: Sequence[_Call], answer: list[int]) -> list[tuple[list[float], Standing]]:
    """What the script's answer says to each call, and how much it left in the call's buckets. Raises for one that is none."""
    found, at = [], 0
    for call in calls:
        limits = call.limited.limits
        admitted, *parts = answer[at : at + 1 + len(limits)]
        levels, at = [part / UNIT for part in parts], at + 1 + len(limits)
        shares = [limit.per_minute for limit in limits]
        found.append((levels, standing(call.limited, levels, shares, admitted=admitted == 1)))
    return found


async def _closed(client: Redis) -> None:
    with suppress(Exception):
        await client.aclose()
