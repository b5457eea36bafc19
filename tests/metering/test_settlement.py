"""Whoever waits for a settlement is told of it, however many they are and whoever of them gives up."""

import asyncio

import pytest

from metering.batching import Answer
from metering.meter import Settlement
from metering.rows import EventRow
from tests.metering.rows import a_hold, an_event


async def waiting(settlement: Settlement, number: int = 3) -> "list[asyncio.Task[EventRow]]":
    tasks = [asyncio.create_task(settlement.committed()) for _ in range(number)]
    await asyncio.sleep(0)
    return tasks


def test_one_who_gives_up_takes_the_commit_from_nobody_and_may_wait_again() -> None:
    async def run() -> None:
        settlement = Settlement(an_event(a_hold()))
        leaving, *staying = await waiting(settlement)
        leaving.cancel()
        await asyncio.wait([leaving])
        staying += await waiting(settlement, 1)
        assert not settlement.done() and not any(task.done() for task in staying)
        settlement.set_result(True)
        assert await asyncio.gather(*staying) == [settlement.row] * 3
        assert leaving.cancelled()

    asyncio.run(run())


def test_nobody_waits_for_what_is_committed_already() -> None:
    async def run() -> None:
        settlement = Settlement(an_event(a_hold()))
        settlement.set_result(True)
        (task,) = await waiting(settlement, 1)
        assert task.done()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("reason", "said"), [("", "stays queued"), ("the recorder has stopped", "has stopped")]
)
def test_what_is_not_committed_in_time_keeps_nobody_waiting(
    reason: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        settlement = Settlement(an_event(a_hold()))
        tasks = await waiting(settlement)
        answer: Answer = settlement
        answer.set_exception(TimeoutError(reason))
        assert await asyncio.gather(*tasks) == [settlement.row] * 3

    asyncio.run(run())
    (record,) = caplog.records
    assert said in record.getMessage()
