"""Anthropic bodies: cache beside the input, split by time to live, iterations."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import wire_format
from pricing.usage import Usage, UsagePart
from tests.metering.payloads import CHAT_BUCKETS, CHAT_USAGE, MESSAGE_BUCKETS, MESSAGE_USAGE, body, event
from tests.metering.streams import SSE, tap_for, watch

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
    ],
)  # fmt: skip
def test_variants_of_the_shape(usage: dict[str, Any], buckets: dict[str, int], consistency: str) -> None:
    read_usage = read(usage)
    assert (read_usage.buckets, read_usage.consistency) == (buckets, consistency)


@pytest.mark.parametrize("bad", [[], "", False, {}, 0.5])
def test_a_number_of_searches_that_is_none_is_noted(bad: Any) -> None:
    usage = read({"input_tokens": 1, "output_tokens": 5, "server_tool_use": {"web_search_requests": bad}})
    assert (usage.buckets, usage.rules) == ({"in_uncached": 1, "out_visible": 5}, ("field_refused",))


def test_a_side_that_is_missing_is_unknown() -> None:
    usage = read({"output_tokens": 5})
    assert (usage.tokens_input, usage.tokens_output, usage.source) == (None, 5, "reported_partial")


@pytest.mark.parametrize("bad", [-1, True, 1.5, "12", 2**53 + 1])
def test_a_bad_counter_is_unknown_and_never_zero(bad: Any) -> None:
    usage = read({"input_tokens": 3, "output_tokens": bad})
    assert (usage.tokens_input, usage.tokens_output) == (3, None)
    assert (usage.source, usage.consistency) == ("reported_partial", "inconsistent")


# --- iterations: several samplings, each billed at the model that did it ---

ADVISED: dict[str, Any] = {
    "input_tokens": 400, "output_tokens": 600, "service_tier": "standard",
    "iterations": [
        {"type": "message", "input_tokens": 400, "output_tokens": 100},
        {"type": "advisor_message", "model": "claude-opus-4-6", "input_tokens": 800, "output_tokens": 1600},
        {"type": "compaction", "input_tokens": 180_000, "output_tokens": 3_500},
        {"type": "message", "input_tokens": 1_500, "output_tokens": 500},
    ],
}  # fmt: skip
ADVISED_PARTS = (
    UsagePart({"in_uncached": 400, "out_visible": 100}, kind="message"),
    UsagePart({"in_uncached": 800, "out_visible": 1600}, "claude-opus-4-6", kind="advisor_message"),
    UsagePart({"in_uncached": 180_000, "out_visible": 3_500}, kind="compaction"),
    UsagePart({"in_uncached": 1_500, "out_visible": 500}, kind="message"),
)


def test_each_iteration_is_a_part_at_its_own_model_and_the_headline_is_left_aside() -> None:
    usage = read(ADVISED, model="claude-haiku-4-5")
    assert usage.parts == ADVISED_PARTS
    assert usage.buckets == {
        "in_uncached": 400 + 800 + 180_000 + 1_500,
        "out_visible": 100 + 1600 + 3500 + 500,
    }
    assert (usage.model, usage.source, usage.rules) == ("claude-haiku-4-5", "reported", ("iterations",))


def test_the_cost_of_iterations_is_the_one_worked_out_by_hand() -> None:
    # Haiku 1 / 5 USD per million, Opus 5 / 25; without its compaction the example costs 0.0489 USD.
    prices = {"": (1, 5), "claude-opus-4-6": (5, 25)}
    cost = sum(
        part.buckets["in_uncached"] * prices[part.model][0]
        + part.buckets["out_visible"] * prices[part.model][1]
        for part in read(ADVISED).parts
        if part.kind != "compaction"
    )
    assert Decimal(cost) / 1_000_000 == Decimal("0.0009") + Decimal("0.001") + Decimal("0.0010") + Decimal(
        "0.002"
    ) + Decimal("0.044")


def test_each_iteration_has_its_own_cache() -> None:
    first = {"type": "message", "input_tokens": 1, "output_tokens": 2, "cache_read_input_tokens": 30,
             "cache_creation_input_tokens": 40, "cache_creation": {"ephemeral_1h_input_tokens": 40}}  # fmt: skip
    second = {"type": "message", "input_tokens": 1, "output_tokens": 2, "cache_creation_input_tokens": 5}
    usage = read({"input_tokens": 2, "output_tokens": 4, "iterations": [first, second]})
    assert usage.parts[0].buckets == {
        "in_uncached": 1,
        "in_cache_read": 30,
        "in_cache_write_1h": 40,
        "out_visible": 2,
    }
    assert usage.parts[1].buckets == {"in_uncached": 1, "in_cache_write_5m": 5, "out_visible": 2}
    assert (usage.consistency, usage.rules) == ("repaired:iterations", ("iterations", "cache_split_missing"))


def test_an_iteration_of_an_unknown_type_is_kept_at_its_model_and_flagged() -> None:
    new = {"type": "oracle_message", "model": "claude-oracle-1", "input_tokens": 7, "output_tokens": 8}
    usage = read({"input_tokens": 1, "output_tokens": 2, "iterations": [ADVISED["iterations"][0], new]})
    assert usage.parts[1] == UsagePart(
        {"in_uncached": 7, "out_visible": 8}, "claude-oracle-1", kind="oracle_message"
    )
    assert usage.rules == ("iterations", "iteration_unknown")


def test_an_iteration_that_is_no_object_makes_the_rest_doubtful() -> None:
    usage = read({"input_tokens": 1, "output_tokens": 2, "iterations": [ADVISED["iterations"][0], 7]})
    assert (usage.buckets, usage.consistency) == ({"in_uncached": 400, "out_visible": 100}, "inconsistent")
    assert usage.rules == ("iterations", "iteration_unreadable")


def test_a_fallback_is_paid_at_its_own_model_and_the_try_before_it_too() -> None:
    declined = {"type": "message", "model": "claude-opus-4-6", "input_tokens": 10, "output_tokens": 3}
    served = {
        "type": "fallback_message",
        "model": "claude-sonnet-4-5",
        "input_tokens": 10,
        "output_tokens": 90,
    }
    usage = read({"input_tokens": 10, "output_tokens": 90, "iterations": [declined, served],
                  "fallback_credit": {"status": {"type": "redeemed"}}}, model="claude-sonnet-4-5")  # fmt: skip
    assert [(part.model, part.kind) for part in usage.parts] == [
        ("claude-opus-4-6", "message"),
        ("claude-sonnet-4-5", "fallback_message"),
    ]
    assert usage.buckets == {"in_uncached": 10 + 10, "out_visible": 3 + 90}
    assert usage.rules == ("iterations",) and usage.raw["fallback_credit"]


def test_a_try_before_a_fallback_that_names_no_model_is_a_guess() -> None:
    served = {"type": "fallback_message", "model": "claude-sonnet-4-5", "input_tokens": 1, "output_tokens": 9}
    usage = read({"input_tokens": 1, "output_tokens": 9, "iterations": [ADVISED["iterations"][0], served]})
    assert usage.rules == ("iterations", "iteration_model_assumed")


def test_searches_beside_iterations_are_a_part_of_the_answering_model() -> None:
    usage = read({**ADVISED, "server_tool_use": {"web_search_requests": 3, "web_fetch_requests": 9}})
    assert usage.parts == (*ADVISED_PARTS, UsagePart({"web_search": 3}, kind="server_tool_use"))
    assert usage.buckets["web_search"] == 3


def test_a_single_iteration_that_says_the_same_adds_nothing() -> None:
    only = {"type": "message", "input_tokens": 10, "output_tokens": 500, "cache_read_input_tokens": 5000,
            "cache_creation_input_tokens": 3000}  # fmt: skip
    usage = read({**MESSAGE_USAGE, "iterations": [only]})
    assert (usage.buckets, usage.parts, usage.rules) == (MESSAGE_BUCKETS, (), ())


def test_a_single_iteration_that_says_more_holds() -> None:
    usage = read(
        {
            "input_tokens": 1,
            "output_tokens": 2,
            "iterations": [{"type": "message", "input_tokens": 1, "output_tokens": 9}],
        }
    )
    assert (usage.buckets, usage.rules) == ({"in_uncached": 1, "out_visible": 9}, ("iterations",))


def test_an_iteration_without_a_side_leaves_that_side_unknown() -> None:
    usage = read(
        {
            "input_tokens": 1,
            "output_tokens": 2,
            "iterations": [{"type": "message", "input_tokens": 1}, ADVISED["iterations"][0]],
        }
    )
    assert (usage.tokens_input, usage.tokens_output, usage.source) == (401, None, "reported_partial")


# --- what the price depends on ---


@pytest.mark.parametrize(
    ("said", "tier", "speed", "region", "batch"),
    [
        ({"service_tier": "standard", "speed": "standard"}, None, None, None, False),
        ({"service_tier": "priority", "inference_geo": "us"}, "priority", None, "us", False),
        ({"service_tier": "batch", "inference_geo": "not_available"}, None, None, None, True),
        ({"speed": "fast", "inference_geo": "global"}, None, "fast", "global", False),
        ({"service_tier": 7, "speed": [], "inference_geo": None}, None, None, None, False),
    ],
)
def test_tier_speed_and_region_are_those_of_the_answer(
    said: dict[str, Any], tier: str | None, speed: str | None, region: str | None, batch: bool
) -> None:
    usage = read({**MESSAGE_USAGE, "service_tier": None, **said})
    assert (usage.service_tier, usage.speed, usage.region, usage.batch) == (tier, speed, region, batch)


def test_a_line_of_a_batch_result_is_a_message_at_the_batch_rate() -> None:
    message = {"model": "claude-sonnet-4-5", "usage": {**MESSAGE_USAGE, "service_tier": "batch"}}
    text = body(custom_id="r-1", result={"type": "succeeded", "message": message})
    usage = wire_format("anthropic_messages").read_body(text, FACTS, "anthropic")
    assert (usage.buckets, usage.batch, usage.model) == (MESSAGE_BUCKETS, True, "claude-sonnet-4-5")


# --- streams ---


def stream(*events: bytes, complete: bool = True) -> Usage:
    return watch(tap_for("anthropic_messages", SSE, provider="anthropic"), events, complete=complete)[1]


def start(**usage: Any) -> bytes:
    return event("message_start", message={"model": "claude-haiku-4-5", "usage": usage})


def delta(stop_reason: str | None = "end_turn", **usage: Any) -> bytes:
    return event("message_delta", delta={"stop_reason": stop_reason}, usage=usage)


STOP = event("message_stop")


def test_start_and_delta_are_never_added() -> None:
    usage = stream(start(input_tokens=10, output_tokens=1), delta(output_tokens=15), STOP)
    assert usage.buckets == {"in_uncached": 10, "out_visible": 15}


def test_split_tier_region_and_speed_of_the_start_hold_to_the_end() -> None:
    usage = stream(
        start(
            **{**MESSAGE_USAGE, "output_tokens": 1, "output_tokens_details": None},
            inference_geo="us",
            speed="fast",
        ),
        delta(None, output_tokens=200, cache_read_input_tokens=5000, cache_creation_input_tokens=3000),
        delta(output_tokens=500, output_tokens_details={"thinking_tokens": 120}, input_tokens=None),
        STOP,
    )
    assert usage.buckets == MESSAGE_BUCKETS
    assert (usage.region, usage.speed, usage.consistency) == ("us", "fast", "ok")


def test_a_later_and_larger_input_holds() -> None:
    usage = stream(
        start(input_tokens=10, output_tokens=1),
        delta(None, input_tokens=10, output_tokens=4),
        delta(input_tokens=900, output_tokens=60, server_tool_use={"web_search_requests": 2}),
        STOP,
    )
    assert usage.buckets == {"in_uncached": 900, "out_visible": 60, "web_search": 2}


def test_iterations_come_with_the_last_delta() -> None:
    usage = stream(
        start(input_tokens=400, output_tokens=1, service_tier="standard"),
        delta(output_tokens=600, iterations=ADVISED["iterations"]),
        STOP,
    )
    whole = read(ADVISED, model="claude-haiku-4-5")
    assert (usage.buckets, usage.parts, usage.rules) == (whole.buckets, whole.parts, whole.rules)


def test_an_error_after_tokens_leaves_what_was_used_so_far() -> None:
    usage = stream(
        start(input_tokens=10, output_tokens=1),
        *[event("content_block_delta", delta={"text": "…"})] * 4,
        event("error", error={"type": "overloaded_error", "message": "Overloaded"}),
    )
    assert (usage.source, usage.tokens_input) == ("reported_partial", 10)
    assert usage.tokens_output == 3  # four pieces of 3 bytes each
    assert usage.metadata == {"stream_error": "overloaded_error"}


def test_an_error_alone_is_no_usage() -> None:
    usage = stream(event("error", error={"type": "overloaded_error"}))
    assert (usage.source, usage.tokens_total) == ("none", None)


def test_an_error_of_a_gateway_ends_the_stream_all_the_same() -> None:
    tap = tap_for("anthropic_messages", SSE)
    assert tap.feed(start(input_tokens=1, output_tokens=1)) == -1
    assert tap.feed(event("error", message="upstream went away")) == 0


COUNTS = st.integers(0, 10**6)


@given(
    tokens_in=COUNTS, tokens_out=COUNTS, cached=COUNTS, five=COUNTS, hour=COUNTS, thinking=COUNTS, searches=COUNTS,
    tier=st.sampled_from(["standard", "priority", "batch"]), geo=st.sampled_from([None, "us", "global"]),
    repeats=st.booleans(),
)  # fmt: skip
def test_a_streamed_message_says_what_the_whole_one_says(
    tokens_in: int, tokens_out: int, cached: int, five: int, hour: int, thinking: int, searches: int, tier: str,
    geo: str | None, repeats: bool,
) -> None:  # fmt: skip
    input_side: dict[str, Any] = {
        "input_tokens": tokens_in, "cache_read_input_tokens": cached, "cache_creation_input_tokens": five + hour,
    }  # fmt: skip
    split = {"cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour}}
    output_side: dict[str, Any] = {
        "output_tokens": tokens_out, "output_tokens_details": {"thinking_tokens": min(thinking, tokens_out)},
        "server_tool_use": {"web_search_requests": searches, "web_fetch_requests": 1},
    }  # fmt: skip
    circumstances = {"service_tier": tier, "inference_geo": geo, "speed": "standard"}
    whole = read({**input_side, **split, **output_side, **circumstances}, model="claude-haiku-4-5")
    streamed = stream(
        start(**input_side, **split, **circumstances, output_tokens=1),
        event("content_block_delta", delta={"text": "…"}),
        delta(**output_side, **(input_side if repeats else {})),
        STOP,
    )
    assert msgspec.structs.replace(streamed, raw=None) == msgspec.structs.replace(whole, raw=None)
    assert whole.tokens_input == tokens_in + cached + five + hour
    assert whole.tokens_output == tokens_out
