"""An event loop in a thread of its own, for hosts that have none: the recorder is a coroutine everywhere."""

import asyncio
import os
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines on a private loop. Starts at the first use; started anew in a forked child."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._lock = threading.Lock()
        _all.add(self)

    def run(self, action: Coroutine[Any, Any, T]) -> T:
        """Run to the end from a synchronous caller."""
        return self.submit(action).result()

    async def await_(self, action: Coroutine[Any, Any, T]) -> T:
        """Run on the private loop from another loop; goes on there when the caller is cancelled."""
        return await asyncio.shield(asyncio.wrap_future(self.submit(action)))

    def submit(self, action: Coroutine[Any, Any, T]) -> "Future[T]":
        """Start on the private loop, from any thread, without waiting."""
        return asyncio.run_coroutine_threadsafe(action, self._running())

    def renew_lock(self) -> None:
        """In a forked child: the thread that held the lock in the parent does not exist here and never lets it go."""
        self._lock = threading.Lock()

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=self._loop.run_forever, name="tollgate-loop", daemon=True).start()
            return self._loop


_all: "weakref.WeakSet[LoopThread]" = weakref.WeakSet()


def _renew_locks() -> None:
    for loop in _all:
        loop.renew_lock()


os.register_at_fork(after_in_child=_renew_locks)
