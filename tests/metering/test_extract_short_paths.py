"""The short paths for ordinary answers give what the thorough readers give, field by field, or leave the answer to them."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import wire_format
from metering.extract.anthropic_messages import usage_of_message
from metering.extract.base import Reading
from metering.extract.counts import COUNT_MAX
from metering.extract.gemini_generate import Grounding, usage_of_metadata
from metering.extract.openai_chat import usage_of_fields
from metering.extract.openai_responses import Response, usage_of_response
from metering.extract.shape_anthropic import ordinary_buckets as ordinary_message, read_anthropic
from metering.extract.shape_gemini import ordinary_buckets as ordinary_generation, read_gemini
from pricing.usage import Usage

FACTS = RequestFacts(model="asked-for")
COUNTS = st.integers(0, 10**6)
SOMETHING: st.SearchStrategy[Any] = st.one_of(
    COUNTS, st.sampled_from([0, 1, -1, True, 1.0, 1.5, "3", None, [], {}, COUNT_MAX + 1])
)
WORDS = st.sampled_from(["", "default", "standard", "priority", "batch", "ON_DEMAND", "fast", "us", None, 7])
MODELS = st.sampled_from(["served", "models/served", "demo-chat", "", None, 7])
SPLIT = st.dictionaries(
    st.sampled_from(["ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "ephemeral_12h_input_tokens", "other"]),
    SOMETHING,
)  # fmt: skip
TOOLS = st.dictionaries(st.sampled_from(["web_search_requests", "web_fetch_requests"]), SOMETHING)
MODALITIES = st.lists(
    st.one_of(
        SOMETHING,
        st.fixed_dictionaries({"modality": st.sampled_from(["TEXT", "AUDIO", "text", 7]), "tokenCount": SOMETHING}),
    ),
    max_size=2,
)  # fmt: skip
MESSAGES = st.fixed_dictionaries({}, optional={
    "input_tokens": SOMETHING, "output_tokens": SOMETHING, "cache_read_input_tokens": SOMETHING,
    "cache_creation_input_tokens": SOMETHING, "cache_creation": st.one_of(SOMETHING, SPLIT),
    "server_tool_use": st.one_of(SOMETHING, TOOLS), "service_tier": WORDS, "speed": WORDS, "inference_geo": WORDS,
    "total_tokens": COUNTS, "cost": COUNTS,
})  # fmt: skip
GENERATIONS = st.fixed_dictionaries({}, optional={
    "promptTokenCount": SOMETHING, "candidatesTokenCount": SOMETHING, "thoughtsTokenCount": SOMETHING,
    "cachedContentTokenCount": SOMETHING, "totalTokenCount": SOMETHING, "toolUsePromptTokenCount": SOMETHING,
    "promptTokensDetails": st.one_of(SOMETHING, MODALITIES), "cacheTokensDetails": st.one_of(SOMETHING, MODALITIES),
    "candidatesTokensDetails": st.one_of(SOMETHING, MODALITIES), "trafficType": WORDS, "serviceTier": WORDS,
})  # fmt: skip


def reading(name: str) -> Reading:
    return Reading(wire_format(name).extractor, FACTS, "provider")


def read(name: str, **body: Any) -> Usage:
    return wire_format(name).read_body(json.dumps(body).encode(), FACTS, "provider")


@given(MESSAGES, MODELS)
def test_any_message_is_read_as_by_the_thorough_reader(usage: dict[str, Any], model: Any) -> None:
    told = usage_of_message(reading("anthropic_messages"), usage, model)
    assert read("anthropic_messages", model=model, usage=usage) == told


@given(GENERATIONS, MODELS)
def test_any_generation_is_read_as_by_the_thorough_reader(usage: dict[str, Any], model: Any) -> None:
    told = usage_of_metadata(reading("gemini_generate"), usage, model, Grounding())
    assert read("gemini_generate", modelVersion=model, usageMetadata=usage) == told


@given(fresh=COUNTS, cached=COUNTS, short=COUNTS, long=COUNTS, written=COUNTS, tier=WORDS, region=WORDS)
def test_messages_that_add_up_take_the_short_path(
    fresh: int, cached: int, short: int, long: int, written: int, tier: Any, region: Any
) -> None:
    usage = {
        "input_tokens": fresh, "cache_read_input_tokens": cached, "cache_creation_input_tokens": short + long,
        "cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": long},
        "output_tokens": written, "server_tool_use": None, "service_tier": tier, "inference_geo": region,
    }  # fmt: skip
    assert ordinary_message(usage) == read_anthropic(usage).buckets
    told = usage_of_message(reading("anthropic_messages"), usage, "served")
    assert read("anthropic_messages", model="served", usage=usage) == told


@given(prompt=COUNTS, cached=COUNTS, shown=COUNTS, thoughts=COUNTS, traffic=WORDS)
def test_generations_that_add_up_take_the_short_path(
    prompt: int, cached: int, shown: int, thoughts: int, traffic: Any
) -> None:
    usage = {
        "promptTokenCount": prompt, "cachedContentTokenCount": cached % (prompt + 1), "candidatesTokenCount": shown,
        "thoughtsTokenCount": thoughts, "totalTokenCount": prompt + shown + thoughts, "trafficType": traffic,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}],
    }  # fmt: skip
    assert ordinary_generation(usage) == read_gemini(usage).buckets
    told = usage_of_metadata(reading("gemini_generate"), usage, "models/served", Grounding())
    assert read("gemini_generate", modelVersion="models/served", usageMetadata=usage) == told


@given(
    prompt=COUNTS, cached=COUNTS, written=COUNTS, tier=WORDS, model=MODELS, cost=st.sampled_from([None, 2])
)
def test_chat_and_responses_that_add_up_are_read_as_by_the_thorough_reader(
    prompt: int, cached: int, written: int, tier: Any, model: Any, cost: int | None
) -> None:
    for name, a, b in (("openai_chat", "prompt", "completion"), ("openai_responses", "input", "output")):
        usage: dict[str, Any] = {
            f"{a}_tokens": prompt, f"{b}_tokens": written, "total_tokens": prompt + written,
            f"{a}_tokens_details": {"cached_tokens": cached % (prompt + 1)},
        }  # fmt: skip
        if cost is not None:
            usage["cost"] = cost
        if name == "openai_chat":
            told = usage_of_fields(reading(name), usage, model, tier)
        else:
            told = usage_of_response(reading(name), Response(model, tier, usage), b"{}")
        assert read(name, model=model, service_tier=tier, usage=usage) == told


@given(st.sampled_from([-1, 0, 1]), TOOLS)
def test_messages_whose_cache_writes_do_not_add_up_are_left_to_the_thorough_reader(
    off: int, tools: dict[str, Any]
) -> None:
    usage = {
        "input_tokens": 5, "output_tokens": 7, "cache_creation_input_tokens": 30 + off, "server_tool_use": tools,
        "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 20},
    }  # fmt: skip
    told = usage_of_message(reading("anthropic_messages"), usage, "served")
    assert read("anthropic_messages", model="served", usage=usage) == told


@given(st.sampled_from(["prompt", "cache", "candidates"]), MODALITIES, st.sampled_from([-1, 0, 1]))
def test_generations_that_are_no_text_are_left_to_the_thorough_reader(
    side: str, details: list[Any], off: int
) -> None:
    usage = {
        "promptTokenCount": 50, "cachedContentTokenCount": 20, "candidatesTokenCount": 70,
        "totalTokenCount": 50 + 70 + off, f"{side}TokensDetails": details,
    }  # fmt: skip
    told = usage_of_metadata(reading("gemini_generate"), usage, "served", Grounding())
    assert read("gemini_generate", modelVersion="served", usageMetadata=usage) == told


@pytest.mark.parametrize("output", [
    [{"type": "web_search_call", "status": "completed"}],
    [{"type": "message"}, {"type": "web_search_call", "action": {"type": "search"}}],
    [7, {"type": "web_search_call"}],
    [{"type": "message", "svg_usage": {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}}],
])  # fmt: skip
def test_a_response_with_tools_never_takes_the_short_path(output: list[Any]) -> None:
    usage = {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12}
    text = json.dumps({"model": "served", "usage": usage, "output": output}).encode()
    told = usage_of_response(reading("openai_responses"), Response("served", None, usage), text)
    assert read("openai_responses", model="served", usage=usage, output=output) == told


def test_a_generation_with_searches_never_takes_the_short_path() -> None:
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12}
    candidates = [{"index": 0}, {"groundingMetadata": {"webSearchQueries": ["weather"]}}]
    found = read("gemini_generate", modelVersion="served", usageMetadata=usage, candidates=candidates)
    assert found.buckets == {"in_uncached": 5, "out_visible": 7, "grounding_query": 1}
