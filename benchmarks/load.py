"""The load generator, a process of its own: `python -m benchmarks.load URL CONNECTIONS SECONDS [stream]` prints JSON.

Plain sockets and keep-alive, so that it costs little beside what it measures. Latencies in milliseconds.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import uvloop

from benchmarks.figures import percentile

CUSTOMERS = 100
BODY = {
    "model": "gpt-5-mini",
    "messages": [{"role": "user", "content": "How many roads must a man walk down? " * 4}],
}


CHECK = {"model": "gpt-5-mini", "tokens_input": 1000, "max_tokens": 500}


def request_for(host: str, path: str, key: str, *, stream: bool) -> bytes:
    asked: dict[str, Any] = CHECK if path.endswith("/check") else BODY
    if stream:
        asked = {**asked, "stream": stream, "stream_options": {"include_usage": True}}
    body = json.dumps(asked).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """Sends a request as soon as the answer to the one before is complete."""

    def __init__(
        self, requests: list[bytes], until: float, latencies: list[float], first: list[float]
    ) -> None:
        self._requests, self._until, self._latencies, self._first = requests, until, latencies, first
        self._buffer = b""
        self._sent = 0.0
        self._saw_first = False
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        if not self._saw_first and _has_body(self._buffer):
            self._saw_first = True
            self._first.append((time.perf_counter() - self._sent) * 1000)
        if not _is_complete(self._buffer):
            return
        if not self._buffer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(self._buffer[:500])
        self._latencies.append((time.perf_counter() - self._sent) * 1000)
        if time.perf_counter() < self._until:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def _send(self) -> None:
        self._buffer, self._saw_first, self._sent = b"", False, time.perf_counter()
        self._transport.write(random.choice(self._requests))


def _has_body(data: bytes) -> bool:
    head_end = data.find(b"\r\n\r\n")
    return head_end >= 0 and len(data) > head_end + 4


def _is_complete(data: bytes) -> bool:
    head_end = data.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    start = data.find(b"content-length: ", 0, head_end)
    if start < 0:
        return data.endswith(b"0\r\n\r\n")
    return len(data) >= head_end + 4 + int(data[start + 16 : data.index(b"\r", start)])


async def run(url: str, connections: int, seconds: float, *, stream: bool) -> dict[str, float]:
    parts = urlsplit(url)
    keys = [f"tg_bench_{number}" for number in range(CUSTOMERS)]
    requests = [request_for(parts.netloc, parts.path, key, stream=stream) for key in keys]
    latencies: list[float] = []
    first: list[float] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    made = [
        await loop.create_connection(
            lambda: Connection(requests, began + seconds, latencies, first),
            parts.hostname or "127.0.0.1",
            parts.port or 80,
        )
        for _ in range(connections)
    ]
    await asyncio.gather(*(protocol.closed for _, protocol in made))
    took = time.perf_counter() - began
    return {
        "rate": len(latencies) / took, "p50": percentile(latencies, 0.5), "p99": percentile(latencies, 0.99),
        "first_p50": percentile(first, 0.5), "first_p99": percentile(first, 0.99),
    }  # fmt: skip


if __name__ == "__main__":
    target, connections, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    print(json.dumps(uvloop.run(run(target, connections, seconds, stream="stream" in sys.argv))))
