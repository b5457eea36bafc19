"""The answer to one metered call on its way from the application to the client.

It passes every message on at once, except: the start waits for the first body message (when that is also the last one, the
usage headers go out with it), and what completes the answer waits for the commit: the message that completes the announced
content-length, everything from the wire format's terminal event on, or the last frame.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from metering.call import Call, admission_headers, usage_headers
from metering.deadline import Deadline
from metering.ids import text_of
from metering.meter import Meter, Settlement
from metering.problem import Fields
from metering.rows import EventRow, Status
from metering.tap import Tap, open_tap

log = logging.getLogger("metering.answer")

RATE_HEADERS = frozenset({b"ratelimit", b"ratelimit-policy"})
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Receive, Send], Awaitable[None]]


class MeteredResponse:
    """State of one answer. Made for one call, used once."""

    def __init__(
        self,
        meter: Meter,
        call: Call,
        receive: Receive,
        send: Send,
        replay: list[Message],
        *,
        request_complete: bool,
    ) -> None:
        self.call = call
        self._meter, self._receive, self._send = meter, receive, send
        self._replay = replay[::-1]
        self._request_complete = request_complete
        self._began = time.perf_counter()
        self._latency_ms: int | None = None
        self._start: Message | None = None  # held until the first body message
        self._start_sent = False
        self._status_code: int | None = None
        self._tap: Tap | None = None
        self._expected: int | None = None
        self._seen = 0
        self._settlement: Settlement | None = None
        self._client_gone = self._draining = False
        self._watch: asyncio.Task[None] | None = None
        self._deadline: Deadline | None = None

    async def run(self, app: ASGIApp, scope: Any) -> None:
        """Run the application to its end, and settle whatever came of it."""
        status: Status = "ok"
        try:
            with Deadline() as self._deadline:
                await app(scope, self.receive, self.send)
            status = "client_disconnected" if self._client_gone else "interrupted"  # where no end was seen
        except TimeoutError:
            status = "client_disconnected" if self._client_gone else "timeout"
            if not self._deadline or not self._deadline.expired:
                status = "error"
                raise
        except asyncio.CancelledError:
            status = "interrupted"
            raise
        except Exception:
            status = "error"
            raise
        finally:
            if self._watch is not None:
                self._watch.cancel()
            if self._draining:
                self._meter.drains.leave(self.call.account.customer_id)
            await self._settle(status, complete=False)

    async def settle_interrupted(self) -> None:
        """At shutdown: settle with what has been seen so far."""
        await self._settle("interrupted", complete=False)

    async def receive(self) -> Message:
        """The request as the application sees it: a disconnect after the whole request is kept from it."""
        if self._replay:
            return self._replay.pop()
        if not self._request_complete:
            message = await self._receive()
            self._request_complete = not message.get("more_body", False)
            return message
        if not self.call.route.drain:
            message = await self._receive()
            self._client_gone = message["type"] == "http.disconnect"
            return message
        self._watch_client()
        await asyncio.get_running_loop().create_future()  # for ever; the application's own end cancels it
        raise AssertionError("unreachable")

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.body":
            await self._body(message)
        elif kind == "http.response.start":
            self._open(message)
        else:
            await self._forward(message)

    def _open(self, start: Message) -> None:
        self._start, self._status_code = start, start["status"]
        content_type = encoding = ""
        for name, value in start.get("headers", ()):
            lowered = name.lower()
            if lowered == b"content-type":
                content_type = value.decode("latin-1")
            elif lowered == b"content-encoding":
                encoding = value.decode("latin-1")
            elif lowered == b"content-length" and value.isdigit():
                self._expected = int(value)
            elif lowered == b"x-usage":
                self._meter.take_header(self.call, value.decode("latin-1"))
        call = self.call
        self._tap = open_tap(
            self._meter.format_of(call.route), call.facts, call.route.provider, content_type, encoding,
            good=start["status"] < 400,
        )  # fmt: skip

    async def _body(self, message: Message) -> None:
        if self._settlement is not None:  # after the terminal event
            await self._settlement.committed()
            await self._forward(message)
            return
        chunk = message.get("body", b"")
        if type(chunk) is not bytes:  # a memoryview is allowed
            chunk = bytes(chunk)
        more: bool = message.get("more_body", False)
        waits_from = -1
        if chunk:
            self._seen += len(chunk)
            if self._latency_ms is None:
                self._latency_ms = self._elapsed_ms()
            if self._tap is not None:
                waits_from = self._read(chunk)
        if not more or (self._expected is not None and self._seen >= self._expected):
            await self._finish(message)
        elif waits_from >= 0:
            if waits_from > 0 and self._start_sent:
                await self._forward(
                    {"type": "http.response.body", "body": chunk[:waits_from], "more_body": True}
                )
                message = {"type": "http.response.body", "body": chunk[waits_from:], "more_body": True}
            await self._finish(message)
        else:
            if not self._start_sent:
                await self._send_start(None)
                self._watch_client()
                self._limit(self._meter.stream_s_max)
            await self._forward(message)

    def _read(self, chunk: bytes) -> int:
        """Where in the chunk the end begins, or -1. A failure costs the usage, never the answer."""
        try:
            return self._tap.feed(chunk) if self._tap is not None else -1
        except Exception:
            log.exception("the answer to call %s cannot be read any further", self.call.id)
            self._tap = None
            return -1

    async def _finish(self, message: Message) -> None:
        """Commit, then let the end of the answer go."""
        row = await self._settle(
            "client_disconnected" if self._client_gone else _status_of(self._status_code), complete=True
        )
        if not self._start_sent:
            await self._send_start(row)
        await self._forward(message)

    async def _settle(self, status: Status, *, complete: bool) -> EventRow:
        """Settle once, whoever asks first, and wait for the commit."""
        if self._settlement is None:
            self._settlement = self._meter.settle(
                self.call, self._tap, complete=complete, status=status,
                status_code=self._status_code or _code_of(status),
                latency_ms=self._latency_ms, execution_ms=self._elapsed_ms(),
            )  # fmt: skip
        return await self._settlement.committed()

    async def _send_start(self, row: EventRow | None) -> None:
        start, call = self._start, self.call
        self._start_sent = True
        if start is None:
            return
        headers = [
            *_besides(call.account.rate_headers, start.get("headers", ())),
            (b"x-request-id", call.request_id.encode()),
            (b"x-usage-event", text_of(row.id if row is not None else call.id).encode()),
            *admission_headers(call),
        ]
        if row is not None:
            headers += usage_headers(row, shows_cost=call.account.shows_cost)
        await self._forward({**start, "headers": headers})

    async def _forward(self, message: Message) -> None:
        if self._client_gone:
            return
        try:
            await self._send(message)
        except Exception as error:  # noqa: BLE001  servers differ in what they raise once the client has gone
            log.debug("client of call %s has gone: %r", self.call.id, error)
            self._client_left()

    def _watch_client(self) -> None:
        if self._watch is None and self._request_complete and self.call.route.drain:
            self._watch = asyncio.create_task(self._wait_for_disconnect())

    async def _wait_for_disconnect(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._client_left()

    def _client_left(self) -> None:
        """The client has gone: read on for the provider's usage, within bounds."""
        if self._client_gone or self._settlement is not None:
            return
        self._client_gone = True
        drains = self._meter.drains
        self._draining = self.call.route.drain and drains.enter(self.call.account.customer_id)
        self._limit(drains.seconds_max if self._draining else 0.0)

    def _limit(self, seconds: float) -> None:
        """Let the application run for so long at the most."""
        if self._deadline is not None:
            self._deadline.limit(seconds)

    def _elapsed_ms(self) -> int:
        return int((time.perf_counter() - self._began) * 1000)


def _besides(rates: Fields, headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
    """The application's headers with what is left of the caller's rate limits, instead of what its provider says of ours."""
    return [*(one for one in headers if one[0].lower() not in RATE_HEADERS), *rates] if rates else headers


def _status_of(status_code: int | None) -> Status:
    return "ok" if status_code is not None and status_code < 400 else "error"


def _code_of(status: Status) -> int | None:
    """The code of an answer that never started: what the server will say for the application, or nothing."""
    return 500 if status == "error" else None
