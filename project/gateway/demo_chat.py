"""The demo models in the shape of OpenAI's chat completions."""

from typing import Any
from uuid import uuid4

import msgspec

from metering.record_usage import record_usage
from pricing import clock
from project.demo_models import Reply
from project.gateway.conversation import Message, answer_to, decode, limit_of, openai_usage
from project.gateway.exchange import EVENT_STREAM, Exchange, invalid_request
from project.gateway.settings import DEMO

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class ChatRequest(msgspec.Struct):
    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    n: int | None = None

    @property
    def wants_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage is True


_REQUEST = msgspec.json.Decoder(ChatRequest)


async def answer_chat(exchange: Exchange, body: bytes) -> None:
    """Answer one chat completion. Raises Refused for a request that is wrong."""
    request = decode(_REQUEST, body)
    if not request.messages:
        raise invalid_request("messages must hold at least one message.")
    if request.n not in (None, 1):
        raise invalid_request("The demo models give one choice: n must be 1.")
    limit = limit_of("max_completion_tokens", request.max_completion_tokens) or limit_of(
        "max_tokens", request.max_tokens
    )
    said = answer_to(request.model, [message.content for message in request.messages], limit)
    if request.stream:
        await _stream(exchange, request, said)
    else:
        message = {"role": "assistant", "content": said.text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _finish_reason(said)}
        await exchange.json(
            {**_head(request.model, "chat.completion"), "choices": [choice], "usage": openai_usage(said)}
        )


async def _stream(exchange: Exchange, request: ChatRequest, said: Reply) -> None:
    head = _head(request.model, "chat.completion.chunk")
    if request.wants_usage:
        head["usage"] = None
    await exchange.start(200, EVENT_STREAM)
    await exchange.chunk(_event(_with_delta(head, {"role": "assistant", "content": ""}, None)))
    for token in said.tokens:
        await exchange.chunk(_event(_with_delta(head, {"content": token}, None)))
    await exchange.chunk(_event(_with_delta(head, {}, _finish_reason(said))))
    if request.wants_usage:
        await exchange.chunk(_event({**head, "choices": [], "usage": openai_usage(said)}))
    else:
        record_usage(exchange.scope, usage=openai_usage(said), model=request.model, provider=DEMO)
    await exchange.end(b"data: [DONE]\n\n")


def _head(model: str, kind: str) -> Json:
    created = int(clock.now().timestamp())
    return {"id": f"chatcmpl-{uuid4().hex}", "object": kind, "created": created, "model": model}


def _with_delta(head: Json, delta: Json, finish_reason: str | None) -> Json:
    return {
        **head,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }


def _finish_reason(said: Reply) -> str:
    return "stop" if said.finished else "length"


def _event(value: Json) -> bytes:
    return b"data: " + _encode(value) + b"\n\n"
