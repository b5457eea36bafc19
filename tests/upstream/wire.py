"""Answers in the shapes of the providers: whole, and as the events of a stream. Pure functions over an `Answer`."""

import json
import re
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]
WORDS = ("Viele", " liebe", " Grüße", " vom", " Modell")  # characters of two bytes, so that a cut can hit one
PROMPT_TOKENS, COMPLETION_TOKENS = 12, len(WORDS)
HUGE = "x" * (1024 * 1024 + 1)
GENERATE = "generateContent"  # stands for all paths of Google's, which differ by model
_GOOGLE_PATH = re.compile(
    r"/v1(?:beta)?/models/(?P<model>[^/]+):(?P<verb>generateContent|streamGenerateContent)"
)


@dataclass(frozen=True)
class Answer:
    """What the model says and what the provider counts; `usage` None leaves it out."""

    number: int
    model: str
    usage: Json | None
    include_usage: bool = False
    array: bool = False  # Google's stream as one JSON array
    padding: Json = field(default_factory=dict)
    words: tuple[str, ...] = WORDS

    @property
    def text(self) -> str:
        return "".join(self.words)


def google_path(path: str) -> tuple[str, str] | None:
    """Model and verb of a path of Google's, None for any other."""
    found = _GOOGLE_PATH.fullmatch(path)
    return (found["model"], found["verb"]) if found is not None else None


def service(path: str) -> str:
    """What the path leads to: itself, or `GENERATE`."""
    return path if google_path(path) is None else GENERATE


