"""The Django entry, synchronous and asynchronous: the same events as the ASGI middleware, for hosts that keep their asgi.py."""

import asyncio
import io
import json
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.core.handlers.wsgi import WSGIRequest
from django.core.signals import request_finished
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import AsyncRequestFactory, RequestFactory

from metering import django_answer
from metering.django_middleware import MeteringEntry
from metering.drains import Drains
from metering.gate import Account, Contribution, Headers, OpenGate
from metering.loop_thread import LoopThread
from metering.problem import Refusal
from metering.record_usage import SCOPE_KEY, record_usage
from metering.routes import Route
from metering.rows import EventRow, HoldRow
from tests.metering.asgi import Bench, answering
from tests.metering.test_middleware import ANSWER, CHARGE, REQUEST, STREAM, USAGE, Closed, Rated, chunk

PATH = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def _connections_stay_open() -> Iterator[None]:
    """Closing a response closes old connections of other tests, which a test without a database may not: as Django's own
    test client, have it not done."""
    request_finished.disconnect(close_old_connections)
    yield
    request_finished.connect(close_old_connections)


class Host:
    """The entry with its books in memory, and a view behind it."""

    def __init__(self, **options: Any) -> None:
        self.bench = Bench(answering(b""), **options)
        self.loop = LoopThread()
        self.entry = MeteringEntry(self.bench.meter, self.loop)

    def sync(self, view: Any, path: str = PATH) -> Any:
        request = RequestFactory().post(
            path, REQUEST, content_type="application/json", HTTP_X_REQUEST_ID="req-7"
        )
        return self.entry.call(view, request)

    async def asynchronous(self, view: Any, path: str = PATH) -> Any:
        request = AsyncRequestFactory().post(path, REQUEST, content_type="application/json")
        return await self.entry.call_async(view, request)

    @property
    def event(self) -> EventRow:
        return self.bench.event

    def close(self) -> None:
        self.loop.run(self.bench.recorder.stop())


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host()
    yield made
    made.close()


def whole(request: HttpRequest) -> HttpResponse:
    return HttpResponse(ANSWER, content_type="application/json")


def stream(request: HttpRequest) -> StreamingHttpResponse:
    return StreamingHttpResponse(iter(STREAM), content_type="text/event-stream")


async def async_whole(request: HttpRequest) -> HttpResponse:
    return whole(request)


async def async_stream(request: HttpRequest) -> StreamingHttpResponse:
    async def chunks() -> AsyncIterator[bytes]:
        for part in STREAM:
            await asyncio.sleep(0)
            yield part

    return StreamingHttpResponse(chunks(), content_type="text/event-stream")


def test_a_synchronous_view_is_metered_and_told_in_headers(host: Host) -> None:
    response = host.sync(whole)
    assert host.event.charge_total == CHARGE and host.event.status == "ok"
    assert response["X-Usage-Charge"] == "0.0004" and response["X-Request-Id"] == "req-7"
    assert response["X-Usage-Event"] == str(host.event.id)


def test_an_answer_and_a_refusal_say_what_is_left_of_the_callers_rate_limits() -> None:
    host = Host(gate=Rated())
    for view in (whole, stream):
        response = host.sync(view)
        assert response["RateLimit-Policy"] == '"requests";q=60;w=60'
        assert response["RateLimit"] == '"requests";r=59;t=1'
        b"".join(response)
    request = RequestFactory().post(PATH, b'{"model": "gpt-99"}', content_type="application/json")
    refused = host.entry.call(whole, request)
    assert (refused.status_code, refused["RateLimit"]) == (403, '"requests";r=59;t=1')
    host.close()


def test_a_model_in_the_path_is_decoded_once() -> None:
    host = Host(routes=[Route("POST", "/v1beta/models/{model}:generateContent", provider="google")])
    host.sync(whole, "/v1beta/models/gemini%20flash%2541:generateContent")
    assert host.event.model_requested == "gemini flash%41"
    host.close()


def test_an_asynchronous_view_is_metered_and_told_in_headers(host: Host) -> None:
    response = asyncio.run(host.asynchronous(async_whole))
    assert host.event.charge_total == CHARGE and response["X-Usage-Tokens-Input"] == "100"


