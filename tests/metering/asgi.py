"""A client and a server in a few lines: drives an ASGI application and notes what was in the books when each message left."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from metering.gate import Gate, OpenGate
from metering.meter import Meter
from metering.middleware import MeteringMiddleware
from metering.recorder import Recorder
from metering.routes import DEFAULT_ROUTES, Route, RouteTable
from metering.rows import EventRow
from metering.store.memory import MemoryStore
from pricing.pricelist import CurrentCard, Rate, RateCard
from tests.metering.rows import NOON

App = Callable[[Any, Any, Any], Awaitable[None]]


def a_card() -> RateCard:
    """demo-small at 1 and 2 dollars a million tokens in the book `cost`, at 2 and 4 in `list`; gpt-5-mini and claude alike."""
    rates = [
        Rate(
            id=number, book=book, provider=provider, model=model, bucket=bucket, price=Decimal(price), per=1_000_000,
            currency="USD", effective_from=datetime(2025, 1, 1, tzinfo=UTC),
        )
        for number, (book, provider, model, bucket, price) in enumerate(
            (
                (book, provider, model, bucket, price * factor)
                for book, factor in (("cost", 1), ("list", 2))
                for provider, model in (("demo", "demo-small"), ("openai", "gpt-5-mini"), ("anthropic", "claude-sonnet-4-5"))
                for bucket, price in (("in_uncached", 1), ("out_visible", 2))
            ),
            start=1,
        )
    ]  # fmt: skip
    return RateCard.compile(rates, {}, version=1)


class Bench:
    """A metered application with its books in memory."""

    def __init__(
        self, app: App, *, routes: Sequence[Route] = DEFAULT_ROUTES, gate: Gate | None = None, **options: Any
    ) -> None:
        self.store = MemoryStore()
        gate = gate or OpenGate()
        card = CurrentCard()
        card.card = a_card()
        self.recorder = Recorder(self.store, gate)
        self.meter = Meter(
            gate=gate,
            recorder=self.recorder,
            card=card,
            routes=RouteTable.compile(routes),
            now=lambda: NOON,
            **options,
        )
        self.app = MeteringMiddleware(app, self.meter)

    @property
    def event(self) -> EventRow:
        (event,) = self.store.events.values()
        return event


class Exchange:
    """One request and what came back. `events_when` holds, for each message sent, how many events were committed by then."""

    def __init__(
        self, bench: Bench, path: str, body: bytes, headers: dict[str, str], method: str = "POST"
    ) -> None:
        self.bench, self.body = bench, body
        self.sent: list[Any] = []
        self.events_when: list[int] = []
        self.left = asyncio.Event()
        self.leave_after: int | None = None  # the client goes away after so many messages
        self.refuses = False  # the server raises once the client has gone
        self._asked = False
        self.scope = {
            "type": "http", "method": method, "path": path, "query_string": b"", "extensions": {"http.response.pathsend": {}},
            "headers": [(name.encode(), value.encode()) for name, value in {"content-type": "application/json", **headers}.items()],
        }  # fmt: skip

    async def receive(self) -> Any:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self.body, "more_body": False}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self.left.is_set() and self.refuses:
            raise OSError("the client has gone")
        self.sent.append(message)
        self.events_when.append(len(self.bench.store.events))
        if self.leave_after is not None and len(self.sent) >= self.leave_after:
            self.left.set()
            await asyncio.sleep(0)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[str, str]:
        return {name.decode().lower(): value.decode() for name, value in self.sent[0]["headers"]}

    @property
    def content(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def exchange(
    bench: Bench, body: bytes = b"{}", path: str = "/v1/chat/completions", *, headers: dict[str, str] | None = None,
    leave_after: int | None = None, refuses: bool = False, method: str = "POST",
) -> Exchange:  # fmt: skip
    """One request to `bench`, to its end."""

    async def main() -> Exchange:
        made = Exchange(bench, path, body, headers or {}, method)
        made.leave_after, made.refuses = leave_after, refuses
        try:
            await bench.app(made.scope, made.receive, made.send)
        finally:
            await bench.recorder.stop()
        return made

    return asyncio.run(main())


def answering(
    body: bytes, *, status: int = 200, content_type: str = "application/json", **headers: str
) -> App:
    """An application that answers at once, with a content-length."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        given = {"content-type": content_type, "content-length": str(len(body)), **headers}
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})

    return app


def streaming(
    chunks: Sequence[bytes],
    *,
    content_type: str = "text/event-stream",
    pause: bool = False,
    fail: bool = False,
) -> App:
    """An application that streams; with `pause` it gives way between chunks, with `fail` it raises before the end."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", content_type.encode())],
            }
        )
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if pause:
                await asyncio.sleep(0.001)
        if fail:
            raise RuntimeError("the application breaks off")
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    return app