def usage_for(path: str, given: Json | None) -> Json:
    """The usage object of that path's API: the default counts, or the ones that the test gives."""
    if given is not None:
        return given
    if service(path) == GENERATE:
        return {
            "promptTokenCount": PROMPT_TOKENS, "candidatesTokenCount": COMPLETION_TOKENS,
            "totalTokenCount": PROMPT_TOKENS + COMPLETION_TOKENS,
        }  # fmt: skip
    if path == "/v1/chat/completions":
        total = PROMPT_TOKENS + COMPLETION_TOKENS
        return {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS, "total_tokens": total}
    if path == "/v1/embeddings":
        return {"prompt_tokens": PROMPT_TOKENS, "total_tokens": PROMPT_TOKENS}
    usage = {"input_tokens": PROMPT_TOKENS, "output_tokens": COMPLETION_TOKENS}
    return usage if path == "/v1/messages" else {**usage, "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS}


def whole(path: str, answer: Answer) -> Json:
    """The answer of a call that is no stream."""
    document = _WHOLE[service(path)](answer)
    name = "usageMetadata" if service(path) == GENERATE else "usage"
    return {**document, **({} if answer.usage is None else {name: answer.usage}), **answer.padding}


def events(path: str, answer: Answer) -> list[bytes]:
    """The events of a stream; the last one is the terminal one."""
    return _EVENTS[service(path)](answer)


def _chat(answer: Answer) -> Json:
    message = {"role": "assistant", "content": answer.text}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return {**_chat_head(answer), "object": "chat.completion", "choices": [choice]}


def _chat_head(answer: Answer) -> Json:
    return {"id": f"chatcmpl-{answer.number}", "created": 1_780_000_000, "model": answer.model}


def _chat_events(answer: Answer) -> list[bytes]:
    head = {**_chat_head(answer), "object": "chat.completion.chunk"}
    if answer.include_usage and answer.usage is not None:
        head["usage"] = None
    deltas = [{"content": word} for word in answer.words]
    chunks = [{**head, "choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
    chunks.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if answer.include_usage and answer.usage is not None:
        chunks.append({**head, "choices": [], "usage": answer.usage, **answer.padding})
    return [b"data: " + _json(chunk) + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]


def _response(answer: Answer, status: str = "completed") -> Json:
    part = {"type": "output_text", "text": answer.text, "annotations": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    return {
        "id": f"resp_{answer.number}", "object": "response", "created_at": 1_780_000_000, "status": status,
        "model": answer.model, "output": [item] if status == "completed" else [], "usage": None, "tools": [],
        "parallel_tool_calls": False, "tool_choice": "auto",
    }  # fmt: skip


def _response_events(answer: Answer) -> list[bytes]:
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    part = {"type": "output_text", "text": "", "annotations": []}
    told: list[tuple[str, Json]] = [
        ("response.created", {"response": _response(answer, "in_progress")}),
        ("response.output_item.added", {"output_index": 0, "item": item}),
        (
            "response.content_part.added",
            {"item_id": "msg_1", "output_index": 0, "content_index": 0, "part": part},
        ),
        *(("response.output_text.delta", {**at, "delta": word}) for word in answer.words),
        ("response.completed", {"response": {**_response(answer), "usage": answer.usage, **answer.padding}}),
    ]
    return [_named(name, {"sequence_number": number, **facts}) for number, (name, facts) in enumerate(told)]


def _embeddings(answer: Answer) -> Json:
    data = [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5, 1.0]}]
    return {"object": "list", "model": answer.model, "data": data}


def _message(answer: Answer) -> Json:
    content = [{"type": "text", "text": answer.text}]
    return {**_message_head(answer), "content": content, "stop_reason": "end_turn"}


def _message_head(answer: Answer) -> Json:
    return {
        "id": f"msg_{answer.number}", "type": "message", "role": "assistant", "model": answer.model, "content": [],
        "stop_reason": None, "stop_sequence": None,
    }  # fmt: skip


def _message_events(answer: Answer) -> list[bytes]:
    """The input side comes with the first event, the output count grows until message_delta says the last of it."""
    begun, ended = _message_head(answer), {"delta": {"stop_reason": "end_turn"}, **answer.padding}
    if answer.usage is not None:
        begun["usage"] = {**answer.usage, "output_tokens": 1}
        ended["usage"] = {"output_tokens": answer.usage.get("output_tokens")}
    text: list[Json] = [{"index": 0, "delta": {"type": "text_delta", "text": word}} for word in answer.words]
    return [
        _named("message_start", {"message": begun}),
        _named("content_block_start", {"index": 0, "content_block": {"type": "text", "text": ""}}),
        _named("ping", {}),
        *(_named("content_block_delta", delta) for delta in text),
        _named("content_block_stop", {"index": 0}),
        _named("message_delta", ended),
        _named("message_stop", {}),
    ]


def _generated(answer: Answer) -> Json:
    return _candidate(answer, answer.text, finish_reason="STOP")


def _candidate(answer: Answer, text: str, finish_reason: str | None = None) -> Json:
    candidate: Json = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    candidate |= {"finishReason": finish_reason} if finish_reason else {}
    return {
        "candidates": [candidate],
        "modelVersion": answer.model,
        "responseId": f"generated-{answer.number}",
    }


def _generate_events(answer: Answer) -> list[bytes]:
    """Each chunk says the usage so far; the last one, which has no text, says all of it."""
    chunks = [_candidate(answer, word) for word in answer.words]
    chunks.append({**_candidate(answer, "", finish_reason="STOP"), **answer.padding})
    if answer.usage is not None:
        prompt = answer.usage["promptTokenCount"]
        for so_far, chunk in enumerate(chunks, start=1):
            chunk["usageMetadata"] = {
                "promptTokenCount": prompt,
                "candidatesTokenCount": so_far,
                "totalTokenCount": prompt + so_far,
            }
        chunks[-1]["usageMetadata"] = answer.usage
    if not answer.array:
        return [b"data: " + _json(chunk) + b"\r\n\r\n" for chunk in chunks]
    first, *others = [_json(chunk) for chunk in chunks]
    pieces = [b"[" + first, *(b"\n,\r\n" + chunk for chunk in others)]
    return [*pieces[:-1], pieces[-1] + b"\n]"]


def error(path: str, status: int, message: str) -> Json:
    """An error as that provider words it."""
    if service(path) == GENERATE:
        return {"error": {"code": status, "message": message, "status": _GOOGLE_STATUSES[status]}}
    if path == "/v1/messages":
        return {"type": "error", "error": {"type": "api_error", "message": message}}
    return {"error": {"message": message, "type": "server_error", "code": str(status), "param": None}}


def google_refuses_the_key() -> Json:
    """What Google says of a key that it does not know, with the status 400."""
    reason = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}
    return {"error": {**error(_ANY_GOOGLE_PATH, 400, "API key not valid.")["error"], "details": [reason]}}


def _named(name: str, facts: Json) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), _json({"type": name, **facts}))


def _json(value: Json) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


_ANY_GOOGLE_PATH = "/v1/models/any:generateContent"
_GOOGLE_STATUSES = {
    307: "UNKNOWN", 400: "INVALID_ARGUMENT", 429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 529: "UNAVAILABLE",
}  # fmt: skip
_WHOLE = {
    "/v1/chat/completions": _chat,
    "/v1/responses": _response,
    "/v1/embeddings": _embeddings,
    "/v1/messages": _message,
    GENERATE: _generated,
}
_EVENTS = {
    "/v1/chat/completions": _chat_events,
    "/v1/responses": _response_events,
    "/v1/messages": _message_events,
    GENERATE: _generate_events,
}
SERVICES = frozenset(_WHOLE)
