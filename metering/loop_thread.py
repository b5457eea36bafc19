"""An event loop in a thread of its own, for hosts that have none: the recorder is a coroutine everywhere."""

import asyncio
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """Runs coroutines on a private loop. Starts at the first use; started anew in a forked child."""

    def __init__(self) -> None:
        self._pid = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, action: Coroutine[Any, Any, T]) -> T:
        """Run to the end from a synchronous caller."""
        return asyncio.run_coroutine_threadsafe(action, self._running()).result()

    async def await_(self, action: Coroutine[Any, Any, T]) -> T:
        """Run on the private loop from another loop; goes on there when the caller is cancelled."""
        future = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(action, self._running()))
        return await asyncio.shield(future)

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=self._loop.run_forever, name="tollgate-loop", daemon=True).start()
            return self._loop
