"""Anthropic bodies: cache beside the input, split by time to live, iterations."""

from decimal import Decimal
from typing import Any

import pytest

from metering.estimate import RequestFacts
from metering.extract import wire_format
from pricing.usage import Usage
from tests.metering.payloads import CHAT_BUCKETS, CHAT_USAGE, MESSAGE_BUCKETS, MESSAGE_USAGE, body

FACTS = RequestFacts(model="asked-for", readable=True)


def read(usage: Any, **fields: Any) -> Usage:
    return wire_format("anthropic_messages").read_body(body(usage=usage, **fields), FACTS, "anthropic")


def test_a_message_becomes_disjoint_buckets() -> None:
    usage = read(MESSAGE_USAGE, model="claude-sonnet-4-5")
    assert usage.buckets == MESSAGE_BUCKETS
    assert (usage.tokens_input, usage.tokens_output) == (10 + 3000 + 5000, 500)
    assert (usage.model, usage.provider, usage.service_tier) == ("claude-sonnet-4-5", "anthropic", None)
    assert (usage.source, usage.consistency, usage.raw) == ("reported", "ok", MESSAGE_USAGE)


def test_its_cost_is_the_one_worked_out_by_hand() -> None:
    usd_per_million = {"in_uncached": "3", "in_cache_read": "0.30", "in_cache_write_5m": "3.75", "in_cache_write_1h": "6",
                       "out_visible": "15", "out_reasoning": "15"}  # fmt: skip
    cost = sum(
        Decimal(usd_per_million[bucket]) * count for bucket, count in read(MESSAGE_USAGE).buckets.items()
    )
    assert cost / 1_000_000 == Decimal("0.01503") + Decimal("0.0075")


@pytest.mark.parametrize(
    ("usage", "buckets", "consistency"),
    [
        pytest.param(
            {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 300},
            {"in_uncached": 10, "in_cache_write_5m": 300, "out_visible": 5},
            "repaired:cache_split_missing", id="Bedrock and Vertex leave the split out",
        ),
        pytest.param(
            {"input_tokens": 1, "output_tokens": 5, "cache_creation": {"ephemeral_24h_input_tokens": 4}},
            {"in_uncached": 1, "in_cache_write_24h": 4, "out_visible": 5},
            "ok", id="a time to live that is new, without the sum",
        ),
        pytest.param(
            {"input_tokens": 1, "output_tokens": 5, "cache_creation_input_tokens": 9,
             "cache_creation": {"ephemeral_5m_input_tokens": 4}},
            {"in_uncached": 1, "in_cache_write_5m": 4, "in_cache_write_unknown": 5, "out_visible": 5},
            "inconsistent", id="a split that is less than its sum",
        ),
        pytest.param(
            {"input_tokens": 0, "output_tokens": 0, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0},
            {"in_uncached": 0, "out_visible": 0},
            "ok", id="explicit zeros",
        ),
        pytest.param(
            {"input_tokens": 0, "output_tokens": 5, "cache_read_input_tokens": 7},
            {"in_cache_read": 7, "out_visible": 5},
            "ok", id="nothing but cache",
        ),
        pytest.param(
            {"input_tokens": 1, "output_tokens": 5, "output_tokens_details": {"thinking_tokens": 6}},
            {"in_uncached": 1, "out_reasoning": 5},
            "inconsistent", id="more thinking than output, the headline holds",
        ),
        pytest.param(
            {"input_tokens": 1, "output_tokens": 5, "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 3}},
            {"in_uncached": 1, "out_visible": 5, "web_search": 2},
            "ok", id="searches are billed, fetches are not",
        ),
        pytest.param(CHAT_USAGE, CHAT_BUCKETS, "ok", id="a gateway that answers in the OpenAI shape"),
        pytest.param(  # 400 is the headline; the iterations are 1 + 180 + 2 in and 10 + 35 + 5 out
            {"input_tokens": 400, "output_tokens": 600, "iterations": [
                {"type": "message", "input_tokens": 1, "output_tokens": 10},
                {"type": "compaction", "input_tokens": 180, "output_tokens": 35},
                {"type": "message", "input_tokens": 2, "output_tokens": 5}]},
            {"in_uncached": 1 + 180 + 2, "out_visible": 10 + 35 + 5},
            "repaired:iterations", id="compaction is not in the headline",
        ),
        pytest.param(
            {"input_tokens": 400, "output_tokens": 600, "iterations": [
                {"type": "message", "input_tokens": 1, "output_tokens": 10},
                {"type": "advisor_message", "model": "claude-opus-4-6", "input_tokens": 800, "output_tokens": 1600}]},
            {"in_uncached": 1, "out_visible": 10},
            "inconsistent", id="another model's tokens are not priced as this one's",
        ),
    ],
)  # fmt: skip
def test_variants_of_the_shape(usage: dict[str, Any], buckets: dict[str, int], consistency: str) -> None:
    read_usage = read(usage)
    assert (read_usage.buckets, read_usage.consistency) == (buckets, consistency)


def test_a_side_that_is_missing_is_unknown() -> None:
    usage = read({"output_tokens": 5})
    assert (usage.tokens_input, usage.tokens_output, usage.source) == (None, 5, "reported_partial")


@pytest.mark.parametrize("bad", [-1, True, 1.5, "12", 2**53 + 1])
def test_a_bad_counter_is_unknown_and_never_zero(bad: Any) -> None:
    usage = read({"input_tokens": 3, "output_tokens": bad})
    assert (usage.tokens_input, usage.tokens_output) == (3, None)
    assert (usage.source, usage.consistency) == ("reported_partial", "inconsistent")
