"""`MeteringMiddleware`: wraps any ASGI application and meters the calls to its metered routes.

One immutable object in front; a fresh `MeteredResponse` for each metered call owns the state of that one answer. Whatever
is not a metered route passes untouched. The last frame goes out after the commit of the event, nothing else waits.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from metering.answer import MeteredResponse
from metering.ids import uuid7
from metering.meter import Meter, request_id_of
from metering.problem import Refusal, problem_response
from metering.record_usage import SCOPE_KEY
from metering.routes import Route

log = logging.getLogger("metering.middleware")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

# An application that hands a file to the server would send bytes that nobody here sees.
READABLE = frozenset({b"gzip", b"x-gzip", b"deflate", b"identity"})
UNSEEN_EXTENSIONS = ("http.response.pathsend", "http.response.zerocopysend")


class MeteringMiddleware:
    """Meters what `meter.routes` name; owns the lifespan, so that calls in flight are settled at shutdown."""

    def __init__(self, app: ASGIApp, meter: Meter) -> None:
        self.app, self.meter = app, meter
        self._in_flight: set[MeteredResponse] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            route = self.meter.routes.match(scope["method"], scope["path"])
            if route is not None and SCOPE_KEY not in scope:
                return await self._metered(route, scope, receive, send)
        elif kind == "lifespan":
            return await self._lifespan(scope, receive, send)
        return await self.app(scope, receive, send)

    async def _metered(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        at = self.meter.now()
        headers = scope["headers"]
        account = await self.meter.identify(headers, at)
        if isinstance(account, Refusal):
            return await self._refuse(account, route, scope, send)
        request = await read_ahead(receive, self.meter.request_bytes_max)
        if request is None:
            return None  # the client went away while it was still sending: nothing went out, nothing is owed
        body, replay, whole = request
        call = await self.meter.admit(
            route,
            account,
            at=at,
            headers=headers,
            body=body,
            path=scope["path"],
            method=scope["method"],
            query=scope.get("query_string", b""),
        )
        if isinstance(call, Refusal):
            return await self._refuse(call.with_headers(account.rate_headers), route, scope, send)
        length = None
        if call.body is not None:
            replay, length = [{"type": "http.request", "body": call.body, "more_body": False}], len(call.body)
            call.body = None
        response = MeteredResponse(self.meter, call, receive, send, replay, request_complete=whole)
        del request, body, replay  # megabytes, which would live as long as the answer streams
        self._in_flight.add(response)
        try:
            await response.run(self.app, _metered_scope(scope, response, length))
        finally:
            self._in_flight.discard(response)

    async def _refuse(self, refusal: Refusal, route: Route, scope: Scope, send: Send) -> None:
        request_id = request_id_of(dict(scope["headers"]), default=uuid7().hex)
        native = self.meter.format_of(route).native_errors
        status, headers, body = problem_response(refusal, request_id, native)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the lifespan on to the application; answer for one that knows none. Settle what is in flight at the end."""
        self.meter.recorder.start()
        lifespan = _Lifespan(receive, send, self._shut_down)
        try:
            await self.app(scope, lifespan.receive, lifespan.send)
        except Exception as error:
            if not lifespan.unasked:
                log.exception("the application's lifespan ended with an error")
                await lifespan.fail(error)
                return
            log.debug("the application has no lifespan: %s", error)
        await lifespan.answer_what_is_left()

    async def _shut_down(self) -> None:
        """Settle the calls in flight, all at once, and then write what is queued."""
        settles = [response.settle_interrupted() for response in tuple(self._in_flight)]
        await asyncio.gather(*settles, return_exceptions=True)
        await self.meter.recorder.stop()


class _Lifespan:
    """The lifespan protocol towards the server, whether or not the application speaks it."""

    def __init__(self, receive: Receive, send: Send, shut_down: Callable[[], Awaitable[None]]) -> None:
        self._receive, self._send, self._shut_down = receive, send, shut_down
        self._asked = self._started = self._stopping = self._stopped = False

    @property
    def unasked(self) -> bool:
        """Whether the application gave up before it took its first message: it knows no lifespan."""
        return not self._asked

    async def fail(self, error: Exception) -> None:
        """The application broke off its start: say so to the server, which would wait for ever."""
        if not self._started:
            self._started = self._stopped = True
            await self._send({"type": "lifespan.startup.failed", "message": str(error)})

    async def receive(self) -> Message:
        self._asked = True
        message = await self._receive()
        if message["type"] == "lifespan.shutdown":
            self._stopping = True
            await self._shut_down()
        return message

    async def send(self, message: Message) -> None:
        if message["type"].startswith("lifespan.startup"):
            self._started = True
        else:
            self._stopped = True
        await self._send(message)

    async def answer_what_is_left(self) -> None:
        while not self._stopped:
            if not self._started:
                await self._receive()
                self._started = True
                await self._send({"type": "lifespan.startup.complete"})
            elif not self._stopping:
                await self.receive()
            else:
                self._stopped = True
                await self._send({"type": "lifespan.shutdown.complete"})


async def read_ahead(receive: Receive, bytes_max: int) -> tuple[bytes | None, list[Message], bool] | None:
    """The request's body (None where it is too long to be read), the messages to replay, and whether they are all.

    None when the client has gone.
    """
    messages: list[Message] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        messages.append(message)
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
        if size > bytes_max:
            return None, messages, False
    body = (
        messages[0].get("body", b"") if len(messages) == 1 else b"".join(m.get("body", b"") for m in messages)
    )
    return (body if size <= bytes_max else None), messages, True


def _metered_scope(scope: Scope, response: MeteredResponse, length: int | None) -> Scope:
    """The scope as the application sees it; `length` of a body that is another one than came in."""
    metered = dict(scope)
    metered[SCOPE_KEY] = response.call
    metered["headers"] = [
        _readable_only(pair) if pair[0] == b"accept-encoding" else pair for pair in scope["headers"]
    ]
    if length is not None:
        metered["headers"] = headers_of_length(metered["headers"], length)
    extensions = scope.get("extensions")
    if extensions and any(name in extensions for name in UNSEEN_EXTENSIONS):
        metered["extensions"] = {
            name: value for name, value in extensions.items() if name not in UNSEEN_EXTENSIONS
        }
    return metered


def headers_of_length(headers: Any, length: int) -> list[tuple[bytes, bytes]]:
    """The headers of a body that has another length now."""
    others = [pair for pair in headers if pair[0] not in (b"content-length", b"transfer-encoding")]
    return [*others, (b"content-length", b"%d" % length)]


def _readable_only(accepted: tuple[bytes, bytes]) -> tuple[bytes, bytes]:
    """What the client accepts, without what we could not read: no client shall choose that its usage is unknown."""
    name, value = accepted
    parts = [part.strip() for part in value.split(b",")]
    kept = [part for part in parts if part.split(b";")[0].strip().lower() in READABLE]
    return name, b", ".join(kept) or b"identity"
