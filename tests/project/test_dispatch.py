"""Who answers which path, and what runs beside."""

import asyncio
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from project.dispatch import Dispatch
from tests.project.asgi import ask

pytestmark = pytest.mark.anyio


def says(name: str) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": name.encode()})

    return app


class Beside:
    """Work beside the requests; `warm` once started, unless it is `cold`."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def start(self) -> None:
        self.events.append("start")

    def stop(self) -> None:
        self.events.append("stop")


def dispatch(beside: Beside) -> Dispatch:
    return Dispatch(
        gateway=says("gateway"), operations=says("operations"), static=says("static"), django=says("django"),
        background=beside, warm=lambda: "start" in beside.events,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/v1/execute", "gateway"), ("/v1/chat/completions", "gateway"), ("/v1/messages", "gateway"),
        ("/v1/models/gemini-2.5-pro:generateContent", "gateway"), ("/v1beta/models/x:streamGenerateContent", "gateway"),
        ("/v1beta/models/x:countTokens", "django"), ("/v1beta/models", "django"),
        ("/healthz", "operations"), ("/metrics", "operations"), ("/static/tollgate/portal.css", "static"),
        ("/v1/execute/", "django"), ("/v1/billing/usage", "django"), ("/admin/", "django"), ("/", "django"),
    ],
)  # fmt: skip
async def test_each_path_has_one_owner(path: str, owner: str) -> None:
    assert (await ask(dispatch(Beside()), path)).body.decode() == owner


async def test_what_runs_beside_starts_before_the_first_request_and_stops_after_the_last() -> None:
    beside = Beside()
    started, stop = asyncio.Event(), asyncio.Event()

    async def receive() -> Any:
        await stop.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None:
        beside.events.append(message["type"])
        started.set()

    serving = asyncio.create_task(dispatch(beside)({"type": "lifespan"}, receive, send))
    await started.wait()
    stop.set()
    await serving
    assert beside.events == ["start", "lifespan.startup.complete", "stop"]
