"""Answers of providers, of everyday size, that the benchmarks read."""

import json

_TEXT = "The answer, my friend, is blowing in the wind. " * 12

USAGE = {
    "prompt_tokens": 1200, "completion_tokens": 300, "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 1024, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 192, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
    },
}  # fmt: skip
CHAT = json.dumps({
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1763640000, "model": "gpt-5-mini", "service_tier": "default",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": _TEXT}, "finish_reason": "stop"}],
    "usage": USAGE,
}).encode()  # fmt: skip
MESSAGE = json.dumps({
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
    "content": [{"type": "text", "text": _TEXT}], "stop_reason": "end_turn",
    "usage": {
        "input_tokens": 10, "cache_creation_input_tokens": 3000,
        "cache_creation": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000},
        "cache_read_input_tokens": 5000, "output_tokens": 500, "service_tier": "standard",
    },
}).encode()  # fmt: skip
GENERATION = json.dumps({
    "candidates": [{"content": {"parts": [{"text": _TEXT}], "role": "model"}, "finishReason": "STOP", "index": 0}],
    "usageMetadata": {
        "promptTokenCount": 1000, "cachedContentTokenCount": 400, "candidatesTokenCount": 200, "thoughtsTokenCount": 300,
        "totalTokenCount": 1500, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 1000}],
        "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 400}], "trafficType": "ON_DEMAND",
    },
    "modelVersion": "gemini-2.5-pro", "responseId": "r1",
}).encode()  # fmt: skip
EMBEDDING = json.dumps({
    "object": "list", "model": "text-embedding-3-small",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.0123] * 100}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}).encode()  # fmt: skip


def _chunk(delta: object, usage: object = None) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": None}]
    body = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1763640000, "model": "gpt-5-mini",
            "system_fingerprint": "fp_0123456789abcdef", "choices": choices, "usage": usage}  # fmt: skip
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


RESPONSE = json.dumps({
    "id": "resp_1", "object": "response", "created_at": 1763640000, "model": "gpt-5-mini", "status": "completed",
    "service_tier": "default", "output": [{"type": "message", "content": [{"type": "output_text", "text": _TEXT}]}],
    "usage": {
        "input_tokens": 1200, "input_tokens_details": {"cached_tokens": 1024}, "output_tokens": 300,
        "output_tokens_details": {"reasoning_tokens": 192}, "total_tokens": 1500,
    },
}).encode()  # fmt: skip
STREAM_CHUNK = _chunk(
    {"content": "The answer, my friend, is blowing in the wind, the answer is blowing in the wind. "}
)
CHAT_STREAM = [*[_chunk({"content": "blowing "})] * 18, _chunk(None, USAGE), b"data: [DONE]\n\n"]
