"""What the benchmarks run against: a private, durable PostgreSQL with our tables, and web servers beside it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import urlopen

ROOT = Path(__file__).resolve().parent.parent


@contextmanager
def postgresql() -> Iterator[str]:
    """A private PostgreSQL with fsync on, migrated; its URL."""
    from tests.local_servers import start_postgres

    with tempfile.TemporaryDirectory(prefix="tgb") as directory:
        Path(directory).chmod(0o755)  # (PostgreSQL runs as another user when we are root)
        server = start_postgres(Path(directory), durable=True)
        try:
            subprocess.run(
                [sys.executable, "manage.py", "migrate", "--verbosity=0"],
                cwd=ROOT, env={**os.environ, "DATABASE_URL": server.url}, check=True,
            )  # fmt: skip
            yield server.url
        finally:
            server.stop()


def conninfo(url: str) -> dict[str, Any]:
    """A DATABASE_URL as psycopg takes it."""
    from urllib.parse import parse_qs

    parts = urlsplit(url)
    given = {"dbname": parts.path.lstrip("/"), "user": parts.username, "password": parts.password}
    host = parts.hostname or parse_qs(parts.query).get("host", [""])[0]
    given |= {
        "host": host,
        "port": str(parts.port) if parts.port else parse_qs(parts.query).get("port", [""])[0],
    }
    return {name: value for name, value in given.items() if value}


@contextmanager
def web(application: str, env: Mapping[str, str]) -> Iterator[str]:
    """One uvicorn process on a free port; its URL."""
    from tests.local_servers import free_port

    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "uvicorn", application, "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning",
         "--no-access-log", "--loop", "uvloop", "--http", "httptools"],
        cwd=ROOT, env={**os.environ, **env},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(url: str, process: "subprocess.Popen[bytes]") -> None:
    for _ in range(600):
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with {process.returncode}")
        try:
            with urlopen(f"{url}/up", timeout=5):  # noqa: S310
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server did not come up")
