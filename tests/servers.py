"""Real web processes for tests from outside: `uvicorn project.asgi:application` on a free port, with a database of its own.

    with Databases(directory) as databases:
        web = start_web(databases.fresh())
        httpx.get(f"{web.url}/healthz")
        web.kill()                                # SIGKILL, as a machine would do it
        web = start_web(web.database)             # the same database again

Every fresh database is a copy of one that is migrated and seeded once a session (`tests.seed`).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit, urlunsplit

import httpx
import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from tests.local_servers import die_with_parent, free_port

ROOT = Path(__file__).resolve().parent.parent
READY_SECONDS = 120.0
STOP_SECONDS = 60.0


class ProcessFailed(RuntimeError):
    """A process of the product did not do what it was started for; the message ends with its output."""


@dataclass(frozen=True)
class Seed:
    """What a fresh database holds: customers, the plaintext of an API key of each, and an operator's token. The customer
    `prepaid` is refused what its credits do not cover, and has none."""

    customer_id: str
    api_key: str
    other_customer_id: str
    other_api_key: str
    prepaid_api_key: str
    operator_token: str


@dataclass(frozen=True)
class Database:
    """A migrated and seeded database: its URL as DATABASE_URL takes it, and what it was seeded with."""

    url: str
    seed: Seed

    @property
    def is_postgresql(self) -> bool:
        return self.url.startswith("postgres")

    @property
    def path(self) -> Path:
        """The file of a SQLite database."""
        return Path(self.url.removeprefix("sqlite:///"))

    def rows(self, query: str) -> list[dict[str, Any]]:
        """The rows of a query, past the product. Each call reads what is committed by then."""
        if self.is_postgresql:
            with psycopg.connect(self.url, autocommit=True, row_factory=dict_row) as connection:
                return connection.execute(query.encode()).fetchall()
        with closing(sqlite3.connect(f"{self.path.as_uri()}?mode=ro", uri=True)) as file:
            file.row_factory = sqlite3.Row
            return [dict(row) for row in file.execute(query)]


class Databases:
    """Makes fresh databases on the leg's engine, all copies of one template, and drops them at the end."""

    def __init__(self, directory: Path, url: str | None = None) -> None:
        self._directory = directory
        self._base_url = url or os.environ["DATABASE_URL"]
        self._template: Database | None = None
        self._made: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._base_url.startswith("postgres"):
            with psycopg.connect(self._base_url, autocommit=True) as connection:
                for name in self._made:
                    connection.execute(
                        sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
                    )

    def fresh(self) -> Database:
        """A database that nobody has written to since it was seeded."""
        template = self._seeded_template()
        return Database(self._copy_of(template), template.seed)

    def _seeded_template(self) -> Database:
        if self._template is None:
            url = self._empty()
            answer = manage(url, "-m", "tests.seed")
            self._template = Database(url, Seed(**json.loads(answer.splitlines()[-1])))
        return self._template

    def _empty(self) -> str:
        if self._base_url.startswith("postgres"):
            return self._create_postgresql(sql.SQL(""))
        return f"sqlite:///{self._new_file()}"

    def _copy_of(self, template: Database) -> str:
        if template.is_postgresql:
            source = urlsplit(template.url).path.lstrip("/")
            return self._create_postgresql(sql.SQL("TEMPLATE {}").format(sql.Identifier(source)))
        target = self._new_file()
        shutil.copyfile(template.path, target)
        return f"sqlite:///{target}"

    def _new_file(self) -> Path:
        self._made.append("file")
        directory = self._directory / f"database-{len(self._made)}"
        directory.mkdir(parents=True)
        return directory / "tollgate.sqlite3"

    def _create_postgresql(self, source: sql.Composable) -> str:
        name = f"web_{os.getpid()}_{len(self._made)}"
        with psycopg.connect(self._base_url, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), source))
        self._made.append(name)
        return urlunsplit(urlsplit(self._base_url)._replace(path=f"/{name}"))


