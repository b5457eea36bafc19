"""Serve an ASGI application on a free port of this machine, in a thread of the test's own process."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from tests.upstream.double import Call, Double

START_SECONDS, STOP_SECONDS = 60.0, 60.0


class ServerNotStarted(RuntimeError):
    """The server in the thread did not come up; its own log says why."""


@contextmanager
def serving(app: Any, *, lifespan: bool = False) -> Iterator[str]:
    """The URL at which `app` answers, without a slash at the end. Stops the server on the way out."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        config = uvicorn.Config(
            app, log_level="critical", access_log=False, ws="none", lifespan="on" if lifespan else "off",
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(STOP_SECONDS)


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise ServerNotStarted
        time.sleep(0.005)


class RunningUpstream:
    """The double while it is served."""

    def __init__(self, url: str, double: Double) -> None:
        self.url, self.double = url, double

    @property
    def calls(self) -> list[Call]:
        return self.double.calls

    @property
    def last(self) -> Call:
        """The latest call."""
        return self.double.calls[-1]

    def forget(self) -> None:
        self.double.forget()


@contextmanager
def upstream_server(pause_s: float = 0.02) -> Iterator[RunningUpstream]:
    """A fresh double on a free port."""
    double = Double(pause_s)
    with serving(double) as url:
        yield RunningUpstream(url, double)
