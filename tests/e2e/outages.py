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
        if self._server is not None:
            assert self._server.again is not None
            self._server.process = self._server.again()
            while not self._answers():
                time.sleep(0.05)
        elif self._locking is not None:
            self._locking.execute("rollback")
            self._locking.close()

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


@contextmanager
def mortal_database(directory: Path) -> Iterator[tuple[Database, Outage]]:
    """A fresh database on a server of its own, on the engine of this leg."""
    if os.environ["TEST_ENGINE"] == "sqlite":
        with Databases(directory) as databases:
            database = databases.fresh()
            yield database, Outage(database, None)
        return
    home = new_run_directory()  # (PostgreSQL runs as another user when we are root)
    server = start_postgres(home)
    try:
        with Databases(directory, server.url) as databases:
            database = databases.fresh()
            yield database, Outage(database, server)
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)
