"""Keeps the rate card and the clock of a process up to date: one small query a second, a load when something changed."""

import logging
import os
import threading
import time
from datetime import timedelta

from django.db import connection

from pricing import clock
from pricing.catalog import load_rate_card
from pricing.models import ONE_ROW, CatalogueVersion, ClockOffset
from pricing.pricelist import CurrentCard

log = logging.getLogger("pricing.refresh")

_LOOK = f"""select
    (select version from {CatalogueVersion._meta.db_table} where id = {ONE_ROW}),
    (select offset_us from {ClockOffset._meta.db_table} where id = {ONE_ROW})"""  # noqa: S608  (names of our own tables)


class Refresher:
    """A daemon thread that swaps `current.card` when the catalogue has a new version and takes over the clock's offset.

    A database that is away changes nothing: the process goes on with the rates it has, and `current.age_s` tells.
    """

    def __init__(self, current: CurrentCard, *, every_s: float = 1.0) -> None:
        self._current = current
        self._every_s = every_s  # far below the 5 s within which every process must see a new price
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._failing = False

    def start(self) -> None:
        """Begin to look. Does nothing when it is running; after a fork the child calls it again."""
        if self._thread is not None and self._pid == os.getpid() and self._thread.is_alive():
            return
        self._stopped, self._pid = threading.Event(), os.getpid()
        self._thread = threading.Thread(
            target=self._run, args=(self._stopped,), name="pricing-refresh", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread and its connection; returns when both are gone."""
        self._stopped.set()
        if self._thread is not None and self._pid == os.getpid():
            self._thread.join(timeout=10)
        self._thread = None

    def refresh_now(self) -> bool:
        """Look once, on the caller's connection; whether a new card was loaded. Raises what the database raises."""
        started = time.monotonic()
        with connection.cursor() as cursor:
            cursor.execute(_LOOK)
            version, offset_us = cursor.fetchone()
        clock.set_offset(timedelta(microseconds=offset_us or 0))
        is_new = self._current.loaded_at is None or (version or 0) != self._current.card.version
        if is_new:
            self._current.card = load_rate_card()
        self._current.loaded_at = started
        return is_new

    def _run(self, stopped: threading.Event) -> None:
        while True:
            self._look()
            if stopped.wait(self._every_s):
                break
        connection.close()

    def _look(self) -> None:
        try:
            if self.refresh_now():
                log.info(
                    "rate card version %d with %d rates", self._current.card.version, self._current.card.rates
                )
            self._failing = False
        except Exception as error:  # noqa: BLE001  (whatever happens, the process keeps its rates and looks again)
            if not self._failing:
                log.warning(
                    "the rate card cannot be refreshed, going on with version %d: %s",
                    self._current.card.version,
                    error,
                )
            self._failing = True
            connection.close()