def environment(database_url: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a process of the product: that of the tests, with this database and a spool for it alone."""
    return {
        **os.environ,
        "DATABASE_URL": database_url,
        "SPOOL_DIR": str(spool_of(database_url)),
        "DJANGO_SETTINGS_MODULE": "project.settings",
        "PYTHONPATH": str(ROOT),
        **(extra or {}),
    }


def spool_of(database_url: str) -> Path:
    """Where the processes on this database spool. Another database's would drain it into its own."""
    return Path(os.environ["TEST_RUN_DIR"]) / "spool" / sha256(database_url.encode()).hexdigest()[:16]


def manage(database_url: str, *arguments: str, env: Mapping[str, str] | None = None) -> str:
    """Runs `python <arguments>` (`manage.py migrate`, `-m tests.seed`) on a database; answers what it printed.

    Raises ProcessFailed with the output when the command does not end with 0.
    """
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(database_url, env),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ProcessFailed(
            f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
        )
    return done.stdout


class WebProcess:
    """A running web server. `url` has no slash at the end."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, database: Database, log: Path) -> None:
        self.process = process
        self.url = url
        self.database = database
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """Everything that the process printed so far."""
        return self.log.read_text(errors="replace")

    def client(self, *, api_key: str | None = None) -> httpx.Client:
        """An HTTP client with the seeded customer's key, or the one given (`""` for none)."""
        key = self.database.seed.api_key if api_key is None else api_key
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30)

    def stop(self) -> int:
        """Asks the server to end (SIGTERM), as a deployment does, and answers its exit code. Safe to call twice."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=STOP_SECONDS)
            except subprocess.TimeoutExpired as error:
                self.kill()
                raise ProcessFailed(
                    f"the web process did not stop in {STOP_SECONDS} s:\n{self.output}"
                ) from error
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL to the server and its workers, and waits until they are gone."""
        self._signal(signal.SIGKILL)
        self.process.wait()

    def pause(self) -> None:
        """Stops the process where it is (SIGSTOP), as a paused virtual machine would be."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)


def start_web(
    database: Database,
    env: Mapping[str, str] | None = None,
    *,
    workers: int = 1,
    options: Sequence[str] = (),
    application: str = "project.asgi:application",
    wait: bool = True,
) -> WebProcess:
    """Starts a web server on `database` and waits until /readyz says 200 (unless `wait` is off).

    `options` are further options of uvicorn, `env` further variables. Raises ProcessFailed with the server's output.
    """
    port = free_port()
    log = _log_file(port)
    command = [sys.executable, "-m", "uvicorn", application, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--log-level", "warning", "--no-access-log", "--workers", str(workers), *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(database.url, env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=die_with_parent(signal.SIGKILL),
        )
    web = WebProcess(process, f"http://127.0.0.1:{port}", database, log)
    if wait:
        wait_until_ready(web)
    return web


def wait_until_ready(web: WebProcess) -> None:
    """Returns when /readyz answers 200. Raises ProcessFailed when the process ends, or is not ready in time."""
    deadline = time.monotonic() + READY_SECONDS
    last = "no answer"
    while time.monotonic() < deadline:
        if web.process.poll() is not None:
            raise ProcessFailed(f"the web process ended with {web.process.returncode}:\n{web.output}")
        try:
            answer = httpx.get(f"{web.url}/readyz", timeout=5)
        except httpx.TransportError:
            time.sleep(0.05)
            continue
        if answer.status_code == 200:
            return
        last = answer.text
        time.sleep(0.05)
    web.kill()
    raise ProcessFailed(f"not ready in {READY_SECONDS} s: {last}\n{web.output}")


def _log_file(port: int) -> Path:
    directory = Path(os.environ["TEST_RUN_DIR"]) / "web"
    directory.mkdir(parents=True, exist_ok=True)
    return directory / f"{os.getpid()}-{port}-{time.monotonic_ns()}.log"
