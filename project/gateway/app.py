"""`Gateway`: the ASGI application. One table says which path is answered how; everything is made ready at start-up."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from project.gateway.conversation import decode, is_demo, unknown_model
from project.gateway.demo_chat import answer_chat
from project.gateway.demo_embeddings import answer_embeddings
from project.gateway.demo_generate import answer_generate
from project.gateway.demo_messages import answer_messages
from project.gateway.demo_responses import answer_responses
from project.gateway.exchange import ClientGone, Exchange, Refused
from project.gateway.execute import Executor
from project.gateway.google_call import GoogleCall
from project.gateway.passthrough import pass_through
from project.gateway.settings import ANTHROPIC, GOOGLE, OPENAI, GatewaySettings, Provider
from project.gateway.upstream import UpstreamClient

Demo = Callable[[Exchange, bytes], Awaitable[None]]
EXECUTE_PATH = "/v1/execute"


class Service(msgspec.Struct, frozen=True):
    """What a pass-through path leads to: whose API it is, and what answers in place of the provider."""

    provider: Provider
    demo: Demo
    model: str | None = None  # that the path names, before whatever the body says
    streams: bool = False  # it answers piece by piece, whatever content-type that has


SERVICES = {
    "/v1/chat/completions": Service(OPENAI, answer_chat),
    "/v1/responses": Service(OPENAI, answer_responses),
    "/v1/embeddings": Service(OPENAI, answer_embeddings),
    "/v1/messages": Service(ANTHROPIC, answer_messages),
}
PATHS = frozenset({EXECUTE_PATH, *SERVICES})


class _Head(msgspec.Struct):
    model: Any = None


_HEAD = msgspec.json.Decoder(_Head)


def serves(path: str) -> bool:
    """Whether the gateway answers this path, decoded as the server hands it over."""
    return path in PATHS or GoogleCall.of(path) is not None


def service_of(path: str, query: bytes) -> Service | None:
    """The pass-through that a path leads to, if any."""
    call = GoogleCall.of(path, query)
    if call is None:
        return SERVICES.get(path)
    return Service(GOOGLE, partial(answer_generate, call), call.model, call.streams)


class Gateway:
    """Answers what it `serves`; 404 for any other path. Closes its connections at the end of the lifespan, or by `aclose`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._client = UpstreamClient(settings)
        self._executor = Executor(settings, self._client)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._lifespan(receive, send)
        service = service_of(scope["path"], scope.get("query_string", b""))
        exchange = Exchange(scope, receive, send, service.provider if service is not None else None)
        try:
            await self._answer(exchange, service)
        except Refused as refused:
            await exchange.refuse(refused)
        except ClientGone:
            pass  # there is nobody to answer
        return None

    async def aclose(self) -> None:
        """Close the connections to the upstreams, for a host that keeps the lifespan to itself."""
        await self._client.aclose()

    async def _answer(self, exchange: Exchange, service: Service | None) -> None:
        if exchange.scope["method"] != "POST":
            raise Refused(405, "method_not_allowed", "This path takes POST only.")
        if service is None and exchange.scope["path"] != EXECUTE_PATH:
            raise Refused(404, "not_found", "There is nothing at this path.")
        body = await exchange.body(self._settings.request_bytes_max)
        if service is None:
            return await self._executor.answer(exchange, body)
        # Read also where it need not name the model: what the meter could not read goes to no provider.
        named = decode(_HEAD, body).model
        model = named if service.model is None else service.model
        if is_demo(model):
            return await service.demo(exchange, body)
        upstream = self._settings.upstream_of(service.provider)
        if upstream is None:
            raise unknown_model(model)
        chat = service.demo is answer_chat
        return await pass_through(exchange, self._client, upstream, body, chat=chat, streams=service.streams)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.aclose()
        await send({"type": "lifespan.shutdown.complete"})


def build_gateway(settings: GatewaySettings) -> Gateway:
    """The gateway for these settings, ready to be mounted or served."""
    return Gateway(settings)
