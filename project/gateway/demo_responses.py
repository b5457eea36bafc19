"""The demo models in the shape of OpenAI's Responses."""

from typing import Any
from uuid import uuid4

import msgspec

from pricing import clock
from project.demo_models import Reply
from project.gateway.conversation import Content, Message, answer_to, decode, limit_of
from project.gateway.exchange import EVENT_STREAM, Exchange, invalid_request

Json = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class ResponsesRequest(msgspec.Struct):
    model: str
    input: str | list[Message]
    instructions: str | None = None
    max_output_tokens: int | None = None
    stream: bool | None = None

    def contents(self) -> list[Content]:
        asked: list[Content] = (
            [self.input] if isinstance(self.input, str) else [item.content for item in self.input]
        )
        return [self.instructions, *asked] if self.instructions else asked


_REQUEST = msgspec.json.Decoder(ResponsesRequest)


async def answer_responses(exchange: Exchange, body: bytes) -> None:
    """Answer one call of the Responses API. Raises Refused for a request that is wrong."""
    request = decode(_REQUEST, body)
    if not request.input:
        raise invalid_request("input must not be empty.")
    limit = limit_of("max_output_tokens", request.max_output_tokens)
    said = answer_to(request.model, request.contents(), limit)
    answer = _Answer(request, said)
    if request.stream:
        await exchange.start(200, EVENT_STREAM)
        *events, last = answer.events()
        for event in events:
            await exchange.chunk(event)
        await exchange.end(last)
    else:
        await exchange.json(answer.done())


class _Answer:
    """One response object in its states, and the events that tell of it."""

    def __init__(self, request: ResponsesRequest, said: Reply) -> None:
        self._request, self._said = request, said
        self._id, self._item_id = f"resp_{uuid4().hex}", f"msg_{uuid4().hex}"
        self._created = int(clock.now().timestamp())

    def done(self) -> Json:
        said = self._said
        usage = {
            "input_tokens": said.tokens_input,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": said.tokens_output,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": said.tokens_input + said.tokens_output,
        }
        return self._response(
            self._end_status(), [self._item(self._end_status(), [self._part(said.text)])], usage
        )

    def events(self) -> list[bytes]:
        at = {"item_id": self._item_id, "output_index": 0, "content_index": 0}
        text, part = self._said.text, self._part(self._said.text)
        begun = self._response("in_progress", [], None)
        told: list[tuple[str, Json]] = [
            ("response.created", {"response": begun}),
            ("response.in_progress", {"response": begun}),
            ("response.output_item.added", {"output_index": 0, "item": self._item("in_progress", [])}),
            ("response.content_part.added", {**at, "part": self._part("")}),
            *(
                ("response.output_text.delta", {**at, "delta": token, "logprobs": []})
                for token in self._said.tokens
            ),
            ("response.output_text.done", {**at, "text": text, "logprobs": []}),
            ("response.content_part.done", {**at, "part": part}),
            (
                "response.output_item.done",
                {"output_index": 0, "item": self._item(self._end_status(), [part])},
            ),
            (f"response.{self._end_status()}", {"response": self.done()}),
        ]
        return [_event(name, number, facts) for number, (name, facts) in enumerate(told)]

    def _end_status(self) -> str:
        return "completed" if self._said.finished else "incomplete"

    def _response(self, status: str, output: list[Json], usage: Json | None) -> Json:
        request = self._request
        return {
            "id": self._id, "object": "response", "created_at": self._created, "status": status, "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": request.instructions, "max_output_tokens": request.max_output_tokens,
            "model": request.model, "output": output, "parallel_tool_calls": False, "temperature": 0,
            "tool_choice": "none", "tools": [], "top_p": 1, "metadata": {}, "usage": usage,
        }  # fmt: skip

    def _item(self, status: str, content: list[Json]) -> Json:
        return {
            "id": self._item_id,
            "type": "message",
            "role": "assistant",
            "status": status,
            "content": content,
        }

    def _part(self, text: str) -> Json:
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _event(name: str, number: int, facts: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (
        name.encode(),
        _encode({"type": name, "sequence_number": number, **facts}),
    )
