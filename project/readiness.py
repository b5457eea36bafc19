"""What a process needs in order to do its work, looked at in a thread of its own.

A process that has a spool can do without the database for a while: callers that it knows, on open plans, are served. Then the
database is `degraded` and not `down`, or whoever asks would take every process out of service together with it.
"""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from redis import Redis, RedisError
from redis.backoff import NoBackoff
from redis.retry import Retry

from pricing.pricelist import CurrentCard
from project.ops import Check

PATIENCE_S = 3.0
CARD_AGE_S_MAX = 15.0
REDIS_S_MAX = 0.5


class Readiness:
    """Database, migrations, writer, rate card and Redis of this process. One look at a time; the others wait for it."""

    def __init__(self, card: CurrentCard, recorder_status: Callable[[], Mapping[str, Any]]) -> None:
        self._card, self._recorder_status = card, recorder_status
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="readiness")
        self._migrated = False
        self._redis = _redis()
        self._look: asyncio.Future[dict[str, Check]] | None = None

    async def checks(self) -> dict[str, Check]:
        """Every check by name, within `PATIENCE_S`: a database that does not answer is down."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().run_in_executor(self._thread, self._stored)
        await asyncio.wait([self._look], timeout=PATIENCE_S)
        silent = Check("down", f"no answer within {PATIENCE_S:g} s")
        stored = self._look.result() if self._look.done() else {"database": silent, "migrations": silent}
        status = self._recorder_status()
        if not stored["database"].passes and self._migrated and _can_spool(status):
            told = f"{stored['database'].detail}; calls of open plans are spooled"
            stored = stored | {"database": Check("degraded", told), "migrations": Check("healthy")}
        return stored | {
            "writer": _writer(status), "spool": _spool(status), "rate_card": self._rate_card(),
        }  # fmt: skip

    def _stored(self) -> dict[str, Check]:
        database = self._database()
        return {
            "database": database,
            "migrations": self._migrations() if database.passes else Check("down", "unknown"),
            "redis": self._redis_check(),
        }

    def _database(self) -> Check:
        try:
            with connection.cursor() as cursor:
                cursor.execute("select 1")
                cursor.fetchone()
        except Error as error:
            connection.close()  # the next look gets a new connection
            return Check("down", type(error).__name__)
        return Check("healthy", connection.vendor)

    def _migrations(self) -> Check:
        """Looked at until all are applied: they do not come undone while a process runs."""
        if not self._migrated:
            try:
                executor = MigrationExecutor(connection)
                waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
            except Error as error:
                return Check("down", type(error).__name__)
            if waiting:
                return Check("down", f"{len(waiting)} not applied, the first is {waiting[0][0]}")
            self._migrated = True
        return Check("healthy")

    def _rate_card(self) -> Check:
        """Calls are rated by the last card however old it is, so age alone takes no process out of service."""
        age = self._card.age_s
        if age is None:
            return Check("down", "never loaded")
        return Check(
            "degraded" if age > CARD_AGE_S_MAX else "healthy", f"known to be the newest {age:.0f} s ago"
        )

    def _redis_check(self) -> Check:
        """Redis makes things faster and holds no fact alone, so without it the process still does its work."""
        if self._redis is None:
            return Check("off")
        try:
            self._redis.ping()
        except RedisError as error:
            return Check("degraded", type(error).__name__)
        return Check("healthy")


def _writer(status: Mapping[str, Any]) -> Check:
    waiting = f"{status['holds_waiting']} holds and {status['settles_waiting']} events waiting"
    return Check("healthy" if status["running"] else "down", waiting)


def _can_spool(status: Mapping[str, Any]) -> bool:
    spool = status["spool"]
    return spool is not None and not spool["is_full"]


def _spool(status: Mapping[str, Any]) -> Check:
    spool = status["spool"]
    if spool is None:
        return Check("off")
    if not spool["records"]:
        return Check("healthy", "empty")
    full = ", and it is full" if spool["is_full"] else ""
    return Check(
        "degraded", f"in use: {spool['records']} calls, the oldest file {spool['age_s']:.0f} s old{full}"
    )


def _redis() -> "Redis | None":
    if not settings.REDIS_URL:
        return None
    return Redis.from_url(
        settings.REDIS_URL,
        socket_timeout=REDIS_S_MAX,
        socket_connect_timeout=REDIS_S_MAX,
        retry=Retry(NoBackoff(), 0),  # the default retries for seconds
    )
