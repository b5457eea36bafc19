"""The pytest plugin that decides which servers a test run talks to, before Django reads its settings.

A run has one leg, named by TEST_ENGINE:
  sqlite      (default) the embedded configuration of `make run`: SQLite, no Redis
  postgresql  the served configuration: PostgreSQL and Redis
Servers named by DATABASE_URL and REDIS_URL are used in the leg they fit; otherwise private ones are started.
TEST_REDIS_URL names the Redis in both legs, for tests of the Redis code itself.

It is loaded by `-p` and not from a conftest, since pytest-django reads the settings before any conftest is imported.
"""

from __future__ import annotations

import atexit
import os
import shutil
from pathlib import Path

import pytest

from tests.local_servers import ServerNotStarted, new_run_directory, start_postgres, start_redis

ENGINES = ("sqlite", "postgresql")
ENGINE_FIXTURES = {"db", "transactional_db", "django_db_setup", "databases"}
# Empty and not merely absent, so that a developer's .env cannot put a real account within reach of a test.
NEVER_REAL = (
    *("UPSTREAM_OPENAI_URL", "UPSTREAM_OPENAI_KEY", "UPSTREAM_ANTHROPIC_URL", "UPSTREAM_ANTHROPIC_KEY"),
    *(
        "UPSTREAM_GOOGLE_URL",
        "UPSTREAM_GOOGLE_KEY",
        "STRIPE_SECRET_KEY",
        "STRIPE_API_KEY",
        "STRIPE_WEBHOOK_SECRET",
    ),
    *("STRIPE_THIN_WEBHOOK_SECRET", "EMAIL_URL", "OPERATOR_EMAILS", "METRICS_TOKEN", "METERED_ROUTES"),
    *("CELERY_BROKER_URL", "DB_POOL"),
)


def prepare_environment() -> None:
    """Starts what this leg needs and names it in the environment. Runs once, in xdist's controller only."""
    engine = os.environ.setdefault("TEST_ENGINE", "sqlite")
    if engine not in ENGINES:
        raise pytest.UsageError(f"TEST_ENGINE={engine}: must be one of {', '.join(ENGINES)}")
    directory = new_run_directory()
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    os.environ["TEST_RUN_DIR"] = str(directory)
    for name in NEVER_REAL:
        os.environ[name] = ""
    os.environ["SPOOL_DIR"] = str(directory / "spool")
    os.environ["DEBUG"] = "false"
    os.environ["SECRET_KEY"] = os.environ["JWT_SECRET"] = "only-for-tests-" + "0123456789abcdef" * 3
    os.environ["TEST_REDIS_URL"] = _redis(directory)
    if engine == "sqlite":
        os.environ["DATABASE_URL"] = f"sqlite:///{directory / 'tollgate.sqlite3'}"
        os.environ["REDIS_URL"] = ""
    else:
        os.environ["DATABASE_URL"] = _postgres(directory)
        os.environ["REDIS_URL"] = os.environ["TEST_REDIS_URL"]


def _redis(directory: Path) -> str:
    url = os.environ.get("REDIS_URL") or os.environ.get("TEST_REDIS_URL")
    if url:
        return url
    server = start_redis(directory)
    atexit.register(server.stop)
    return server.url


def _postgres(directory: Path) -> str:
    url = os.environ.get("DATABASE_URL", "")
    if url.startswith("postgres"):
        return url
    server = start_postgres(directory)
    atexit.register(server.stop)
    return server.url


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tollgate")
    group.addoption(
        "--only-engine", action="store_true", help="only tests that touch the database: for the second leg"
    )
    group.addoption("--only-pure", action="store_true", help="only tests that touch no database")
    group.addoption(
        "--seeds",
        type=int,
        help="how many seeds a test with the argument `kill_seed` runs (10, or as its mark `kill` says)",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "kill_seed" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("kill")
        usual = mark.kwargs.get("seeds", 10) if mark is not None else 10
        metafunc.parametrize("kill_seed", range(metafunc.config.getoption("--seeds") or usual))


def needs_engine(item: pytest.Item) -> bool:
    """Whether what the test shows can differ between SQLite and PostgreSQL."""
    if item.get_closest_marker("django_db") or item.get_closest_marker("engine"):
        return True
    return bool(ENGINE_FIXTURES.intersection(getattr(item, "fixturenames", ())))


def belongs_here(item: pytest.Item) -> bool:
    """Whether the test is for this leg's engine; one marked `engine("postgresql")` says nothing about SQLite."""
    marker = item.get_closest_marker("engine")
    return marker is None or not marker.args or os.environ["TEST_ENGINE"] in marker.args


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    only_engine, only_pure = config.getoption("--only-engine"), config.getoption("--only-pure")
    kept = [item for item in items if belongs_here(item)]
    if only_engine or only_pure:
        kept = [item for item in kept if needs_engine(item) is bool(only_engine)]
    if len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept


def pytest_report_header() -> str:
    return f"tollgate: {os.environ['TEST_ENGINE']} at {os.environ['DATABASE_URL']}, redis at {os.environ['TEST_REDIS_URL']}"


if "PYTEST_XDIST_WORKER" not in os.environ:
    try:
        prepare_environment()
    except ServerNotStarted as error:
        raise pytest.UsageError(str(error)) from error
