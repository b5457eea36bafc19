"""How rows gather into batches. Counted in turns of the event loop, never in seconds."""

import asyncio
from collections.abc import Awaitable, Callable

from metering.gate import OpenGate
from metering.recorder import Recorder
from metering.store.memory import MemoryStore
from tests.metering.rows import a_hold
from tests.metering.stores import LossyStore


def batches_of(act: Callable[[Recorder], Awaitable[None]]) -> list[int]:
    """The sizes of the batches that `act` makes of a recorder in memory."""
    network = LossyStore(MemoryStore())

    async def main() -> None:
        recorder = Recorder(network, OpenGate())
        await act(recorder)
        await recorder.stop()

    asyncio.run(main())
    return network.batches


async def hold_together(recorder: Recorder, calls: int) -> None:
    await asyncio.gather(*(recorder.hold(a_hold()) for _ in range(calls)))


async def hold_one_after_the_other(recorder: Recorder, calls: int, turns: int) -> None:
    """Each call so many turns of the loop after the one before, whose answer it does not wait for."""
    made = []
    for _ in range(calls):
        made.append(asyncio.ensure_future(recorder.hold(a_hold())))
        for _ in range(turns):
            await asyncio.sleep(0)
    await asyncio.gather(*made)


def test_where_calls_share_a_batch_those_on_their_way_come_along() -> None:
    async def act(recorder: Recorder) -> None:
        await hold_together(recorder, 3)
        await hold_one_after_the_other(recorder, 4, turns=1)

    assert batches_of(act) == [3, 4]


def test_a_small_batch_waits_for_a_few_turns_only() -> None:
    async def act(recorder: Recorder) -> None:
        await hold_together(recorder, 3)
        await hold_one_after_the_other(recorder, 2, turns=20)

    assert batches_of(act) == [3, 1, 1]


def test_a_caller_who_is_alone_is_not_made_to_wait() -> None:
    async def act(recorder: Recorder) -> None:
        await hold_together(recorder, 1)
        await hold_one_after_the_other(recorder, 3, turns=2)

    assert batches_of(act) == [1, 1, 1, 1]


def test_a_large_batch_is_written_at_once() -> None:
    async def act(recorder: Recorder) -> None:
        await hold_together(recorder, 20)
        await hold_one_after_the_other(recorder, 3, turns=2)

    assert batches_of(act) == [20, 1, 1, 1]
