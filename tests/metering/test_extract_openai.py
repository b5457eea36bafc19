"""OpenAI chat, Responses and embeddings bodies, and the relatives of their usage object."""

from typing import Any

import pytest

from metering.estimate import RequestFacts
from metering.extract import wire_format
from pricing.usage import Usage
from tests.metering.payloads import CHAT_BUCKETS, CHAT_USAGE, RESPONSES_BUCKETS, RESPONSES_USAGE, body

FACTS = RequestFacts(model="asked-for", readable=True)


def read(usage: Any, fmt: str = "openai_chat", **fields: Any) -> Usage:
    return wire_format(fmt).read_body(body(usage=usage, **fields), FACTS, "openai")


def chat(prompt: Any, completion: Any, total: Any = None, **more: Any) -> Usage:
    return read({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total, **more})


def test_a_chat_answer_becomes_disjoint_buckets() -> None:
    usage = read(CHAT_USAGE, model="gpt-5.6", service_tier="default")
    assert usage.buckets == CHAT_BUCKETS
    assert (usage.tokens_input, usage.tokens_output, usage.tokens_total) == (1200, 300, 1500)
    assert (usage.model_requested, usage.model_served, usage.model) == ("asked-for", "gpt-5.6", "gpt-5.6")
    assert (usage.provider, usage.service_tier, usage.extractor) == ("openai", None, "openai_chat/2")
    assert (usage.source, usage.consistency, usage.raw) == ("reported", "ok", CHAT_USAGE)


def test_a_responses_answer_splits_cache_writes_by_time_to_live() -> None:
    usage = read(RESPONSES_USAGE, "openai_responses", model="gpt-5.6", service_tier="flex")
    assert usage.buckets == RESPONSES_BUCKETS
    assert (usage.tokens_input, usage.tokens_output, usage.service_tier) == (100, 20, "flex")
    assert (usage.source, usage.consistency, usage.extractor) == ("reported", "ok", "openai_responses/2")


def test_an_embedding_has_no_output_rather_than_an_unknown_one() -> None:
    usage = read({"prompt_tokens": 8, "total_tokens": 8}, "openai_embeddings", model="text-embedding-3-small")
    assert usage.buckets == {"in_uncached": 8, "out_visible": 0}
    assert (usage.tokens_input, usage.tokens_output, usage.source, usage.consistency) == (
        8,
        0,
        "reported",
        "ok",
    )


def test_an_explicit_zero_is_zero() -> None:
    usage = chat(0, 0, 0)
    assert usage.buckets == {"in_uncached": 0, "out_visible": 0}
    assert (usage.source, usage.tokens_total) == ("reported", 0)


@pytest.mark.parametrize(
    ("usage", "buckets", "consistency"),
    [
        pytest.param(  # 10 + 50 + 100 = 160
            {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 160,
             "completion_tokens_details": {"reasoning_tokens": 50}, "prompt_tokens_details": {"cached_tokens": 98}},
            {"in_uncached": 2, "in_cache_read": 98, "out_visible": 10, "out_reasoning": 50},
            "repaired:reasoning_additive", id="xAI: reasoning beside the output",
        ),
        pytest.param(  # 10 + 5000 + 300 + 20 = 5330
            {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 5330,
             "prompt_tokens_details": {"cached_tokens": 5000, "cache_write_tokens": 300}},
            {"in_uncached": 10, "in_cache_read": 5000, "in_cache_write_unknown": 300, "out_visible": 20},
            "repaired:cache_additive", id="Portkey: cache beside the input",
        ),
        pytest.param(
            {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110,
             "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36},
            {"in_uncached": 36, "in_cache_read": 64, "out_visible": 10},
            "ok", id="DeepSeek: hits and misses",
        ),
        pytest.param(
            {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "cache_read_input_tokens": 60,
             "reasoning_tokens": 4},
            {"in_uncached": 40, "in_cache_read": 60, "out_visible": 6, "out_reasoning": 4},
            "ok", id="Databricks: details at the top",
        ),
        pytest.param(
            {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
             "prompt_tokens_details": {"audio_tokens": 30}, "completion_tokens_details": {"audio_tokens": 25}},
            {"in_uncached": 70, "in_uncached.audio": 30, "out_visible": 15, "out_visible.audio": 25},
            "ok", id="audio both ways",
        ),
        pytest.param(  # 90 of the cached ones can be text, the other 5 were audio
            {"prompt_tokens": 120, "completion_tokens": 1, "total_tokens": 121,
             "prompt_tokens_details": {"audio_tokens": 30, "cached_tokens": 95}},
            {"in_cache_read": 90, "in_cache_read.audio": 5, "in_uncached.audio": 25, "out_visible": 1},
            "repaired:cache_taken_as_text", id="audio and cache",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "prompt_tokens_details": {"cached_tokens": 12}},
            {"in_cache_read": 10, "out_visible": 5},
            "inconsistent", id="more cached than sent, the headline holds",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15,
             "completion_tokens_details": {"reasoning_tokens": 9}},
            {"in_uncached": 10, "out_reasoning": 5},
            "inconsistent", id="more reasoning than output, the headline holds",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 999},
            {"in_uncached": 10, "out_visible": 5},
            "inconsistent", id="a total that nothing explains",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": None, "completion_tokens_details": {}},
            {"in_uncached": 10, "out_visible": 5},
            "ok", id="details that are null or empty",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": [1]},
            {"in_uncached": 10, "out_visible": 5},
            "inconsistent", id="details that are no object",
        ),
        pytest.param(
            {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": {"audio_tokens": 11}},
            {"in_uncached": 10, "out_visible": 5},
            "inconsistent", id="more audio than input",
        ),
        pytest.param(
            {"prompt_tokens": 10, "total_tokens": 15},
            {"in_uncached": 10, "out_visible": 5},
            "repaired:output_from_total", id="output from the total",
        ),
        pytest.param(
            {"completion_tokens": 5, "total_tokens": 15},
            {"in_uncached": 10, "out_visible": 5},
            "repaired:input_from_total", id="input from the total",
        ),
        pytest.param(
            {"prompt_tokens": 10.0, "completion_tokens": 5.0},
            {"in_uncached": 10, "out_visible": 5},
            "ok", id="integral floats",
        ),
    ],
)  # fmt: skip
def test_relatives_of_the_shape(usage: dict[str, Any], buckets: dict[str, int], consistency: str) -> None:
    read_usage = read(usage)
    assert (read_usage.buckets, read_usage.consistency) == (buckets, consistency)
    assert read_usage.source == "reported" and read_usage.raw == usage


