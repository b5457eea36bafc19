"""The answer to one call that the Django entry meters: reads it as it goes by and settles it once."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

from django.http.response import HttpResponseBase, StreamingHttpResponse

from metering.call import Call, admission_headers, usage_headers
from metering.loop_thread import LoopThread
from metering.meter import Meter, Settlement
from metering.rows import EventRow, Status
from metering.tap import Tap, open_tap

_draining: set[asyncio.Task[None]] = set()  # the loop holds tasks weakly


class DjangoAnswer:
    """State of one answer. `settle` runs on the private loop; everything else where Django runs."""

    def __init__(self, meter: Meter, call: Call, loop: LoopThread) -> None:
        self._meter, self._call, self._loop = meter, call, loop
        self._began = time.perf_counter()
        self._latency_ms: int | None = None
        self._status_code: int | None = None
        self._tap: Tap | None = None
        self._settlement: Settlement | None = None
        self._streaming = False  # somebody has begun to read the stream

    def open(self, response: HttpResponseBase) -> None:
        """The response is there: know its code and how to read it."""
        call, headers = self._call, response.headers
        self._status_code = response.status_code
        if "x-usage" in headers:
            self._meter.take_header(call, headers["x-usage"])
        self._tap = open_tap(
            self._meter.format_of(call.route), call.facts, call.route.provider,
            headers.get("content-type", ""), headers.get("content-encoding", ""), good=response.status_code < 400,
        )  # fmt: skip

    def feed(self, chunk: bytes) -> int:
        """Read a chunk; where in it the end of the answer begins, or -1."""
        if self._latency_ms is None:
            self._latency_ms = self._elapsed_ms()
        return self._tap.feed(chunk) if self._tap is not None and chunk else -1

    async def settle(self, status: Status | None = None, *, complete: bool) -> EventRow:
        """Settle once; later calls get the same event."""
        if self._settlement is None:
            code = self._status_code if self._status_code is not None else 500 if status == "error" else None
            self._settlement = self._meter.settle(
                self._call, self._tap, complete=complete, status=status or ("ok" if (code or 500) < 400 else "error"),
                status_code=code, latency_ms=self._latency_ms, execution_ms=self._elapsed_ms(),
            )  # fmt: skip
        return await self._settlement.committed()

    def decorate(self, response: HttpResponseBase, row: EventRow | None) -> None:
        """Put the headers on; without an event (a stream) the id is the hold's."""
        response["X-Request-Id"] = self._call.request_id
        for name, value in self._call.account.rate_headers:
            response[name.decode()] = value.decode()
        response["X-Usage-Event"] = str(row.id if row is not None else self._call.id)
        said = admission_headers(self._call)
        if row is not None:
            said += usage_headers(row, shows_cost=self._call.account.shows_cost)
        for name, value in said:
            response[name.decode().title()] = value.decode()

    def wrap(self, response: StreamingHttpResponse) -> None:
        """Read the stream of `response` as it goes by."""
        # Bound to the view's iterator now, before ours takes its place.
        chunks: Any = response.streaming_content
        if response.is_async:
            response.streaming_content = self.stream_async(chunks)
            self.settle_at_close(response)
        else:
            stream = self.stream(chunks)
            response.streaming_content = stream
            self.settle_at_close(response, stream.close)

    def settle_at_close(
        self, response: HttpResponseBase, end_stream: Callable[[], None] = lambda: None
    ) -> None:
        """Settle at the latest when the server closes `response`; a stream that nobody began to read has no other end."""

        def close() -> None:
            end_stream()
            if not self._streaming:
                self._loop.run(self.settle("client_disconnected", complete=False))

        # First of all closers: a drain could read nothing from a source that the view's own closer has closed.
        response._resource_closers.insert(0, close)  # type: ignore[attr-defined]  # not in the stubs

    def stream(self, chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
        """A synchronous stream. A client that leaves is noticed at the next chunk; the rest is read within bounds."""
        self._streaming = True
        try:
            for chunk in chunks:
                waits_from = self._waits_from(chunk)
                if waits_from > 0:
                    yield chunk[:waits_from]
                    chunk = chunk[waits_from:]
                if waits_from >= 0:
                    self._loop.run(self.settle(complete=True))
                yield chunk
            self._loop.run(self.settle(complete=True))
        except GeneratorExit:
            complete = self._drain(chunks)
            self._loop.run(self.settle("client_disconnected", complete=complete))
            raise
        finally:
            self._loop.run(self.settle("interrupted", complete=False))

    async def stream_async(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        """An asynchronous stream. Its source runs on in a task of its own when the client leaves."""
        self._streaming = True
        pending: asyncio.Future[bytes] | None = None
        try:
            while True:
                pending = asyncio.ensure_future(_next(chunks))
                chunk = await asyncio.shield(pending)
                pending = None
                waits_from = self._waits_from(chunk)
                if waits_from > 0:
                    yield chunk[:waits_from]
                    chunk = chunk[waits_from:]
                if waits_from >= 0:
                    await self._loop.await_(self.settle(complete=True))
                yield chunk
        except _Exhausted:
            await self._loop.await_(self.settle(complete=True))
        except (asyncio.CancelledError, GeneratorExit):
            task = asyncio.get_running_loop().create_task(self._drain_async(chunks, pending))
            _draining.add(task)
            task.add_done_callback(_draining.discard)
            raise
        except Exception:
            await self._loop.await_(self.settle("interrupted", complete=False))
            raise

    def _waits_from(self, chunk: bytes) -> int:
        return -1 if self._settlement is not None else self.feed(chunk)

    def _drain(self, chunks: Iterator[bytes]) -> bool:
        """Read what the client has left behind; whether that was all of it."""
        drains, customer = self._meter.drains, self._call.account.customer_id
        if self._settlement is not None or not self._call.route.drain or not drains.enter(customer):
            return False
        try:
            until = time.monotonic() + drains.seconds_max
            for chunk in chunks:
                self.feed(chunk)
                if time.monotonic() > until:
                    return False
            return True
        except Exception:  # noqa: BLE001  the source failed: settle with what came
            return False
        finally:
            drains.leave(customer)

    async def _drain_async(
        self, chunks: AsyncIterator[bytes], pending: "asyncio.Future[bytes] | None"
    ) -> None:
        drains, customer = self._meter.drains, self._call.account.customer_id
        complete = False
        if self._settlement is None and self._call.route.drain and drains.enter(customer):
            try:
                async with asyncio.timeout(drains.seconds_max):
                    while True:
                        self.feed(await (pending or asyncio.ensure_future(_next(chunks))))
                        pending = None
            except _Exhausted:
                complete = True
            except Exception:  # noqa: BLE001  the source failed or took too long: settle with what came
                complete = False
            finally:
                drains.leave(customer)
        await self._loop.await_(self.settle("client_disconnected", complete=complete))

    def _elapsed_ms(self) -> int:
        return int((time.perf_counter() - self._began) * 1000)


class _Exhausted(Exception):
    """The source has ended; StopAsyncIteration cannot be raised out of a future's coroutine."""


async def _next(chunks: AsyncIterator[Any]) -> bytes:
    try:
        chunk = await anext(chunks)
    except StopAsyncIteration:
        raise _Exhausted from None
    return chunk if isinstance(chunk, bytes) else str(chunk).encode()
