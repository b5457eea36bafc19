"""`asyncio.timeout` for what nearly never has a limit."""

import asyncio
from types import TracebackType
from typing import Self


class Deadline:
    """Around a piece of the current task: once its limit is over the task is cancelled, and TimeoutError comes out of it.

    As `asyncio.timeout(None)` and `reschedule`, of which every call would pay 4 µs for a limit that hardly any is given.
    """

    __slots__ = ("_cancelling", "_is_over", "_task", "_timer", "expired")

    def __init__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can have a deadline")
        self._task, self._cancelling = task, task.cancelling()
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = self.expired = False

    def __enter__(self) -> Self:
        return self

    def limit(self, seconds: float) -> None:
        """End it so many seconds from now, whatever was said before."""
        if self._is_over:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._task.get_loop().call_later(seconds, self._expire)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        if self._timer is not None:
            self._timer.cancel()
        # Where somebody else cancelled the task as well, that is what it ends with.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _expire(self) -> None:
        self._is_over = self.expired = True
        self._task.cancel()
