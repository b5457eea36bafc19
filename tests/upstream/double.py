"""`Double`: the ASGI application behind the upstream server. It keeps a record of every call that reached it."""

import asyncio
import contextlib
import gzip
import json
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from starlette.types import Receive, Scope, Send

from tests.upstream import wire
from tests.upstream.faults import HEADER, Fault, fault_of
from tests.upstream.wire import Answer, Json

CALLER_HEADER = "x-call-id"
USAGE_HEADER = "x-double-usage"  # the usage object that the double shall report, as JSON
PAUSE_HEADER = "x-pause"  # seconds
_ERRORS = {
    Fault.RATE_LIMITED: 429, Fault.BROKEN: 500, Fault.OVERLOADED: 529, Fault.WRONG_KEY: 401, Fault.REDIRECT: 307
}  # fmt: skip
_GARBAGE = b'<html>\xff\xfe no JSON here: {{{\n\ndata: {"usage": [[[\n\n\x00'


class Broken(ConnectionError):
    """Raised to make the server drop the connection in the middle of an answer."""


@dataclass
class Call:
    """One request that reached the upstream, and how far its answer came."""

    number: int
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes
    fault: Fault = Fault.NONE
    document: Json = field(default_factory=dict)
    caller: str = ""  # header x-call-id, else the body's `user` or `metadata.user_id`
    answered: bytes = b""  # what was sent of the body
    finished: bool = False  # the answer was sent to its end

    def header(self, name: str) -> str | None:
        return next((value for found, value in self.headers if found == name), None)

    @property
    def model(self) -> Any:
        """The model asked for: at Google the path names it."""
        at_google = wire.google_path(self.path)
        return at_google[0] if at_google is not None else self.document.get("model")

    @property
    def streams(self) -> bool:
        at_google = wire.google_path(self.path)
        return (
            at_google[1] == "streamGenerateContent"
            if at_google is not None
            else self.document.get("stream") is True
        )

    def summary(self) -> Json:
        return {
            "number": self.number, "path": self.path, "caller": self.caller, "model": self.model,
            "fault": self.fault.value, "finished": self.finished,
        }  # fmt: skip


class Double:
    """Speaks the pass-through paths of all three providers. `GET /_calls` lists the calls, `DELETE /_calls` forgets them."""

    def __init__(self, pause_s: float = 0.02) -> None:
        self.pause_s = pause_s
        self._calls: list[Call] = []
        self._count = self._running = 0
        self.most_at_once = 0  # calls that were being answered at the same time, at the most
        self._lock = Lock()

    @property
    def calls(self) -> list[Call]:
        """The calls so far, in the order in which they came."""
        with self._lock:
            return list(self._calls)

    def forget(self) -> None:
        """Start the record anew; numbers go on."""
        with self._lock:
            self._calls.clear()
            self.most_at_once = self._running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError("the double speaks HTTP only")
        if scope["path"] == "/_calls":
            return await self._tell(scope["method"], send)
        call = await self._record(scope, receive)
        if wire.service(call.path) not in wire.SERVICES or scope["method"] != "POST":
            return await _Reply(call, send).whole(404, {"error": {"message": "no such path"}})
        self._runs(1)
        try:
            await self._answer(call, _Reply(call, send))
        finally:
            self._runs(-1)

    def _runs(self, more: int) -> None:
        with self._lock:
            self._running += more
            self.most_at_once = max(self.most_at_once, self._running)

    async def _tell(self, method: str, send: Send) -> None:
        told: Any = [call.summary() for call in self.calls]
        if method == "DELETE":
            self.forget()
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/json")],
            }
        )
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})

    async def _record(self, scope: Scope, receive: Receive) -> Call:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        with self._lock:
            self._count += 1
            call = Call(self._count, scope["path"], scope["query_string"].decode("latin-1"), headers, body)
            with contextlib.suppress(ValueError):
                call.document = json.loads(body)
            call.fault = fault_of(call.header(HEADER) or "", call.model)
            call.caller = call.header(CALLER_HEADER) or _user_of(call.document)
            self._calls.append(call)
        return call

    async def _answer(self, call: Call, reply: "_Reply") -> None:
        fault = call.fault
        if fault is Fault.HANG:
            await asyncio.Event().wait()
        if fault in _ERRORS:
            return await reply.error(_ERRORS[fault])
        if not isinstance(call.model, str):
            return await reply.whole(400, wire.error(call.path, 400, "you must provide a model parameter"))
        answer = _answer_for(call)
        reply.pause_s = float(call.header(PAUSE_HEADER) or self.pause_s) if fault is Fault.SLOW else 0.0
        if call.streams:
            return await reply.stream(wire.events(call.path, answer))
        return await reply.whole(200, wire.whole(call.path, answer))


