"""Our own format: usage of any known shape, in the body, in a header or handed over in process."""

import math
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import UnknownWireFormat, read_header, usage_from_mapping, wire_format
from tests.metering.payloads import (
    CHAT_BUCKETS,
    CHAT_USAGE,
    MESSAGE_BUCKETS,
    MESSAGE_USAGE,
    RESPONSES_BUCKETS,
    RESPONSES_USAGE,
    body,
)  # fmt: skip

FACTS = RequestFacts(readable=True)

SHAPES = [
    pytest.param(CHAT_USAGE, CHAT_BUCKETS, id="OpenAI chat"),
    pytest.param(RESPONSES_USAGE, RESPONSES_BUCKETS, id="OpenAI Responses"),
    pytest.param(MESSAGE_USAGE, MESSAGE_BUCKETS, id="Anthropic"),
    pytest.param(
        {"input_tokens": 9, "output_tokens": 4, "output_tokens_details": {"thinking_tokens": 1}},
        {"in_uncached": 9, "out_visible": 3, "out_reasoning": 1},
        id="Anthropic without cache",
    ),
    pytest.param({"input_tokens": 9, "output_tokens": 4}, {"in_uncached": 9, "out_visible": 4}, id="either of the two"),
    pytest.param({"tokens_input": 9, "tokens_output": 0}, {"in_uncached": 9, "out_visible": 0}, id="our own names"),
    pytest.param(  # 1000 + 200 + 50 + 300 = 1550; of the prompt 100 are images, 400 of the text came from the cache
        {"promptTokenCount": 1000, "cachedContentTokenCount": 400, "candidatesTokenCount": 200, "thoughtsTokenCount": 300,
         "toolUsePromptTokenCount": 50, "totalTokenCount": 1550,
         "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 900}, {"modality": "IMAGE", "tokenCount": 100}],
         "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 400}]},
        {"in_uncached": 500, "in_uncached.image": 100, "in_cache_read": 400, "in_tool_prompt": 50, "out_visible": 200,
         "out_reasoning": 300},
        id="Gemini",
    ),
    pytest.param(
        {"promptTokenCount": 5, "thoughtsTokenCount": 7, "totalTokenCount": 12},
        {"in_uncached": 5, "out_reasoning": 7},
        id="Gemini, thoughts only",
    ),
    pytest.param(
        {"inputTokens": 10, "outputTokens": 5, "totalTokens": 122, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 7,
         "cacheDetails": [{"ttl": "1h", "inputTokens": 7}]},
        {"in_uncached": 10, "in_cache_read": 100, "in_cache_write_1h": 7, "out_visible": 5},
        id="Bedrock",
    ),
    pytest.param(
        {"billed_units": {"input_tokens": 5.0, "output_tokens": 7.0}, "tokens": {"input_tokens": 71.0, "output_tokens": 7.0}},
        {"in_uncached": 5, "out_visible": 7},
        id="Cohere bills 5, not 71",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("usage", "buckets"), SHAPES)
def test_any_shape_in_the_body(usage: dict[str, Any], buckets: dict[str, int]) -> None:
    text = body(execution_id="e-1", model="demo-small", task_type="summary", output="…", usage=usage)
    read = wire_format("execute").read_body(text, FACTS, "openai")
    assert (read.buckets, read.source, read.consistency, read.raw) == (buckets, "reported", "ok", usage)
    assert (read.execution_id, read.task_type, read.model, read.provider) == (
        "e-1",
        "summary",
        "demo-small",
        "demo",
    )


@pytest.mark.parametrize(("usage", "buckets"), SHAPES)
def test_any_shape_in_the_header_and_in_process(usage: dict[str, Any], buckets: dict[str, int]) -> None:
    assert read_header(body(**usage), FACTS, "demo").buckets == buckets
    assert read_header(body(usage=usage, model="m").decode(), FACTS, "demo").buckets == buckets
    assert usage_from_mapping(usage, FACTS, "demo").buckets == buckets
    assert usage_from_mapping({"model": "m", "usage": usage}).model_served == "m"


@pytest.mark.parametrize("value", ["", "{", "7", "[]", "\ud800", '{"a": 1}', b"\xff"])
def test_a_header_that_says_nothing_is_no_usage(value: str | bytes) -> None:
    assert read_header(value, FACTS, "demo").source == "none"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.5, -1, True])
def test_python_numbers_that_are_no_counters_are_refused(bad: float) -> None:
    usage = usage_from_mapping({"prompt_tokens": bad, "completion_tokens": 2})
    assert (usage.tokens_input, usage.tokens_output, usage.consistency) == (None, 2, "inconsistent")


