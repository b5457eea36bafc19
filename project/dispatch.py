"""Who answers which path. A plain ASGI callable, so that what must be fast never enters Django's stack."""

import asyncio
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from project.gateway.app import PATHS as GATEWAY_PATHS, serves
from project.ops import PATHS as OPERATIONS_PATHS

STATIC_START = "/static/"
WARM_S_MAX = 5.0


class Background(Protocol):
    """Work beside the requests of a process."""

    def start(self) -> None: ...

    def stop(self) -> None: ...


class Dispatch:
    """Passes each request to the part that owns its path; runs `background` for as long as the server lives."""

    def __init__(
        self,
        *,
        gateway: ASGIApp,
        operations: ASGIApp,
        static: ASGIApp,
        django: ASGIApp,
        exact: Mapping[str, ASGIApp] = MappingProxyType({}),  # by path, what else stands before Django
        background: Background,
        warm: Callable[[], bool],  # whether `background` has done what the first request needs
    ) -> None:
        self._gateway, self._static, self._django = gateway, static, django
        self._background, self._warm = background, warm
        self._exact = {
            **dict.fromkeys(GATEWAY_PATHS, gateway),
            **dict.fromkeys(OPERATIONS_PATHS, operations),
            **exact,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(scope, receive, send)
        if scope["type"] != "http":
            return None  # no WebSockets here: the server refuses what is not answered
        path = scope["path"]
        app = self._exact.get(path)
        if app is None:
            app = self._owner_of(path)
        return await app(scope, receive, send)

    def _owner_of(self, path: str) -> ASGIApp:
        """Of a path that is none of the fixed ones."""
        if path.startswith(STATIC_START):
            return self._static
        return self._gateway if serves(path) else self._django

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The gateway's lifespan. Prices are there before the first request, unless the database is away: then they come
        as soon as it is back, and /readyz says so."""
        self._background.start()
        deadline = time.monotonic() + WARM_S_MAX
        while not self._warm() and time.monotonic() < deadline:  # noqa: ASYNC110  (a thread of its own does it)
            await asyncio.sleep(0.02)
        try:
            await self._gateway(scope, receive, send)
        finally:
            await asyncio.to_thread(self._background.stop)