BAD_COUNTERS = [-1, True, False, 1.5, "12", [], {}, 2**53 + 1, 10**30, 1e300]


@pytest.mark.parametrize("bad", BAD_COUNTERS)
def test_a_bad_counter_is_unknown_and_never_zero(bad: Any) -> None:
    usage = chat(bad, 5)
    assert usage.buckets == {"out_visible": 5}
    assert (usage.tokens_input, usage.tokens_output, usage.tokens_total) == (None, 5, None)
    assert (usage.source, usage.consistency, usage.unknown_sides) == (
        "reported_partial",
        "inconsistent",
        ("input",),
    )


@pytest.mark.parametrize("bad", BAD_COUNTERS)
def test_two_bad_counters_leave_no_usage_but_the_evidence(bad: Any) -> None:
    usage = chat(bad, bad, bad)
    assert (usage.source, usage.consistency, usage.buckets) == ("none", "inconsistent", {})
    assert usage.raw is not None and usage.tokens_total is None


@pytest.mark.parametrize("bad", BAD_COUNTERS)
def test_a_bad_detail_costs_only_itself(bad: Any) -> None:
    usage = chat(10, 5, 15, prompt_tokens_details={"cached_tokens": bad})
    assert (usage.buckets, usage.consistency) == ({"in_uncached": 10, "out_visible": 5}, "inconsistent")


def test_2_to_the_53_is_still_a_counter() -> None:
    assert chat(2**53, 1).tokens_input == 2**53


def test_usage_beside_a_number_that_json_does_not_have_is_still_read() -> None:
    text = b'{"logprob": NaN, "big": 1e999, "s": "\\ud800", "usage": {"prompt_tokens": 1, "completion_tokens": 2}, "model": "m"}'
    usage = wire_format("openai_chat").read_body(text, FACTS, "openai")
    assert (usage.tokens_total, usage.model_served) == (3, "m")


NESTED = b'{"model": "m", "usage": ' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}"


@pytest.mark.parametrize(
    "fmt", ["openai_chat", "openai_responses", "openai_embeddings", "anthropic_messages", "execute"]
)
@pytest.mark.parametrize(
    "text",
    [b"", b"\0", b"not json", b"[]", b"7", b'"x"', b"null", b"{}", b'{"usage": null}', b'{"model": 7}', b"\xff\xfe", NESTED,
     b"[" * 10_000, b'{"usage": {"prompt_tokens": 1', b'{"error": {"message": "no"}}', b'{"usage": {}}', b'{"usage": {"x": 1}}'],
)  # fmt: skip
def test_a_body_without_usage_has_none(fmt: str, text: bytes) -> None:
    usage = wire_format(fmt).read_body(text, FACTS, "openai")
    assert (usage.source, usage.buckets, usage.tokens_input, usage.tokens_output) == ("none", {}, None, None)


@pytest.mark.parametrize("other", [7, "much", [1], True])
def test_usage_that_is_no_object_is_kept_as_evidence(other: Any) -> None:
    usage = read(other)
    assert (usage.source, usage.consistency, usage.raw) == ("none", "inconsistent", other)


def test_built_in_models_are_the_demo_providers_on_every_route() -> None:
    assert read(CHAT_USAGE, model="demo-small").provider == "demo"
    asked = RequestFacts(model="demo-small", readable=True)
    assert wire_format("openai_chat").read_body(body(usage=CHAT_USAGE), asked, "openai").provider == "demo"


def test_what_the_provider_says_it_cost_is_kept_beside_our_own_rating() -> None:
    assert str(chat(194, 2, 196, cost=0.00095).reported_cost) == "0.00095"
    assert chat(1, 1, 2, cost_in_usd_ticks=37_756_000).reported_cost is not None
    assert [chat(1, 1, 2, cost=bad).reported_cost for bad in (-1, True, "x", None)] == [None] * 4
