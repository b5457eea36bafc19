"""The applications that are measured with and without metering: `benchmarks.apps:bare`, `:bare_metered`, `:django`, …

Both answer at once with one chat completion of 1.2 KB, or stream one in 20 chunks.
"""

import hashlib
import json
import os
from collections.abc import Callable
from typing import Any
from uuid import UUID

from benchmarks.answers import CHAT, CHAT_STREAM
from benchmarks.load import CUSTOMERS

_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(CHAT)).encode())],
}
_STREAM_HEAD = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream")],
}
_BODY = {"type": "http.response.body", "body": CHAT}


async def bare(scope: Any, receive: Any, send: Any) -> None:
    """A bare ASGI application."""
    if scope["type"] != "http":
        raise RuntimeError("no lifespan here")
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    if b'"stream": true' not in body:
        await send(_HEAD)
        await send(_BODY)
        return
    await send(_STREAM_HEAD)
    for chunk in CHAT_STREAM:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def _django_app() -> Any:
    os.environ["DJANGO_SETTINGS_MODULE"] = "benchmarks.django_site"
    from django.core.asgi import get_asgi_application

    return get_asgi_application()


def _metered(app: Any, *, spending: bool = False) -> Any:
    """`app` behind the middleware, both phases durable on the benchmark's PostgreSQL, 100 customers; `spending`: each call
    reserves credits and fits under limits."""
    from benchmarks.gate import KeyedGate, SpendingGate
    from benchmarks.prices import bench_card
    from metering.meter import Meter
    from metering.metrics import observe_settled
    from metering.middleware import MeteringMiddleware
    from metering.recorder import Recorder
    from metering.routes import DEFAULT_ROUTES, RouteTable
    from metering.store.postgres import PostgresStore
    from pricing import clock
    from pricing.pricelist import CurrentCard

    gate = (SpendingGate if spending else KeyedGate)(
        {hashlib.sha256(f"tg_bench_{n}".encode()).hexdigest(): UUID(int=n + 1) for n in range(CUSTOMERS)}
    )
    card = CurrentCard()
    card.card = bench_card()
    store = PostgresStore(json.loads(os.environ["BENCH_CONNINFO"]))
    recorder = Recorder(store, gate, on_settled=lambda rows: observe_settled(rows, card.card))
    meter = Meter(
        gate=gate, recorder=recorder, card=card, routes=RouteTable.compile(DEFAULT_ROUTES), now=clock.now
    )
    return MeteringMiddleware(app, meter)


def _check() -> Any:
    """The admission check over the benchmark's database; every other path is a view that does nothing."""
    os.environ["DJANGO_SETTINGS_MODULE"] = "project.settings"
    import django

    django.setup()
    from benchmarks.prices import bench_card
    from billing.accounts import build_gate
    from billing.check_app import PATH, UsageCheck
    from pricing.pricelist import CurrentCard

    card = CurrentCard()
    card.card = bench_card()
    check = UsageCheck(build_gate(), card, bare)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await (check if scope.get("path") == PATH else bare)(scope, receive, send)

    return app


def __getattr__(name: str) -> Any:
    made: dict[str, Callable[[], Any]] = {
        "check": _check,
        "django": _django_app,
        "bare_metered": lambda: _metered(bare),
        "bare_spending": lambda: _metered(bare, spending=True),
        "django_metered": lambda: _metered(_django_app()),
        "django_spending": lambda: _metered(_django_app(), spending=True),
    }
    if name not in made:
        raise AttributeError(name)
    return made[name]()
