"""An answer in another format than its route's: read as what it is, and marked so."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from pricing.usage import Usage
from tests.metering.payloads import (
    CHAT_BUCKETS,
    CHAT_USAGE,
    MESSAGE_BUCKETS,
    MESSAGE_USAGE,
    RESPONSES_BUCKETS,
    RESPONSES_USAGE,
    body,
    chat_stream,
    data,
    message_stream,
    responses_stream,
)
from tests.metering.streams import AWS, JSON, NDJSON, SSE, array, aws_message, cut, lines, tap_for, watch

GEMINI = {"promptTokenCount": 8, "candidatesTokenCount": 12, "totalTokenCount": 20}
GEMINI_BUCKETS = {"in_uncached": 8, "out_visible": 12}
CONVERSE = {"inputTokens": 8, "outputTokens": 12, "totalTokens": 20}

BODIES = [
    pytest.param("openai_chat", body(candidates=[{}], usageMetadata=GEMINI), "gemini_generate", GEMINI_BUCKETS, id="Gemini"),
    pytest.param("execute", body(candidates=[{}], usageMetadata=GEMINI), "gemini_generate", GEMINI_BUCKETS, id="ours"),
    pytest.param("gemini_generate", body(object="chat.completion", choices=[], usage=CHAT_USAGE), "openai_chat", CHAT_BUCKETS,
                 id="chat"),
    pytest.param("cohere_v1", body(type="message", usage=MESSAGE_USAGE, content=[]), "anthropic_messages", MESSAGE_BUCKETS,
                 id="message"),
    pytest.param("ollama", body(object="response", usage=RESPONSES_USAGE), "openai_responses", RESPONSES_BUCKETS, id="response"),
]  # fmt: skip


@pytest.mark.parametrize(("route", "text", "name", "buckets"), BODIES)
def test_a_body_in_another_format_is_read_as_that(
    route: str, text: bytes, name: str, buckets: dict[str, int]
) -> None:
    usage = watch(tap_for(route, JSON), [text])[1]
    assert (usage.buckets, usage.source) == (buckets, "reported")
    assert (usage.consistency, usage.rules) == ("repaired:format_by_content", ("format_by_content",))
    assert usage.extractor.startswith(f"{name}/")


def test_a_body_that_the_route_s_format_reads_stays_with_it() -> None:
    usage = watch(
        tap_for("openai_chat", JSON), [body(candidates=[], usage=CHAT_USAGE, usageMetadata=GEMINI)]
    )[1]
    assert (usage.buckets, usage.rules) == (CHAT_BUCKETS, ())


@pytest.mark.parametrize(
    "text", [body(error={"message": "no"}), body(object="response"), b"<html>", b"[]", body(usage=None)]
)
@pytest.mark.parametrize("route", ["openai_chat", "anthropic_messages", "execute"])
def test_a_body_without_usage_stays_without(route: str, text: bytes) -> None:
    usage = watch(tap_for(route, JSON), [text])[1]
    assert (usage.source, usage.rules) == ("none", ())


def gemini_chunk(text: str, **more: Any) -> dict[str, Any]:
    return {
        "candidates": [{"content": {"parts": [{"text": text}]}}],
        "modelVersion": "gemini-2.5-pro",
        **more,
    }


GEMINI_CHUNKS = [gemini_chunk("Hi"), gemini_chunk(".", usageMetadata=GEMINI)]
STREAMS = [
    pytest.param("openai_chat", SSE, message_stream(), "anthropic_messages", MESSAGE_BUCKETS, id="messages for chat"),
    pytest.param("openai_responses", SSE, chat_stream(), "openai_chat", CHAT_BUCKETS, id="chat for responses"),
    pytest.param("anthropic_messages", SSE, responses_stream(), "openai_responses", RESPONSES_BUCKETS, id="responses for messages"),
    pytest.param("openai_chat", SSE, b"".join(map(data, GEMINI_CHUNKS)), "gemini_generate", GEMINI_BUCKETS, id="Gemini for chat"),
    pytest.param("openai_chat", JSON, array(*GEMINI_CHUNKS), "gemini_generate", GEMINI_BUCKETS, id="Gemini's array for chat"),
    pytest.param("execute", NDJSON, lines({"model": "m", "message": {}, "done": False},
                                          {"model": "m", "done": True, "prompt_eval_count": 8, "eval_count": 12}),
                 "ollama", GEMINI_BUCKETS, id="Ollama for ours"),
    pytest.param("cohere_v1", AWS, aws_message("messageStart", {"role": "assistant"})
                 + aws_message("metadata", {"usage": CONVERSE}), "bedrock_converse", GEMINI_BUCKETS, id="Converse for Cohere"),
]  # fmt: skip


@pytest.mark.parametrize(("route", "content_type", "text", "name", "buckets"), STREAMS)
def test_a_stream_in_another_format_is_read_as_that_wherever_it_is_cut(
    route: str, content_type: str, text: bytes, name: str, buckets: dict[str, int]
) -> None:
    for place in range(1, len(text), 2):
        usage = watch(tap_for(route, content_type), [text[:place], text[place:]])[1]
        assert (usage.buckets, usage.source) == (buckets, "reported"), place
        assert usage.rules == ("format_by_content",)
        assert usage.extractor.startswith(f"{name}/")


@pytest.mark.parametrize(
    ("route", "text", "end"),
    [
        ("openai_chat", message_stream(), b"event: message_stop"),
        ("openai_responses", chat_stream(), b"data: [DONE]"),
        ("anthropic_messages", responses_stream(), b"event: response.completed"),
    ],
)
def test_its_own_terminal_event_waits_for_the_commit(route: str, text: bytes, end: bytes) -> None:
    assert watch(tap_for(route, SSE), [text])[0] == text[: text.index(end)]


def test_a_stream_that_the_route_s_format_reads_is_not_ended_by_another_one() -> None:
    chunks = [
        data({"type": "message_start", "message": {}, "choices": [{}], "usage": {"prompt_tokens": 8, "completion_tokens": 1}}),
        data({"type": "message_stop", "choices": [{}]}),
        data({"choices": [], "usage": {"prompt_tokens": 8, "completion_tokens": 12}}),
        b"data: [DONE]\n\n",
    ]  # fmt: skip
    for route in ("openai_chat", "openai_completions"):
        usage = watch(tap_for(route, SSE), chunks)[1]
        assert (usage.buckets, usage.rules) == (GEMINI_BUCKETS, ())


def test_where_neither_format_finds_usage_it_is_estimated_by_the_one_that_knows_the_stream() -> None:
    text = message_stream()
    start = data({"type": "message_start", "message": {"model": "claude"}})
    usage = watch(
        tap_for("openai_chat", SSE), [start, data({"type": "content_block_delta"})], complete=False
    )[1]
    assert (usage.source, usage.model, usage.rules) == ("estimated", "claude", ("format_by_content",))
    assert usage.tokens_output == 2 and text


@given(st.lists(st.sampled_from([chat_stream(), message_stream(), responses_stream(), *map(data, GEMINI_CHUNKS)]), max_size=3),
       st.sampled_from(["openai_chat", "anthropic_messages", "openai_responses", "execute", "gemini_generate"]), st.data())  # fmt: skip
def test_any_mixture_of_streams_reads_the_same_however_it_is_cut(
    parts: list[bytes], route: str, choice: st.DataObject
) -> None:
    text = b"".join(parts)
    places = choice.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=5))
    whole = watch(tap_for(route, SSE), [text])[1]
    pieces: Usage = watch(tap_for(route, SSE), cut(text, places))[1]
    assert pieces == whole


def test_a_document_that_is_called_a_stream_is_read_as_a_document() -> None:
    text = body(object="chat.completion", choices=[], usage=CHAT_USAGE)
    for place in range(1, len(text)):
        usage = watch(tap_for("openai_chat", SSE), [text[:place], text[place:]])[1]
        assert (usage.buckets, usage.rules) == (CHAT_BUCKETS, ())
    assert watch(tap_for("openai_chat", SSE), [body(error={"message": "no"})])[1].source == "none"
    assert watch(tap_for("gemini_generate", SSE), [array(*GEMINI_CHUNKS)])[1].buckets == GEMINI_BUCKETS


def test_lines_that_are_called_a_document_are_read_as_lines() -> None:
    text = lines({"choices": [{}], "usage": None}, {"choices": [], "usage": CHAT_USAGE})
    usage = watch(tap_for("openai_chat", JSON), [text[:9], text[9:]])[1]
    assert (usage.buckets, usage.source, usage.rules) == (CHAT_BUCKETS, "reported", ())
    ollama = lines(
        {"model": "m", "message": {}, "done": False},
        {"model": "m", "done": True, "prompt_eval_count": 8, "eval_count": 12},
    )
    usage = watch(tap_for("openai_chat", JSON), [ollama])[1]
    assert (usage.buckets, usage.rules) == (GEMINI_BUCKETS, ("format_by_content",))
