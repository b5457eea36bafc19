"""Asks an ASGI application one thing and collects the answer."""

from dataclasses import dataclass
from typing import Any

import anyio
import msgspec
from starlette.types import ASGIApp, Message


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


async def ask(
    app: ASGIApp, path: str, *, method: str = "GET", headers: dict[str, str] | None = None
) -> Answer:
    """The whole answer to one request without a body."""
    sent: list[Message] = []

    asked: list[bool] = []

    async def receive() -> Message:
        if asked:
            await anyio.sleep_forever()  # the client stays, and sends nothing more
        asked.append(True)
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {
        "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
        "headers": raw, "root_path": "", "http_version": "1.1", "scheme": "http",
    }  # fmt: skip
    await app(scope, receive, send)
    start = next(message for message in sent if message["type"] == "http.response.start")
    body = b"".join(message.get("body", b"") for message in sent)
    return Answer(start["status"], {name.decode(): value.decode() for name, value in start["headers"]}, body)
