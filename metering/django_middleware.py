"""The Django entry: `"metering.django_middleware.metering_middleware"` in MIDDLEWARE, for those who cannot change `asgi.py`.

The same core as the ASGI middleware, for synchronous and asynchronous hosts. What it cannot do: a streamed answer goes out
with the id of its hold, and its end waits for the commit only where the wire format marks the end (or with Django's own
last, empty frame). A call that the ASGI middleware has marked passes untouched.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from functools import cache
from io import BytesIO
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import MiddlewareNotUsed, RequestDataTooBig
from django.http import (
    HttpRequest,
    HttpResponse,
    RawPostDataException,
    StreamingHttpResponse,
    UnreadablePostError,
)
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from metering.call import Call
from metering.django_answer import DjangoAnswer
from metering.gate import Gate, OpenGate
from metering.ids import uuid7
from metering.inflate import READABLE_ENCODINGS
from metering.loop_thread import LoopThread
from metering.meter import Meter, request_id_of
from metering.middleware import headers_of_length
from metering.problem import Refusal, problem_response
from metering.record_usage import SCOPE_KEY
from metering.routes import Route
from metering.wiring import build_meter, option

log = logging.getLogger("metering.django")

SyncHandler = Callable[[HttpRequest], HttpResponseBase]
AsyncHandler = Callable[[HttpRequest], Awaitable[HttpResponseBase]]

_loop = LoopThread()


@cache
def shared_meter() -> Meter:
    """The meter of this process for the Django entry. The gate comes from TOLLGATE["GATE"], a dotted path to a callable
    that makes one; without it everyone is admitted under one customer."""
    path = option("GATE", "")
    gate: Gate = import_string(path)() if path else OpenGate()
    return build_meter(gate)


def metering_middleware(get_response: Any) -> Any:
    """The middleware factory. Raises MiddlewareNotUsed when ENABLE_PRICING_MIDDLEWARE is false."""
    if not option("ENABLE_PRICING_MIDDLEWARE", True):
        raise MiddlewareNotUsed("ENABLE_PRICING_MIDDLEWARE is false")
    entry = MeteringEntry(shared_meter(), _loop)
    if iscoroutinefunction(get_response):
        async_handler: AsyncHandler = get_response

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            return await entry.call_async(async_handler, request)

        return markcoroutinefunction(asynchronous)
    handler: SyncHandler = get_response

    def synchronous(request: HttpRequest) -> HttpResponseBase:
        return entry.call(handler, request)

    return synchronous


metering_middleware.sync_capable = True  # type: ignore[attr-defined]  # how Django asks a middleware factory
metering_middleware.async_capable = True  # type: ignore[attr-defined]


class MeteringEntry:
    """Meters Django requests; the recorder runs on a private loop, whatever loop the request runs on."""

    def __init__(self, meter: Meter, loop: LoopThread) -> None:
        self._meter, self._loop = meter, loop

    def call(self, get_response: SyncHandler, request: HttpRequest) -> HttpResponseBase:
        """One request of a synchronous host."""
        route = self._route(request)
        if route is None:
            return get_response(request)
        call = self._loop.run(self._admit(route, request, self._body(request)))
        if isinstance(call, Refusal):
            return self._refusal(call, route, request)
        _mark(request, call)
        answer = DjangoAnswer(self._meter, call, self._loop)
        try:
            response = get_response(request)
            answer.open(response)
        except BaseException:
            self._loop.run(answer.settle("error", complete=False))
            raise
        if isinstance(response, StreamingHttpResponse):
            _wrap_stream(response, answer)
        elif isinstance(response, HttpResponse):
            answer.feed(response.content)
            answer.decorate(response, self._loop.run(answer.settle(complete=True)))
        else:
            _wrap_other(response, answer)
        return response

    async def call_async(self, get_response: AsyncHandler, request: HttpRequest) -> HttpResponseBase:
        """One request of an asynchronous host."""
        route = self._route(request)
        if route is None:
            return await get_response(request)
        call = await self._admit_async(route, request)
        if isinstance(call, Refusal):
            return self._refusal(call, route, request)
        _mark(request, call)
        answer = DjangoAnswer(self._meter, call, self._loop)
        try:
            response = await get_response(request)
            answer.open(response)
        except BaseException as error:
            left = isinstance(error, asyncio.CancelledError)
            await self._loop.await_(answer.settle("client_disconnected" if left else "error", complete=False))
            raise
        if isinstance(response, StreamingHttpResponse):
            _wrap_stream(response, answer)
        elif isinstance(response, HttpResponse):
            answer.feed(response.content)
            answer.decorate(response, await self._loop.await_(answer.settle(complete=True)))
        else:
            _wrap_other(response, answer)
        return response

    def _route(self, request: HttpRequest) -> Route | None:
        if SCOPE_KEY in (getattr(request, "scope", None) or {}):
            return None
        return self._meter.routes.match(request.method or "", request.path)

    def _body(self, request: HttpRequest) -> bytes | None:
        """What the admission wants of the body. Read where the request runs: a slow upload must not keep the private loop
        from the other calls. In an asynchronous host Django has received all of it before."""
        return _body(request, self._meter.request_bytes_max)

    async def _admit_async(self, route: Route, request: HttpRequest) -> Call | Refusal:
        """Admit from another loop. A client that leaves meanwhile leaves no hold behind."""
        admission = self._loop.submit(self._admit(route, request, self._body(request)))
        try:
            return await asyncio.shield(asyncio.wrap_future(admission))
        except asyncio.CancelledError:
            self._loop.submit(self._take_back(admission))
            raise

    async def _take_back(self, admission: "Future[Call | Refusal]") -> None:
        """Release the hold of a call that never went out. It may be on its way already, so it is waited for."""
        call = await asyncio.wrap_future(admission)
        if isinstance(call, Call):
            await self._meter.recorder.release(call.hold())

    async def _admit(self, route: Route, request: HttpRequest, body: bytes | None) -> Call | Refusal:
        at, headers = self._meter.now(), _headers(request)
        account = await self._meter.identify(headers, at)
        if isinstance(account, Refusal):
            return account
        call = await self._meter.admit(
            route, account, at=at, headers=headers, body=body, path=request.path, method=request.method or "",
            query=str(request.META.get("QUERY_STRING") or "").encode("utf-8", "surrogateescape"),
        )  # fmt: skip
        return call.with_headers(account.rate_headers) if isinstance(call, Refusal) else call

    def _refusal(self, refusal: Refusal, route: Route, request: HttpRequest) -> HttpResponse:
        request_id = request_id_of(dict(_headers(request)), default=uuid7().hex)
        status, headers, body = problem_response(
            refusal, request_id, self._meter.format_of(route).native_errors
        )
        response = HttpResponse(body, status=status)
        for name, value in headers:
            response[name.decode()] = value.decode()
        return response


def _wrap_stream(response: StreamingHttpResponse, answer: DjangoAnswer) -> None:
    answer.decorate(response, None)
    answer.wrap(response)


def _wrap_other(response: HttpResponseBase, answer: DjangoAnswer) -> None:
    """Neither a body nor a stream that Django knows: nothing to read, but an end there is."""
    answer.decorate(response, None)
    answer.settle_at_close(response)


def _mark(request: HttpRequest, call: Call) -> None:
    request.tollgate_call = call  # type: ignore[attr-defined]  # where record_usage finds it under WSGI
    scope = getattr(request, "scope", None)
    if scope is not None:
        scope[SCOPE_KEY] = call
    if call.body is not None:
        _replace_body(request, call.body)
        call.body = None
    _accept_readable_only(request)


def _replace_body(request: HttpRequest, body: bytes) -> None:
    """Give the view another body; whatever was made of the old one is made anew."""
    request._body = body  # where Django keeps what it has read
    request._stream = BytesIO(body)
    request.META["CONTENT_LENGTH"] = str(len(body))
    scope = getattr(request, "scope", None)
    if scope is not None:
        scope["headers"] = headers_of_length(scope["headers"], len(body))
    for made in ("_post", "_files", "headers"):
        request.__dict__.pop(made, None)


def _accept_readable_only(request: HttpRequest) -> None:
    """Hide from the view the encodings that we could not read: no client shall choose that its usage is unknown."""
    accepted = request.META.get("HTTP_ACCEPT_ENCODING")
    if accepted is None:
        return
    parts = [part.strip() for part in accepted.split(",")]
    kept = [part for part in parts if part and part.split(";")[0].strip().lower() in READABLE_ENCODINGS]
    request.META["HTTP_ACCEPT_ENCODING"] = ", ".join(kept) or "identity"
    request.__dict__.pop("headers", None)  # Django makes them of META once, at the first look


def _headers(request: HttpRequest) -> list[tuple[bytes, bytes]]:
    scope = getattr(request, "scope", None)
    if scope is not None:
        return list(scope["headers"])
    return [
        (name.lower().encode("latin-1"), value.encode("latin-1", "replace"))
        for name, value in request.headers.items()
    ]


def _body(request: HttpRequest, bytes_max: int) -> bytes | None:
    """The request's body where Django lets us have it; a larger one passes unread, like one that broke off or that
    somebody has read as a form before us."""
    try:
        length = int(request.headers.get("content-length") or 0)
        return request.body if length <= bytes_max else None
    except (ValueError, RequestDataTooBig, UnreadablePostError, RawPostDataException):
        return None
