"""What holds for every wire format: any JSON and any bytes are survived, and a stream says what the whole answer says."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import wire_format, wire_format_names
from metering.extract.tail import usage_of_tail
from metering.tap import open_tap, usage_of_messages
from pricing.usage import Usage
from tests.metering.payloads import data, event

FACTS = RequestFacts(model="asked-for", readable=True, tokens_input_estimate=11)
FORMATS = wire_format_names()
SSE = "text/event-stream"

NAMES = st.sampled_from([
    "usage", "model", "type", "object", "response", "body", "message", "result", "output", "outputs", "tools", "tool_usage", "data",
    "choices", "x_groq", "usage_breakdown", "models", "svg_usage", "usage_info", "pages_processed", "event", "session", "decision",
    "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "prompt_tokens_details",
    "input_tokens_details", "output_tokens_details", "cached_tokens", "cached_tokens_details", "audio_tokens", "image_tokens",
    "cache_write_tokens", "cache_write_tokens_details", "ttl_30m_tokens", "reasoning_tokens", "citation_tokens", "connectors",
    "connector_tokens", "web_search", "num_requests", "image_gen", "seconds", "duration", "prompt_audio_seconds", "cost",
    "cost_in_usd_ticks", "service_tier", "extra_properties", "google", "server_side_tool_usage_details", "tool_calls_details",
    "num_search_queries", "action", "status", "id", "item_id",
])  # fmt: skip
WORDS = st.sampled_from([
    "response.completed", "response.done", "session.closed", "session.usage.updated", "web_search_call", "search", "batch",
    "image_generation.completed", "transcript.text.done", "conversation.response.done", "response.event", "gpt-5.6", "sonar",
])  # fmt: skip
NUMBERS = st.integers(-3, 10**6) | st.sampled_from([0, 1, 2**53, 2**53 + 1, 10**30, 1.5, 12.3, 1e300])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | WORDS | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=20,
)  # fmt: skip
OBJECTS = st.dictionaries(NAMES, JSON, max_size=7)


def assert_sane(usage: Usage) -> None:
    assert all(count >= 0 for count in usage.buckets.values())
    assert (
        usage.consistency == "ok"
        or usage.consistency == "inconsistent"
        or usage.consistency.startswith("repaired:")
    )
    assert usage.source != "none" or (not usage.buckets and not usage.parts and usage.tokens_total is None)
    if usage.parts:
        total: dict[str, Any] = {}
        for part in usage.parts:
            for bucket, count in part.buckets.items():
                total[bucket] = total.get(bucket, 0) + count
        assert total == usage.buckets
    if usage.consistency.startswith("repaired:"):
        assert usage.rules


@given(document=JSON | OBJECTS)
def test_any_json_is_survived(document: Any) -> None:
    text = json.dumps(document).encode()
    for fmt in FORMATS:
        assert_sane(wire_format(fmt).read_body(text, FACTS, "openai"))
        assert_sane(usage_of_tail(wire_format(fmt), FACTS, "openai", text))


@given(text=st.binary(max_size=60))
def test_any_bytes_are_survived(text: bytes) -> None:
    for fmt in FORMATS:
        assert wire_format(fmt).read_body(text, FACTS, "openai").source == "none"


@given(documents=st.lists(OBJECTS, max_size=3), complete=st.booleans())
def test_any_stream_is_survived(documents: list[dict[str, Any]], complete: bool) -> None:
    events = [data(document) for document in documents]
    messages = [json.dumps(document) for document in documents]
    for fmt in FORMATS:
        tap = open_tap(wire_format(fmt), FACTS, "xai", SSE, "")
        for text in events:
            if tap.feed(text) >= 0:
                break
        assert_sane(tap.finish(complete))
        assert_sane(
            usage_of_messages(wire_format(fmt), messages, facts=FACTS, provider="xai", complete=complete)
        )


# --- whole and streamed ---

COUNTS = st.integers(0, 10**5)
DETAILS = st.dictionaries(
    st.sampled_from(["cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "reasoning_tokens"]), COUNTS
)  # fmt: skip
PROVIDERS = st.sampled_from(["openai", "xai", "perplexity", "portkey", "openrouter"])
TIERS = st.sampled_from([None, "default", "flex", "priority"])


def chat_usage(draw: Any) -> dict[str, Any]:
    """Counters that may or may not fit together, as gateways make them."""
    prompt, completion, extra = draw(COUNTS), draw(COUNTS), draw(st.sampled_from([0, 0, 0, 7]))
    usage = {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion + extra,
        "prompt_tokens_details": draw(DETAILS | st.none()), "completion_tokens_details": draw(DETAILS | st.none()),
    }  # fmt: skip
    more = st.fixed_dictionaries({}, optional={
        "cost": st.decimals(0, 1, places=6).map(float), "citation_tokens": COUNTS, "num_search_queries": st.integers(0, 3),
        "prompt_cache_hit_tokens": COUNTS, "is_byok": st.booleans(),
    })  # fmt: skip
    return {**usage, **draw(more)}


def watch(fmt: str, provider: str, *chunks: bytes) -> Usage:
    tap = open_tap(wire_format(fmt), FACTS, provider, SSE, "")
    for chunk in chunks:
        tap.feed(chunk)
    return tap.finish(complete=True)


@given(st.data(), PROVIDERS, TIERS, st.booleans())
def test_a_chat_stream_says_what_the_whole_answer_says(
    draw: Any, provider: str, tier: str | None, running: bool
) -> None:
    usage = chat_usage(draw.draw)
    head = {"model": "m", "service_tier": tier}
    whole = wire_format("openai_chat").read_body(
        json.dumps({**head, "choices": [], "usage": usage}).encode(), FACTS, provider
    )
    interim = {
        "prompt_tokens": usage["prompt_tokens"],
        "completion_tokens": 0,
        "total_tokens": usage["prompt_tokens"],
    }
    words = data({**head, "choices": [{}], "usage": interim if running else None})
    last = data({**head, "choices": [], "usage": usage})
    assert watch("openai_chat", provider, words, words, last, b"data: [DONE]\n\n") == whole


@given(st.data(), PROVIDERS, TIERS)
def test_a_responses_stream_says_what_the_whole_answer_says(
    draw: Any, provider: str, tier: str | None
) -> None:
    chat = chat_usage(draw.draw)
    usage = {
        name.replace("prompt", "input").replace("completion", "output") if not name.endswith("hit_tokens") else name: value
        for name, value in chat.items()
    }  # fmt: skip
    searches, images = draw.draw(st.integers(0, 2)), draw.draw(st.sampled_from([0, 900]))
    calls = draw.draw(
        st.lists(
            st.sampled_from(["web_search_call", "file_search_call", "message", "code_interpreter_call"]),
            max_size=4,
        )
    )
    response: dict[str, Any] = {
        "object": "response", "model": "m", "service_tier": tier, "usage": usage, "output": [{"type": kind} for kind in calls],
        "tool_usage": draw.draw(st.sampled_from([
            None, {"web_search": {"num_requests": searches}, "image_gen": {"output_tokens": images, "input_tokens": 0, "total_tokens": images}},
        ])),
    }  # fmt: skip
    whole = wire_format("openai_responses").read_body(json.dumps(response).encode(), FACTS, provider)
    begun = event("response.created", response={**response, "usage": None})
    kind = draw.draw(st.sampled_from(["response.completed", "response.incomplete", "response.failed"]))
    assert watch("openai_responses", provider, begun, event(kind, response=response)) == whole


@pytest.mark.parametrize(("fmt", "kind"), [("openai_images", "image_generation.completed"), ("openai_images", "image_edit.completed"),
                                           ("openai_transcription", "transcript.text.done"), ("openai_transcription", "transcription.done"),
                                           ("mistral_conversations", "conversation.response.done")])  # fmt: skip
@given(st.data())
def test_other_streams_say_what_the_whole_answer_says(fmt: str, kind: str, draw: Any) -> None:
    answer: dict[str, Any] = {"model": "m", "usage": chat_usage(draw.draw)}
    whole = wire_format(fmt).read_body(json.dumps(answer).encode(), FACTS, "openai")
    assert watch(fmt, "openai", event(kind, **answer)) == whole
