"""The pulse: says to the database, from a thread of its own, that this process is alive.

Not from the event loop: a host that blocks its loop for half a minute is slow, not dead.
"""

import logging
import threading
from collections.abc import Callable, Iterable
from uuid import UUID

from metering.store.base import Store, StoreError

STOP_S = 2.0
log = logging.getLogger("metering.pulse")


class Pulse:
    """Beats for the writers that `writers` names, every `every_s` seconds, until stopped."""

    def __init__(self, store: Store, writers: Callable[[], Iterable[UUID]], every_s: float) -> None:
        self._store, self._writers, self._every_s = store, writers, every_s
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tollgate-pulse", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End: the writers are retired, so that nobody has to find out by watching that they beat no more, and the store
        is closed. Waits for that no longer than STOP_S; whoever stands in the way is left to it."""
        self._stopped.set()
        self._thread.join(timeout=STOP_S)

    def _run(self) -> None:
        while not self._stopped.wait(self._every_s):
            try:
                self._store.beat(self._writers())
            except StoreError as error:
                log.warning("no beat: %s", error)
        try:
            self._store.retire(self._writers())
        except StoreError as error:
            log.warning("the writers of this process could not be retired: %s", error)
        self._store.close()