def test_the_end_of_a_synchronous_stream_waits_for_the_commit(host: Host) -> None:
    when = [len(host.bench.store.events) for _ in host.sync(stream)]
    assert when == [0, 0, 0, 1], "[DONE] leaves after the commit"
    assert host.event.charge_total == CHARGE


def test_the_end_of_an_asynchronous_stream_waits_for_the_commit(host: Host) -> None:
    async def main() -> list[int]:
        response = await host.asynchronous(async_stream)
        return [len(host.bench.store.events) async for _ in response]

    assert asyncio.run(main()) == [0, 0, 0, 1]
    assert host.event.charge_total == CHARGE


def test_a_client_that_leaves_a_synchronous_stream_is_drained(host: Host) -> None:
    response = host.sync(stream)
    chunks = iter(response)
    next(chunks)
    response._iterator.close()
    assert (host.event.status, host.event.charge_total) == ("client_disconnected", CHARGE)


def test_a_client_that_leaves_an_asynchronous_stream_is_drained(host: Host) -> None:
    async def main() -> None:
        response = await host.asynchronous(async_stream)

        async def read() -> None:
            async for _ in response:
                await asyncio.sleep(10)

        reading = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await response._iterator.aclose()
        await asyncio.gather(*django_answer._draining)

    asyncio.run(main())
    assert (host.event.status, host.event.charge_total) == ("client_disconnected", CHARGE)


def test_a_view_that_raises_is_an_event_without_a_charge(host: Host) -> None:
    def broken(request: HttpRequest) -> HttpResponse:
        raise RuntimeError("no answer")

    with pytest.raises(RuntimeError):
        host.sync(broken)
    assert (host.event.status, host.event.status_code, host.event.charge_total) == ("error", 500, 0)


def test_a_view_says_its_usage_itself(host: Host) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        assert record_usage(request, tokens_input=7, tokens_output=0, model="demo-small", provider="demo")
        return whole(request)

    host.sync(view)
    assert host.event.charge_total == Decimal("0.000014")  # 7 × 2/1e6


def test_a_request_that_the_asgi_middleware_marked_passes_untouched(host: Host) -> None:
    async def main() -> Any:
        request = AsyncRequestFactory().post(PATH, REQUEST, content_type="application/json")
        marked: Any = request.scope
        marked[SCOPE_KEY] = object()
        return await host.entry.call_async(async_whole, request)

    assert "X-Usage-Event" not in asyncio.run(main())
    assert host.bench.store.events == {}


def test_another_path_passes_untouched(host: Host) -> None:
    assert "X-Usage-Event" not in host.sync(whole, "/elsewhere")


def test_a_refused_call_reaches_no_view() -> None:
    host = Host(gate=Closed())
    response = host.sync(lambda request: pytest.fail("a refused call must not go out"))
    assert response.status_code == 401 and json.loads(response.content)["code"] == "invalid_api_key"
    assert response["Content-Type"] == "application/problem+json"


class SlowGate(OpenGate):
    """Takes its time to know the caller."""

    def __init__(self) -> None:
        super().__init__()
        self.admitting = threading.Event()

    async def resolve(self, headers: Headers, at: datetime) -> Account | Refusal:
        await asyncio.sleep(0.1)
        return await super().resolve(headers, at)

    def hold(self, rows: Sequence[HoldRow]) -> Contribution | None:
        self.admitting.set()
        return super().hold(rows)


def test_a_client_that_leaves_during_admission_leaves_no_hold() -> None:
    gate = SlowGate()
    host = Host(gate=gate)

    async def main() -> None:
        call = asyncio.create_task(host.asynchronous(async_whole))
        await asyncio.sleep(0.05)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())
    assert gate.admitting.wait(5), "the admission goes on"
    time.sleep(0.2)  # the hold is committed, and then released
    assert (host.bench.store.holds, host.bench.store.events) == ({}, {})
    host.close()


class Piped(HttpResponseBase):
    """A response of a kind that Django does not know."""


@pytest.mark.parametrize(
    "view", [stream, lambda request: Piped()], ids=["stream", "neither a body nor a stream"]
)
def test_a_response_that_nobody_reads_is_settled_when_it_is_closed(host: Host, view: Any) -> None:
    response = host.sync(view)
    assert not host.bench.store.events
    response.close()
    assert host.event.status == "client_disconnected" and not host.bench.store.holds


