"""`POST /v1/execute`: the API's own call. A task goes to a demo model or to the provider whose model it names.

Request (other fields are refused): `task_type` and `model` (optional), either `prompt` or `messages` (roles and texts),
`max_tokens`, `stream`, `user`, `metadata`. Answer: `execution_id`, `task_type`, `model`, `output`, `finish_reason`, `usage`
in the provider's shape. A stream has the events `execution.started`, `execution.delta` and `execution.completed`; the last
one carries the whole answer.
"""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec

from metering.ids import uuid7
from metering.record_usage import record_usage
from pricing import clock
from project.demo_models import DEFAULT_MODEL
from project.gateway.conversation import Message, answer_to, decode, is_demo, limit_of, openai_usage
from project.gateway.exchange import EVENT_STREAM, Exchange, invalid_request
from project.gateway.remote import Outcome, ask, follow, provider_of
from project.gateway.settings import DEMO, GatewaySettings
from project.gateway.upstream import UpstreamBroken, UpstreamClient, refusal_of

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class ExecuteRequest(msgspec.Struct, forbid_unknown_fields=True):
    task_type: str | None = None
    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    user: str | None = None
    metadata: Json | None = None

    def conversation(self) -> list[Message]:
        """The messages; a prompt is one of the user. Raises Refused (400) when there are both or neither."""
        if (self.prompt is None) == (not self.messages):
            raise invalid_request("Give either prompt or messages.")
        return self.messages or [Message("user", self.prompt)]


_REQUEST = msgspec.json.Decoder(ExecuteRequest)


class Executor:
    """Runs tasks, and says to the meter itself what they used: the path does not tell whose model it was."""

    def __init__(self, settings: GatewaySettings, client: UpstreamClient) -> None:
        self._settings, self._client = settings, client

    async def answer(self, exchange: Exchange, body: bytes) -> None:
        """Answer one call. Raises Refused before the answer began, UpstreamBroken after."""
        request = decode(_REQUEST, body)
        model = request.model or DEFAULT_MODEL
        execution = _Execution(exchange, request.task_type, model)
        messages, limit = request.conversation(), limit_of("max_tokens", request.max_tokens)
        if is_demo(model):
            said = answer_to(model, [message.content for message in messages], limit)
            outcome = Outcome(
                DEMO, model, said.text, "stop" if said.finished else "length", openai_usage(said)
            )
            return await (
                execution.stream(_replay(said.tokens, outcome))
                if request.stream
                else execution.whole(outcome)
            )
        upstream = provider_of(model, self._settings)
        if not request.stream:
            return await execution.whole(await ask(self._client, upstream, model, messages, limit))
        async with aclosing(follow(self._client, upstream, model, messages, limit)) as events:
            try:
                return await execution.stream(events)
            except UpstreamBroken as error:
                if execution.started:
                    raise
                raise refusal_of(error, upstream) from error


async def _replay(tokens: list[str], outcome: Outcome) -> AsyncIterator[str | Outcome]:
    for token in tokens:
        yield token
    yield outcome


class _Execution:
    """One task on its way to its answer."""

    def __init__(self, exchange: Exchange, task_type: str | None, model: str) -> None:
        self._exchange, self._task_type, self._model = exchange, task_type, model
        self._id = str(uuid7(clock.now()))
        self.started = False

    async def whole(self, outcome: Outcome) -> None:
        self._record(outcome)
        await self._exchange.json(self._answer(outcome))

    async def stream(self, events: AsyncIterator[str | Outcome]) -> None:
        """Pieces of text as they come, then the outcome. A refusal that comes in place of the first piece is raised."""
        async for event in events:
            if not self.started:
                await self._exchange.start(200, EVENT_STREAM)
                head = {"execution_id": self._id, "task_type": self._task_type, "model": self._model}
                await self._exchange.chunk(_event("execution.started", head))
                self.started = True
            if isinstance(event, Outcome):
                self._record(event)
                await self._exchange.end(_event("execution.completed", self._answer(event)))
            else:
                await self._exchange.chunk(_event("execution.delta", {"delta": event}))

    def _answer(self, outcome: Outcome) -> Json:
        return {
            "execution_id": self._id, "task_type": self._task_type, "model": outcome.model, "output": outcome.output,
            "finish_reason": outcome.finish_reason, "usage": outcome.usage,
        }  # fmt: skip

    def _record(self, outcome: Outcome) -> None:
        if outcome.usage is not None:
            said = {"usage": outcome.usage, "service_tier": outcome.service_tier}
            record_usage(
                self._exchange.scope, usage=said, model=outcome.model, provider=outcome.provider,
                execution_id=self._id, task_type=self._task_type,
            )  # fmt: skip


def _event(name: str, facts: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name, **facts}))
