"""Settings as a process of its own reads them."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers import ROOT

NAMES = (
    "DATABASES",
    "CELERY_BROKER_URL",
    "REDIS_URL",
    "ALLOWED_HOSTS",
    "SECRET_KEY",
    "SESSION_COOKIE_SECURE",
    "TOLLGATE",
)
PRINT = f"""
import json, sys
from project import settings
json.dump({{name: getattr(settings, name) for name in {NAMES}}}, sys.stdout, default=str)
"""


def read(tmp_path: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    base = {"VAR_DIR": str(tmp_path), "PATH": "", "DATABASE_URL": "", "REDIS_URL": ""}
    return subprocess.run(
        [sys.executable, "-c", PRINT],
        cwd=ROOT,
        env=base | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def values(tmp_path: Path, **environment: str) -> dict[str, Any]:
    done = read(tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_nothing_needs_to_be_set(tmp_path: Path) -> None:
    found = values(tmp_path)
    database = found["DATABASES"]["default"]
    assert (database["ENGINE"], database["NAME"]) == (
        "metering.sqlite_backend",
        f"{tmp_path}/tollgate.sqlite3",
    )
    assert found["CELERY_BROKER_URL"].startswith("filesystem://")
    assert (tmp_path / "celery" / "queue").is_dir()
    assert found["ALLOWED_HOSTS"] == ["localhost", "127.0.0.1", "[::1]", "127.0.0.1"]


def test_a_generated_key_stays_the_same_and_is_its_owners_alone(tmp_path: Path) -> None:
    assert values(tmp_path)["SECRET_KEY"] == values(tmp_path)["SECRET_KEY"]
    assert (tmp_path / "secret_key").stat().st_mode & 0o777 == 0o600


def test_servers_are_named_by_url(tmp_path: Path) -> None:
    found = values(
        tmp_path,
        DATABASE_URL="postgres://user@/tollgate?host=/run/pg",
        REDIS_URL="redis://cache:6379",
        DB_POOL="4",
    )
    database = found["DATABASES"]["default"]
    assert database["ENGINE"] == "django.db.backends.postgresql"
    assert (
        database["OPTIONS"].items() >= {"host": "/run/pg", "pool": {"min_size": 1, "max_size": 4 + 4}}.items()
    )
    assert database["OPTIONS"]["connect_timeout"] > 0 and database["OPTIONS"]["tcp_user_timeout"] > 0
    assert found["REDIS_URL"] == found["CELERY_BROKER_URL"] == "redis://cache:6379/2"


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"REDIS_HOST": "cache"}, "redis://cache:6379/2"),
        ({"REDIS_HOST": "cache", "REDIS_PORT": "7000", "REDIS_DB": "5"}, "redis://cache:7000/5"),
        ({"REDIS_URL": "redis://:password@cache:6379/7"}, "redis://:password@cache:6379/7"),
        ({"REDIS_URL": "unix:///run/redis.sock"}, "unix:///run/redis.sock"),
        ({}, ""),
    ],
)
def test_redis_is_named_by_url_or_by_host(tmp_path: Path, environment: dict[str, str], url: str) -> None:
    assert values(tmp_path, **environment)["REDIS_URL"] == url


def test_who_pays_is_a_list_of_shares(tmp_path: Path) -> None:
    chosen = values(tmp_path, WHO_PAYS="cached=0.5, unanswered=1,parts=served")["TOLLGATE"]["WHO_PAYS"]
    assert chosen == {"cached": "0.5", "unanswered": "1", "parts": "served"}
    assert values(tmp_path)["TOLLGATE"]["WHO_PAYS"] == {}


def test_https_makes_cookies_secure(tmp_path: Path) -> None:
    assert values(tmp_path, HTTPS="true")["SESSION_COOKIE_SECURE"] is True


def test_an_open_address_answers_to_any_name(tmp_path: Path) -> None:
    assert values(tmp_path, HOST="0.0.0.0")["ALLOWED_HOSTS"] == ["*"]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PORT": "http"}, "PORT='http'"),
        ({"SECRET_KEY": "short"}, "SECRET_KEY(5 characters)"),
        ({"JWT_SECRET": f"{'x' * 40},short"}, "JWT_SECRET(5 characters)"),
        ({"CURRENCY": "usd"}, "CURRENCY='usd'"),
        ({"DATABASE_URL": "oracle://host/name"}, "DATABASE_URL=oracle://"),
        ({"WHO_PAYS": "cached=2"}, "WHO_PAYS='cached=2'"),
        ({"WHO_PAYS": "cashed=1"}, "'cashed' is none of unanswered"),
        ({"WHO_PAYS": "cached"}, "cached='' is no number"),
    ],
)
def test_a_wrong_value_stops_the_start(tmp_path: Path, environment: dict[str, str], said: str) -> None:
    done = read(tmp_path, **environment)
    assert done.returncode != 0
    assert said in done.stderr.splitlines()[-1]
