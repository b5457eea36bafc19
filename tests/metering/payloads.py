"""Answers as providers send them, small enough to add up in the head."""

import json
from typing import Any

CHAT_USAGE = {
    "prompt_tokens": 1200, "completion_tokens": 300, "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 1024, "cache_write_tokens": 128, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 192, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
    },
}  # fmt: skip
CHAT_BUCKETS = {
    "in_uncached": 1200 - 1024 - 128,
    "in_cache_read": 1024,
    "in_cache_write_unknown": 128,
    "out_visible": 300 - 192,
    "out_reasoning": 192,
}
RESPONSES_USAGE = {
    "input_tokens": 100, "output_tokens": 20, "total_tokens": 120,
    "input_tokens_details": {
        "cached_tokens": 10, "cache_write_tokens": 64,
        "cache_write_tokens_details": {"ttl_30m_tokens": 60, "ttl_12h_tokens": 4},
    },
    "output_tokens_details": {"reasoning_tokens": 5},
}  # fmt: skip
RESPONSES_BUCKETS = {
    "in_uncached": 100 - 10 - 64,
    "in_cache_read": 10,
    "in_cache_write_30m": 60,
    "in_cache_write_12h": 4,
    "out_visible": 20 - 5,
    "out_reasoning": 5,
}
MESSAGE_USAGE = {
    "input_tokens": 10, "cache_creation_input_tokens": 3000, "cache_read_input_tokens": 5000,
    "cache_creation": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000},
    "output_tokens": 500, "output_tokens_details": {"thinking_tokens": 120}, "service_tier": "standard",
}  # fmt: skip
MESSAGE_BUCKETS = {
    "in_uncached": 10,
    "in_cache_read": 5000,
    "in_cache_write_5m": 2000,
    "in_cache_write_1h": 1000,
    "out_visible": 500 - 120,
    "out_reasoning": 120,
}


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def data(document: Any, *, line_end: bytes = b"\n") -> bytes:
    """One event without a name."""
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + line_end * 2


def event(kind: str, *, line_end: bytes = b"\n", **fields: Any) -> bytes:
    """One named event whose data says its name again, as Anthropic and OpenAI Responses do."""
    text = json.dumps({"type": kind, **fields}, ensure_ascii=False).encode()
    return b"event: " + kind.encode() + line_end + b"data: " + text + line_end * 2


def chat_stream(
    usage: dict[str, Any] | None = CHAT_USAGE, *, line_end: bytes = b"\n", words: int = 3
) -> bytes:
    """`words` chunks of text, the usage chunk when there is one, and the end."""
    head = {"object": "chat.completion.chunk", "model": "gpt-5.6", "service_tier": "default"}
    chunks = [
        {**head, "choices": [{"index": 0, "delta": {"content": f'é "usage" {n} '}}], "usage": None}
        for n in range(words)
    ]
    events = [data(chunk, line_end=line_end) for chunk in chunks]
    if usage is not None:
        events.append(data({**head, "choices": [], "usage": usage}, line_end=line_end))
    return b"".join(events) + b"data: [DONE]" + line_end * 2


def responses_stream(*, line_end: bytes = b"\n", **response: Any) -> bytes:
    """Two pieces of text between the first and the terminal event, which repeats everything."""
    final = {
        "model": "gpt-5.6",
        "status": "completed",
        "service_tier": "flex",
        "usage": RESPONSES_USAGE,
        **response,
    }
    return b"".join([
        event("response.created", line_end=line_end, response={"model": "gpt-5.6", "usage": None}),
        event("response.output_text.delta", line_end=line_end, delta="response.completed ü"),
        event("response.output_text.delta", line_end=line_end, delta='"type":"response.completed"'),
        event("response.completed", line_end=line_end, response=final),
    ])  # fmt: skip


def message_stream(*, line_end: bytes = b"\n") -> bytes:
    """The input side on the first event, the output side on the last but one; nothing may be added up."""
    start = {**MESSAGE_USAGE, "output_tokens": 1, "output_tokens_details": None}
    return b"".join([
        event("message_start", line_end=line_end, message={"model": "claude-sonnet-4-5", "usage": start}),
        event("content_block_start", line_end=line_end, index=0),
        b": keep-alive" + line_end * 2,
        event("content_block_delta", line_end=line_end, delta={"type": "text_delta", "text": "message_stop ♥"}),
        event("ping", line_end=line_end),
        event("message_delta", line_end=line_end, delta={"stop_reason": None}, usage={"output_tokens": 200}),
        event("message_delta", line_end=line_end, delta={"stop_reason": "end_turn"},
              usage={"output_tokens": 500, "output_tokens_details": {"thinking_tokens": 120}}),
        event("message_stop", line_end=line_end),
    ])  # fmt: skip
