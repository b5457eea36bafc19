"""A deadline ends its task as `asyncio.timeout` would, and leaves no trace of a limit that was not reached."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from metering.deadline import Deadline


def end_of(act: Callable[[Deadline], Coroutine[Any, Any, None]], *, cancels: int = 0) -> tuple[str, int]:
    """How a task ends that does `act` under a deadline while others cancel it so often, and how many of its cancellations
    nobody has taken back."""

    async def under_deadline() -> None:
        with Deadline() as deadline:
            await act(deadline)

    async def run() -> tuple[str, int]:
        task = asyncio.create_task(under_deadline())
        await asyncio.sleep(0)
        for _ in range(cancels):
            task.cancel()
        (ended,) = await asyncio.gather(task, return_exceptions=True)
        return type(ended).__name__, task.cancelling()

    return asyncio.run(run())


async def nothing(deadline: Deadline) -> None:
    await asyncio.sleep(0)


async def hanging(deadline: Deadline) -> None:
    deadline.limit(0)
    await asyncio.Event().wait()


async def unlimited(deadline: Deadline) -> None:
    await asyncio.Event().wait()


async def swallowing(deadline: Deadline) -> None:
    with pytest.raises(asyncio.CancelledError):
        await hanging(deadline)


async def failing(deadline: Deadline) -> None:
    await swallowing(deadline)
    raise LookupError


async def extended(deadline: Deadline) -> None:
    deadline.limit(0)
    deadline.limit(3600)
    await asyncio.sleep(0.01)


async def limited_once_more(deadline: Deadline) -> None:
    with pytest.raises(asyncio.CancelledError):
        await hanging(deadline)
    deadline.limit(0)
    await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("act", "cancels", "end", "left"),
    [
        (nothing, 0, "NoneType", 0),
        (extended, 0, "NoneType", 0),
        (hanging, 0, "TimeoutError", 0),
        (swallowing, 0, "NoneType", 0),
        (failing, 0, "LookupError", 0),
        (limited_once_more, 0, "NoneType", 0),
        (unlimited, 1, "CancelledError", 1),
        (hanging, 1, "CancelledError", 1),
    ],
)
def test_a_task_ends_by_its_deadline_only_where_nobody_else_ends_it(
    act: Callable[[Deadline], Coroutine[Any, Any, None]], cancels: int, end: str, left: int
) -> None:
    assert end_of(act, cancels=cancels) == (end, left)


def test_somebody_who_cancels_a_task_that_is_just_expiring_is_not_overheard() -> None:
    async def run() -> str:
        async def act() -> None:
            with Deadline() as deadline:
                deadline.limit(0)
                asyncio.get_running_loop().call_later(0, asyncio.current_task().cancel)  # type: ignore[union-attr]
                await asyncio.Event().wait()

        (ended,) = await asyncio.gather(asyncio.create_task(act()), return_exceptions=True)
        return type(ended).__name__

    assert asyncio.run(run()) == "CancelledError"


def test_a_limit_after_the_end_does_nothing() -> None:
    async def run() -> int:
        with Deadline() as deadline:
            await asyncio.sleep(0)
        deadline.limit(0)
        await asyncio.sleep(0.01)
        return asyncio.current_task().cancelling()  # type: ignore[union-attr]

    assert asyncio.run(run()) == 0