def _answer_for(call: Call) -> Answer:
    given = json.loads(call.header(USAGE_HEADER) or "null")
    options = call.document.get("stream_options") or {}
    return Answer(
        number=call.number,
        model=call.model,
        usage=None if call.fault is Fault.NO_USAGE else wire.usage_for(call.path, given),
        include_usage=options.get("include_usage") is True,
        array="alt=sse" not in call.query.split("&"),
        padding={"padding": wire.HUGE} if call.fault is Fault.HUGE else {},
    )


def _user_of(document: Json) -> str:
    metadata = document.get("metadata")
    return str(document.get("user") or (metadata.get("user_id") if isinstance(metadata, dict) else "") or "")


class _Reply:
    """Sends one answer, with the fault that its call asked for."""

    def __init__(self, call: Call, send: Send) -> None:
        self._call, self._send = call, send
        self.pause_s = 0.0

    async def error(self, status: int) -> None:
        if status == 401 and wire.service(self._call.path) == wire.GENERATE:
            await self.whole(400, wire.google_refuses_the_key())
            return
        extra = {429: [(b"retry-after", b"2")], 307: [(b"location", b"http://elsewhere.invalid/v1/chat")]}
        await self.whole(
            status, wire.error(self._call.path, status, f"The double says {status}."), extra.get(status, [])
        )

    async def whole(
        self, status: int, document: Json, extra: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        body = json.dumps(document, ensure_ascii=False).encode()
        headers = [(b"content-type", b"application/json"), *self._headers(), *(extra or [])]
        if self._call.fault is Fault.GARBAGE:
            body = _GARBAGE
        if self._call.fault is Fault.GZIP:
            body = gzip.compress(body)
            headers.append((b"content-encoding", b"gzip"))
        await asyncio.sleep(self.pause_s)
        await self._start(status, [*headers, (b"content-length", b"%d" % len(body))])
        if self._call.fault in (Fault.CUT, Fault.CUT_LATE):
            await self._piece(body[: body.index("ü".encode()) + 1])
            raise Broken
        await self._end(body)

    async def stream(self, events: list[bytes]) -> None:
        fault = self._call.fault
        in_array = events[0].startswith(b"[")
        kind = b"application/json; charset=UTF-8" if in_array else b"text/event-stream; charset=utf-8"
        headers = [(b"content-type", kind), *self._headers()]
        pieces = _pieces(fault, events)
        if fault is Fault.GZIP:
            headers.append((b"content-encoding", b"gzip"))
        await self._start(200, headers)
        for piece in pieces:
            if self.pause_s:
                await asyncio.sleep(self.pause_s)
            await self._piece(piece)
        if fault in (Fault.CUT, Fault.CUT_LATE):
            raise Broken
        await self._end(b"")

    def _headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"x-request-id", b"req_%d" % self._call.number), (b"openai-processing-ms", b"7")]
        if self._call.fault is Fault.COOKIE:
            headers += [
                (b"set-cookie", b"session=of-our-account; Path=/"),
                (b"openai-organization", b"org-ours"),
            ]
        return headers

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def _piece(self, body: bytes) -> None:
        self._call.answered += body
        await self._send({"type": "http.response.body", "body": body, "more_body": True})

    async def _end(self, body: bytes) -> None:
        self._call.answered += body
        await self._send({"type": "http.response.body", "body": body})
        self._call.finished = True


def _pieces(fault: Fault, events: list[bytes]) -> list[bytes]:
    """The chunks of a stream. A cut one ends in the middle of a character, or before its terminal event."""
    if fault is Fault.GARBAGE:
        return [_GARBAGE]
    if fault is Fault.CUT:
        at = next(i for i, event in enumerate(events) if "ü".encode() in event)
        return [*events[:at], events[at][: events[at].index("ü".encode()) + 1]]
    if fault is Fault.CUT_LATE:
        return events[:-1]
    if fault is Fault.BYTEWISE:
        return [bytes((byte,)) for event in events for byte in event]
    if fault is Fault.CRLF:
        return [
            b": keep-alive\r\n\r\n" + event.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
            for event in events
        ]
    if fault is Fault.GZIP:
        return [gzip.compress(b"".join(events))]
    return events
