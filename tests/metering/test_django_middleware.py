"""The Django entry, synchronous and asynchronous: the same events as the ASGI middleware, for hosts that keep their asgi.py."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import AsyncRequestFactory, RequestFactory

from metering.django_middleware import MeteringEntry
from metering.loop_thread import LoopThread
from metering.record_usage import SCOPE_KEY, record_usage
from metering.rows import EventRow
from tests.metering.asgi import Bench, answering
from tests.metering.test_middleware import ANSWER, CHARGE, REQUEST, STREAM, Closed

PATH = "/v1/chat/completions"


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
        for chunk in STREAM:
            await asyncio.sleep(0)
            yield chunk

    return StreamingHttpResponse(chunks(), content_type="text/event-stream")


def test_a_synchronous_view_is_metered_and_told_in_headers(host: Host) -> None:
    response = host.sync(whole)
    assert host.event.charge_total == CHARGE and host.event.status == "ok"
    assert response["X-Usage-Charge"] == "0.0004" and response["X-Request-Id"] == "req-7"
    assert response["X-Usage-Event"] == str(host.event.id)


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
        while not host.bench.store.events:
            await asyncio.sleep(0.01)

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
