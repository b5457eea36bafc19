"""A database that can be taken away from a running server, and given back."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg

from tests.local_servers import LocalServer, new_run_directory, start_postgres
from tests.servers import Database, Databases


class Outage:
    """Takes a database away: PostgreSQL is stopped, SQLite's one write lock is held by somebody else."""

    def __init__(self, database: Database, server: LocalServer | None) -> None:
        self._database, self._server = database, server
        self._locking: sqlite3.Connection | None = None

    def begin(self) -> None:
        if self._server is not None:
            self._server.process.send_signal(signal.SIGQUIT)  # at once, every connection with it
            self._server.process.wait(timeout=30)
        else:
            self._locking = sqlite3.connect(self._database.path, isolation_level=None, timeout=60)
            self._locking.execute("begin exclusive")

    def end(self) -> None:
        """Safe to call twice."""
        if self._server is not None:
            if self._server.process.poll() is None:
                return
            assert self._server.again is not None
            self._server.process = self._server.again()
            while not self._answers():
                time.sleep(0.05)
        elif self._locking is not None:
            self._locking.execute("rollback")
            self._locking.close()
            self._locking = None

    def freeze(self) -> None:
        """PostgreSQL neither answers nor refuses: every process of it stands still."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._server is not None
        postmaster = self._server.process.pid
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for pid in (postmaster, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def _answers(self) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self._database.url):
            return True
        return False


class Mortals:
    """Fresh databases that can be taken away, one at a time: they are all on one server, and it is that which ends."""

    def __init__(self, databases: Databases, server: LocalServer | None) -> None:
        self._databases, self._server = databases, server

    def fresh(self) -> tuple[Database, Outage]:
        database = self._databases.fresh()
        return database, Outage(database, self._server)


@contextmanager
def mortal_databases(directory: Path) -> Iterator[Mortals]:
    """Such databases on the engine of this leg; on PostgreSQL on a server of their own."""
    if os.environ["TEST_ENGINE"] == "sqlite":
        with Databases(directory) as databases:
            yield Mortals(databases, None)
        return
    home = new_run_directory()  # (PostgreSQL runs as another user when we are root)
    server = start_postgres(home)
    try:
        with Databases(directory, server.url) as databases:
            yield Mortals(databases, server)
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
