"""Any bytes that somebody kept: which framing, which format, what was used; or a clear word that it cannot be read."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.read_any import UnreadableAnswer, read_any
from tests.metering.payloads import (
    CHAT_BUCKETS,
    CHAT_USAGE,
    MESSAGE_BUCKETS,
    MESSAGE_USAGE,
    RESPONSES_BUCKETS,
    body,
    chat_stream,
    data,
    message_stream,
    responses_stream,
)
from tests.metering.streams import array, aws_message, lines

GEMINI = {"promptTokenCount": 8, "candidatesTokenCount": 12, "totalTokenCount": 20}
EIGHT_TWELVE = {"in_uncached": 8, "out_visible": 12}
GEMINI_CHUNKS = [{"candidates": [{}], "modelVersion": "gemini-2.5-pro", "usageMetadata": GEMINI}]
OLLAMA = [
    {"model": "m", "message": {}, "done": False},
    {"model": "m", "done": True, "prompt_eval_count": 8, "eval_count": 12},
]
TURN = {"promptTokenCount": 4, "responseTokenCount": 6, "totalTokenCount": 10}
LIVE = [{"setupComplete": {}}, *[{"serverContent": {"turnComplete": True}, "usageMetadata": TURN}] * 2]
CONVERSE = aws_message("messageStart", {"role": "assistant"}) + aws_message(
    "metadata", {"usage": {"inputTokens": 8, "outputTokens": 12}, "metrics": {}}
)

ANSWERS = [
    pytest.param(body(object="chat.completion", usage=CHAT_USAGE), "openai_chat", "json", CHAT_BUCKETS, id="chat"),
    pytest.param(b"\xef\xbb\xbf\r\n" + body(type="message", usage=MESSAGE_USAGE), "anthropic_messages", "json", MESSAGE_BUCKETS,
                 id="message, with a byte order mark"),
    pytest.param(json.dumps(GEMINI_CHUNKS[0], indent=2).encode(), "gemini_generate", "json", EIGHT_TWELVE, id="Gemini, indented"),
    pytest.param(body(**{"gen_ai.usage.input_tokens": 8, "gen_ai.usage.output_tokens": 12}), "otel_span", "json", EIGHT_TWELVE,
                 id="a span"),
    pytest.param(body(prompt_tokens=8, completion_tokens=12), "mapping", "json", EIGHT_TWELVE, id="a usage object"),
    pytest.param(body(**GEMINI), "mapping", "json", EIGHT_TWELVE, id="another usage object"),
    pytest.param(chat_stream(), "openai_chat", "sse", CHAT_BUCKETS, id="chat stream"),
    pytest.param(b": hello\r\n\r\n" + message_stream(line_end=b"\r\n"), "anthropic_messages", "sse", MESSAGE_BUCKETS,
                 id="message stream"),
    pytest.param(responses_stream(), "openai_responses", "sse", RESPONSES_BUCKETS, id="responses stream"),
    pytest.param(data({"type": "ping"}) + data(GEMINI_CHUNKS[0]), "gemini_generate", "sse", EIGHT_TWELVE,
                 id="told by its second event"),
    pytest.param(lines(*OLLAMA), "ollama", "ndjson", EIGHT_TWELVE, id="Ollama stream"),
    pytest.param(array(*GEMINI_CHUNKS), "gemini_generate", "json_array", EIGHT_TWELVE, id="Gemini's array"),
    pytest.param(CONVERSE, "bedrock_converse", "aws_event_stream", EIGHT_TWELVE, id="Converse stream"),
    pytest.param(json.dumps(LIVE).encode(), "gemini_live", "websocket", EIGHT_TWELVE, id="messages as an array"),
    pytest.param(lines(*LIVE), "gemini_live", "websocket", EIGHT_TWELVE, id="messages as lines"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "name", "framing", "buckets"), ANSWERS)
def test_an_answer_is_read_as_what_it_is(
    answer: bytes, name: str, framing: str, buckets: dict[str, int]
) -> None:
    read = read_any(answer)
    assert (read.wire_format, read.framing, read.usage.buckets) == (name, framing, buckets)
    assert (read.usage.source, read.usage.consistency) == ("reported", "ok")


def test_the_model_that_was_asked_for_and_the_provider_are_the_caller_s_to_say() -> None:
    usage = read_any(CONVERSE, provider="bedrock", model="us.anthropic.claude-sonnet-4-5").usage
    assert (usage.model, usage.region, usage.provider) == ("anthropic.claude-sonnet-4-5", "us", "bedrock")


def test_the_provider_decides_what_the_content_leaves_open() -> None:
    text = body(usage={"input_tokens": 8, "output_tokens": 12})
    assert read_any(text, provider="anthropic").wire_format == "anthropic_messages"
    assert read_any(text).wire_format == "openai_responses"
    assert read_any(body(error={}), provider="google").wire_format == "gemini_generate"


@pytest.mark.parametrize(
    "answer", [b"{}", body(error={"message": "no"}), data({"error": {}}), lines({"a": 1}, {"b": 2})]
)
def test_an_answer_without_usage_is_readable_and_has_none(answer: bytes) -> None:
    assert read_any(answer).usage.source == "none"


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (b"", "empty"),
        (b" \n\xef\xbb\xbf", "empty"),
        (b"hello", "neither"),
        (b"7", "neither"),
        (b"<html>", "neither"),
        (b'{"usage": {', "neither"),
        (b'{"usage": {\n"a": 1', "neither"),
        (b"[]", "none of the 0 parts"),
        (b'[1, "two"]', "none of the 0 parts"),
        (b"data: hello\n\n", "none of the 1 parts"),
        (b"\x1f\x8b\x08", "neither"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_word_why(answer: bytes, word: str) -> None:
    with pytest.raises(UnreadableAnswer, match=word):
        read_any(answer)


def test_the_content_type_tells_where_the_bytes_do_not() -> None:
    with pytest.raises(UnreadableAnswer, match="none of the 0 parts of this aws_event_stream"):
        read_any(b"\0\0\0\x10damaged", content_type="application/vnd.amazon.eventstream")
    assert (
        read_any(b"\n\nretry-after: 3\n" + chat_stream(), content_type="text/event-stream").framing == "sse"
    )


@given(st.binary() | st.text().map(str.encode), st.sampled_from(["", "openai", "bedrock", "acme"]))
def test_any_bytes_are_read_or_refused(answer: bytes, provider: str) -> None:
    try:
        usage = read_any(answer, provider=provider, model="m").usage
    except UnreadableAnswer:
        return
    assert (usage.source, usage.buckets) == ("none", {})


PARTS: list[Any] = [part for case in ANSWERS for part in (case.values[0],)]


@given(st.sampled_from(PARTS), st.binary(max_size=5), st.data())
def test_an_answer_with_noise_in_it_is_read_or_refused(
    answer: bytes, noise: bytes, choice: st.DataObject
) -> None:
    place = choice.draw(st.integers(0, len(answer)))
    try:
        usage = read_any(answer[:place] + noise + answer[place + 1 :]).usage
    except UnreadableAnswer:
        return
    assert all(count >= 0 for count in usage.buckets.values())
