"""The demo models in the shape of Anthropic's Messages."""

from typing import Any
from uuid import uuid4

import msgspec

from project.demo_models import Reply
from project.gateway.conversation import Content, Message, answer_to, decode, limit_of
from project.gateway.exchange import EVENT_STREAM, Exchange, invalid_request

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class MessagesRequest(msgspec.Struct):
    model: str
    messages: list[Message]
    max_tokens: int
    system: Content = None
    stream: bool | None = None


_REQUEST = msgspec.json.Decoder(MessagesRequest)


async def answer_messages(exchange: Exchange, body: bytes) -> None:
    """Answer one call of the Messages API. Raises Refused for a request that is wrong."""
    request = decode(_REQUEST, body)
    if not request.messages:
        raise invalid_request("messages must hold at least one message.")
    limit = limit_of("max_tokens", request.max_tokens)
    contents: list[Content] = [request.system, *(message.content for message in request.messages)]
    said = answer_to(request.model, contents, limit)
    if request.stream:
        await exchange.start(200, EVENT_STREAM)
        for event in _events(request.model, said):
            await exchange.chunk(event)
        await exchange.end(_event("message_stop", {}))
    else:
        await exchange.json(_message(request.model, said))


def _message(model: str, said: Reply) -> Json:
    return {
        **_head(model),
        "content": [{"type": "text", "text": said.text}],
        "stop_reason": _stop_reason(said),
        "usage": _usage(said, said.tokens_output),
    }


def _events(model: str, said: Reply) -> list[bytes]:
    """All events but the last. The first one knows the input, message_delta the whole output, as at Anthropic."""
    begun = {**_head(model), "usage": _usage(said, 1)}
    deltas = [
        _event("content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": token}})
        for token in said.tokens
    ]
    ended = {
        "delta": {"stop_reason": _stop_reason(said), "stop_sequence": None},
        "usage": {"output_tokens": said.tokens_output},
    }
    return [
        _event("message_start", {"message": begun}),
        _event("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        _event("ping", {}),
        *deltas,
        _event("content_block_stop", {"index": 0}),
        _event("message_delta", ended),
    ]


def _head(model: str) -> Json:
    return {
        "id": f"msg_{uuid4().hex}", "type": "message", "role": "assistant", "model": model, "content": [],
        "stop_reason": None, "stop_sequence": None,
    }  # fmt: skip


def _usage(said: Reply, tokens_output: int) -> Json:
    return {
        "input_tokens": said.tokens_input,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": tokens_output,
        "service_tier": "standard",
    }


def _stop_reason(said: Reply) -> str:
    return "end_turn" if said.finished else "max_tokens"


def _event(name: str, facts: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _encode({"type": name, **facts}))