@pytest.mark.parametrize(
    ("usage", "consistency"),
    [
        ({"promptTokenCount": 5, "cachedContentTokenCount": 9, "candidatesTokenCount": 1}, "inconsistent"),
        ({"promptTokenCount": 5, "candidatesTokenCount": 1, "totalTokenCount": 99}, "inconsistent"),
        ({"promptTokenCount": 5, "candidatesTokenCount": 1,
          "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 6}]}, "inconsistent"),
    ],
)  # fmt: skip
def test_gemini_counters_that_contradict_each_other_are_flagged_and_the_headline_holds(
    usage: dict[str, Any], consistency: str
) -> None:
    read = usage_from_mapping(usage)
    assert (read.tokens_input, read.tokens_output, read.consistency) == (5, 1, consistency)


def test_an_unknown_wire_format_names_the_known_ones() -> None:
    with pytest.raises(
        UnknownWireFormat, match=r"'soap'; known are anthropic_messages, .*execute, .*openai_chat, "
    ):
        wire_format("soap")


COUNTS = st.integers(0, 10**6)


@given(
    prompt=COUNTS,
    completion=COUNTS,
    cached=COUNTS,
    written=COUNTS,
    reasoning=COUNTS,
    audio=COUNTS,
    beside=st.booleans(),
)
def test_the_buckets_of_a_side_add_up_to_its_headline(
    prompt: int, completion: int, cached: int, written: int, reasoning: int, audio: int, beside: bool
) -> None:
    usage = usage_from_mapping({
        "prompt_tokens": prompt, "completion_tokens": completion,
        "total_tokens": prompt + completion + (reasoning if beside else 0),
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": audio},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    })  # fmt: skip
    assert usage.tokens_input == prompt + (cached + written if "cache_additive" in usage.rules else 0)
    assert usage.tokens_output == completion + (reasoning if "reasoning_additive" in usage.rules else 0)
    if beside and reasoning and reasoning != cached + written:
        assert "reasoning_additive" in usage.rules
    assert all(count >= 0 for count in usage.buckets.values())


NAMES = st.sampled_from([
    "usage", "usageMetadata", "model", "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens",
    "prompt_tokens_details", "input_tokens_details", "cached_tokens", "audio_tokens", "cache_write_tokens", "iterations",
    "cache_write_tokens_details", "ttl_30m_tokens", "completion_tokens_details", "output_tokens_details", "thinking_tokens",
    "reasoning_tokens", "cache_creation", "ephemeral_5m_input_tokens", "cache_creation_input_tokens", "server_tool_use",
    "web_search_requests", "cache_read_input_tokens", "tool_usage", "web_search", "num_requests", "image_gen",
    "promptTokenCount", "promptTokensDetails", "modality", "tokenCount", "totalTokenCount", "candidatesTokenCount",
    "inputTokens", "outputTokens", "cacheDetails", "ttl", "billed_units", "search_units", "cost", "cost_in_usd_ticks",
    "execution_id", "task_type", "service_tier",
])  # fmt: skip
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2000)
    | st.integers()
    | st.floats()
    | st.sampled_from(["AUDIO", "5m", "x", "\ud800"])
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)


@given(
    st.dictionaries(NAMES, DOCUMENTS),
    st.sampled_from(["openai_chat", "openai_responses", "anthropic_messages", "execute"]),
)
def test_any_json_gives_a_usage_that_can_be_trusted(document: dict[str, Any], fmt: str) -> None:
    for usage in (
        usage_from_mapping(document),
        wire_format(fmt).read_body(body(**document), FACTS, "openai"),
    ):
        assert all(type(count) is int and count >= 0 for count in usage.buckets.values())
        assert usage.source in ("reported", "reported_partial", "none")
        assert usage.source != "none" or (usage.buckets == {} and usage.tokens_total is None)
        assert (usage.source == "reported_partial") == (usage.source != "none" and usage.unknown_sides != ())
        assert usage.reported_cost is None or usage.reported_cost.is_finite()


@given(
    st.binary(),
    st.sampled_from(
        ["openai_chat", "openai_responses", "openai_embeddings", "anthropic_messages", "execute"]
    ),
)
def test_any_bytes_are_survived(text: bytes, fmt: str) -> None:
    assert wire_format(fmt).read_body(text, FACTS, "openai").source == "none"
    assert read_header(text, FACTS, "openai").source == "none"
