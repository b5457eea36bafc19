"""Figures of /metrics that only the database knows: read when somebody asks for them, in a thread of their own."""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from django.db import connection
from prometheus_client import Gauge

log = logging.getLogger("project.gauges")

PATIENCE_S = 2.0
FRESH_S = 10.0  # however many scrapers there are, the database is asked no more often


class StoredGauges:
    """Gauges, each with the query that its value comes from. What cannot be read in time is unknown (NaN), and not zero."""

    def __init__(self, queries: Mapping[Gauge, Callable[[], int]]) -> None:
        self._queries = queries
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gauges")
        self._look: asyncio.Future[None] | None = None
        self._read_at = -math.inf

    async def read(self) -> None:
        """Bring every gauge up to date, within `PATIENCE_S`."""
        if self._look is None or (self._look.done() and time.monotonic() - self._read_at > FRESH_S):
            self._look = asyncio.get_running_loop().run_in_executor(self._thread, self._ask)
        await asyncio.wait([self._look], timeout=PATIENCE_S)
        if not self._look.done():
            self._set_unknown()

    def _ask(self) -> None:
        try:
            for gauge, query in self._queries.items():
                gauge.set(query())
        except Exception as error:  # noqa: BLE001  the other metrics are told whatever is wrong with these
            log.warning("gauges cannot be read: %s", error)
            connection.close()  # the next look gets a new connection
            self._set_unknown()
        self._read_at = time.monotonic()

    def _set_unknown(self) -> None:
        for gauge in self._queries:
            gauge.set(math.nan)
