"""What machines ask: `/healthz` (the process lives), `/readyz` (it can do its work), `/health` (both, for people),
`/metrics` for Prometheus. Plain ASGI, so they answer when Django is busy."""

import hmac
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Literal

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import Receive, Scope, Send

from pricing import clock

State = Literal["healthy", "degraded", "down", "off"]
PATHS = frozenset({"/healthz", "/readyz", "/health", "/metrics", "/metrics/usage"})
JSON = b"application/json"

_encode = msgspec.json.Encoder().encode


class Check(msgspec.Struct, frozen=True):
    """One thing that the process needs. `off` is not needed; `degraded` works, not well."""

    state: State
    detail: str = ""

    @property
    def passes(self) -> bool:
        return self.state != "down"


Checks = Callable[[], Awaitable[Mapping[str, Check]]]


async def nothing_to_read() -> None:
    """Where every figure counts itself."""


class Operations:
    """Answers `PATHS`."""

    def __init__(
        self,
        checks: Checks,
        *,
        metrics_token: str = "",
        read_gauges: Callable[[], Awaitable[None]] = nothing_to_read,  # before the metrics are told
    ) -> None:
        self._checks, self._read_gauges = checks, read_gauges
        self._authorization = f"Bearer {metrics_token}".encode() if metrics_token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if scope["method"] not in ("GET", "HEAD"):
            await _answer(send, 405, JSON, _encode({"status": "method_not_allowed"}))
        elif path == "/healthz":
            await _answer(send, 200, JSON, _encode({"status": "ok"}))
        elif path == "/readyz":
            await self._readyz(send)
        elif path == "/health":
            await self._health(send)
        elif self._may_see_metrics(scope):
            await self._read_gauges()
            await _answer(send, 200, CONTENT_TYPE_LATEST.encode(), generate_latest())
        else:
            await _answer(send, 401, JSON, _encode({"status": "unauthorized"}))

    async def _readyz(self, send: Send) -> None:
        checks = await self._checks()
        ready = all(check.passes for check in checks.values())
        body = {"status": "ready" if ready else "not_ready", "checks": checks}
        await _answer(send, 200 if ready else 503, JSON, _encode(body))

    async def _health(self, send: Send) -> None:
        checks = await self._checks()
        states = {check.state for check in checks.values()}
        status: State = "down" if "down" in states else "degraded" if "degraded" in states else "healthy"
        body: dict[str, Any] = {
            "status": status,
            "timestamp": clock.now().isoformat(),
            "services": {name: check.state for name, check in checks.items()},
        }
        await _answer(send, 503 if status == "down" else 200, JSON, _encode(body))

    def _may_see_metrics(self, scope: Scope) -> bool:
        if not self._authorization:
            return True
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        return hmac.compare_digest(given, self._authorization)


async def _answer(send: Send, status: int, content_type: bytes, body: bytes) -> None:
    headers = [
        (b"content-type", content_type),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
