"""The thread of a process that brings its spool into the database, and those of dead processes on the same disk."""

import asyncio
import logging
import threading
from collections.abc import Callable

from metering.spool.abandoned import drain_abandoned, set_aside
from metering.spool.drain import OnSettled, Survey, drain
from metering.spool.spool import Spool
from metering.store.base import Store, StoreError

log = logging.getLogger("metering.spool")

STOP_S = 5.0


class Drainer:
    """Looks every `every_s` seconds whether there is something to drain, until stopped. `may_drain`: whether the database
    answers, as far as is known."""

    def __init__(
        self,
        spool: Spool,
        store: Store,
        may_drain: Callable[[], bool],
        on_settled: OnSettled,
        *,
        every_s: float = 0.5,
        abandoned_every: int = 20,  # looks; the first one counts
    ) -> None:
        self._spool, self._store, self._may_drain, self._on_settled = spool, store, may_drain, on_settled
        self._every_s, self._abandoned_every = every_s, abandoned_every
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tollgate-drainer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End; waits no longer than STOP_S. What is not drained is drained by whoever comes next."""
        self._stopped.set()
        self._thread.join(STOP_S)

    def _run(self) -> None:
        looks = 0
        while True:
            try:
                if self._may_drain():
                    if looks % self._abandoned_every == 0:
                        self._spool.abandoned = drain_abandoned(
                            self._store, self._spool.root, self._on_settled
                        )
                    if self._spool.waits_to_be_drained:
                        self._drain_own()
            except StoreError as error:
                log.warning("the spool cannot be drained yet: %s", error)
            except Exception:  # a bug here must not leave the spool to the next process
                log.exception("the spool could not be drained")
            looks += 1
            if self._stopped.wait(self._every_s):
                return

    def _drain_own(self) -> None:
        files, place = self._spool.seal(), self._spool.place
        if not files or place is None:
            return
        survey = Survey(files)
        asyncio.run(drain(self._store, place, survey, is_dead=False, on_settled=self._on_settled))
        self._spool.carry(survey.running)
        set_aside(survey.damaged)
        self._spool.remove(files)
        if survey.ended:
            log.info("%d spooled calls are in the database", len(survey.ended))