def test_an_asynchronous_stream_that_nobody_reads_is_settled_when_it_is_closed(host: Host) -> None:
    asyncio.run(host.asynchronous(async_stream)).close()
    assert host.event.status == "client_disconnected" and not host.bench.store.holds


def test_closing_a_stream_that_was_read_adds_nothing(host: Host) -> None:
    response = host.sync(stream)
    assert b"".join(response) == b"".join(STREAM)
    response.close()
    assert (host.event.status, host.event.charge_total) == ("ok", CHARGE)


def test_a_generator_is_drained_before_the_server_closes_it(host: Host) -> None:
    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse((part for part in STREAM), content_type="text/event-stream")

    response = host.sync(view)
    next(iter(response))
    response.close()
    assert (host.event.status, host.event.charge_total) == ("client_disconnected", CHARGE)


@pytest.mark.parametrize("drains", [Drains(total_max=0), Drains(seconds_max=-1)], ids=["refused", "too long"])
def test_a_synchronous_stream_that_is_not_read_to_its_end_is_settled_as_cut(drains: Drains) -> None:
    so_far = chunk("word", USAGE)  # some providers count as they go
    host = Host(drains=drains)

    def view(request: HttpRequest) -> StreamingHttpResponse:
        return StreamingHttpResponse(iter([so_far] * 50), content_type="text/event-stream")

    response = host.sync(view)
    next(iter(response))
    response.close()
    host.close()
    assert (host.event.status, host.event.usage_source) == ("client_disconnected", "reported_partial")


class Upload(io.RawIOBase):
    """The body of a client that is slow, or that goes away."""

    def __init__(self, *, began: threading.Event, goes_on: threading.Event | None = None) -> None:
        self._began, self._goes_on = began, goes_on

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self._began.set()
        if self._goes_on is None:
            raise OSError("the client has gone")
        self._goes_on.wait(20)
        return b""


def uploading(upload: Upload) -> WSGIRequest:
    environ = RequestFactory().post(PATH, REQUEST, content_type="application/json").environ
    return WSGIRequest({**environ, "wsgi.input": upload})


def test_a_slow_upload_holds_up_no_other_call(host: Host) -> None:
    began, goes_on = threading.Event(), threading.Event()
    request = uploading(Upload(began=began, goes_on=goes_on))
    slow = threading.Thread(target=host.entry.call, args=(whole, request))
    other = threading.Thread(target=host.sync, args=(whole,), daemon=True)
    slow.start()
    assert began.wait(5)
    other.start()
    other.join(5)
    events = len(host.bench.store.events)
    goes_on.set()
    slow.join(5)
    assert events == 1, "the other call is through while the upload still waits"


def test_an_upload_that_breaks_off_reaches_the_view_and_is_metered(host: Host) -> None:
    host.entry.call(whole, uploading(Upload(began=threading.Event())))
    assert host.event.charge_total == CHARGE


def test_a_form_that_was_read_before_is_metered_without_its_body(host: Host) -> None:
    request = RequestFactory().post(PATH, {"a": "b"})  # multipart
    assert request.POST["a"] == "b"
    host.entry.call(whole, request)
    assert host.event.charge_total == CHARGE


@pytest.mark.parametrize(
    ("accepted", "seen"),
    [
        ("br, gzip;q=0.5, zstd", "gzip;q=0.5"),
        ("GZIP,deflate", "GZIP, deflate"),
        ("br", "identity"),
        ("*", "identity"),
    ],
)
def test_a_view_sees_only_the_encodings_that_can_be_read(host: Host, accepted: str, seen: str) -> None:
    def view(request: HttpRequest) -> HttpResponse:
        assert request.META["HTTP_ACCEPT_ENCODING"] == request.headers["accept-encoding"] == seen
        return whole(request)

    request = RequestFactory().post(
        PATH, REQUEST, content_type="application/json", HTTP_ACCEPT_ENCODING=accepted
    )
    assert request.headers["accept-encoding"] == accepted
    host.entry.call(view, request)
    assert host.event.status == "ok"


def test_the_child_of_a_fork_waits_for_no_lock_of_its_parent() -> None:
    loop = LoopThread()
    with loop._lock:  # as another thread would hold it that starts the loop just now
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            loop.run(asyncio.sleep(0))
            os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
