"""Fixtures that tests of several parts share."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import Database, Databases, WebProcess, start_web as start_web_process

# Nothing is judged by the wall clock; a slow machine is not a failure.
settings.register_profile("tollgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tollgate")


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio, which is what the product runs on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _real_time() -> Iterator[None]:
    """No test leaves its moved clock to the next one."""
    yield
    clock = sys.modules.get("pricing.clock")
    if clock is not None:  # a test that never loaded the clock cannot have moved it
        clock.set_offset(timedelta(0))


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None, django_db_blocker: Any) -> None:
    """The test database. SQLite empties a table by deleting its rows, which the ledger's own trigger refuses."""
    from django.db import connection

    with django_db_blocker.unblock():
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute("drop trigger billing_entries_stay")
        else:
            connection.ops.sql_flush = _delete_what_is_there  # type: ignore[method-assign]


def _delete_what_is_there(
    style: Any, tables: Sequence[str], *, reset_sequences: bool = False, allow_cascade: bool = False
) -> list[str]:
    """How a test's rows are removed on PostgreSQL. TRUNCATE makes new files for every table, ten times as slow as this."""
    from django.db import connection

    names = [connection.ops.quote_name(table) for table in tables]
    with connection.cursor() as cursor:
        cursor.execute("select " + ", ".join(f"exists(select 1 from {name})" for name in names))
        filled = [name for name, is_filled in zip(names, cursor.fetchone() or (), strict=True) if is_filled]
    if not filled:
        return []
    # No trigger and no foreign key has a say in that role.
    role = "set local session_replication_role = "
    return [f"{role}replica;", *(f"delete from {name};" for name in filled), f"{role}origin;"]


@pytest.fixture
def redis_url() -> str:
    """A real Redis in both legs; the tests may empty it."""
    return os.environ["TEST_REDIS_URL"]


@pytest.fixture(scope="session")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """Makes fresh databases for started servers, on the engine of this leg."""
    with Databases(tmp_path_factory.mktemp("databases")) as made:
        yield made


@pytest.fixture
def start_web(databases: Databases) -> Iterator[Callable[..., WebProcess]]:
    """Starts web processes: `start_web()` on a fresh database, `start_web(web.database)` on the same again."""
    started: list[WebProcess] = []

    def start(database: Database | None = None, **options: Any) -> WebProcess:
        web = start_web_process(database or databases.fresh(), **options)
        started.append(web)
        return web

    yield start
    for web in started:
        web.kill()


@pytest.fixture(scope="session")
def web(databases: Databases) -> Iterator[WebProcess]:
    """One started server that tests share which neither break it nor count what others wrote."""
    process = start_web_process(databases.fresh())
    yield process
    process.stop()


@pytest.fixture(scope="session")
def project_root() -> Path:
    """The checkout."""
    return Path(__file__).resolve().parent.parent
