"""Bedrock: the cache beside the input, the model in the path, and vendors' bodies inside Amazon's frames."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import wire_format
from pricing.usage import Usage
from tests.metering.payloads import CHAT_BUCKETS, CHAT_USAGE, MESSAGE_BUCKETS, MESSAGE_USAGE, body
from tests.metering.streams import AWS, JSON, aws_message, lines, tap_for, watch

CLAUDE = "anthropic.claude-sonnet-4-5-20250929-v1:0"
FACTS = RequestFacts(model=CLAUDE, tokens_input_estimate=11, readable=True)


def read(fmt: str = "bedrock_converse", path_model: str = CLAUDE, **fields: Any) -> Usage:
    return wire_format(fmt).read_body(body(**fields), RequestFacts(model=path_model), "bedrock")


# --- Converse, whole ---

USAGE = {"inputTokens": 20, "outputTokens": 50, "totalTokens": 3170, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 3000,
         "cacheDetails": [{"ttl": "5m", "inputTokens": 2000}, {"ttl": "1h", "inputTokens": 1000}]}  # fmt: skip
BUCKETS = {
    "in_uncached": 20,
    "in_cache_read": 100,
    "in_cache_write_5m": 2000,
    "in_cache_write_1h": 1000,
    "out_visible": 50,
}


def test_an_answer_becomes_disjoint_buckets() -> None:
    usage = read(usage=USAGE, serviceTier={"type": "default"}, metrics={"latencyMs": 812})
    assert usage.buckets == BUCKETS
    assert (usage.tokens_input, usage.tokens_output) == (20 + 100 + 3000, 50)
    assert (usage.model, usage.provider, usage.service_tier) == (CLAUDE, "bedrock", None)
    assert (usage.source, usage.consistency, usage.rules, usage.raw) == ("reported", "ok", (), USAGE)


@pytest.mark.parametrize(
    ("usage", "buckets", "consistency"),
    [
        pytest.param({"inputTokens": 10, "outputTokens": 5, "totalTokens": 115, "cacheReadInputTokens": 100,
                      "cacheWriteInputTokens": 0, "cacheDetails": []},
                     {"in_uncached": 10, "in_cache_read": 100, "out_visible": 5}, "ok", id="10 + 5 + 100 = 115"),
        pytest.param({"inputTokens": 4, "outputTokens": 832, "totalTokens": 2326, "cacheReadInputTokenCount": 1490,
                      "cacheReadInputTokens": 1490, "cacheWriteInputTokens": 0, "cacheWriteInputTokenCount": 0},
                     {"in_uncached": 4, "in_cache_read": 1490, "out_visible": 832}, "ok", id="each counter under two names"),
        pytest.param({"inputTokens": 20, "outputTokens": 50, "totalTokens": 3070, "cacheWriteInputTokens": 3000},
                     {"in_uncached": 20, "in_cache_write_5m": 3000, "out_visible": 50}, "repaired:cache_split_missing",
                     id="a write without its time to live"),
        pytest.param({"inputTokens": 20, "outputTokens": 50, "totalTokens": 3070, "cacheWriteInputTokens": 3000,
                      "cacheDetails": [{"ttl": "1h", "inputTokens": 1000}, {"ttl": "24h", "inputTokens": 500}, 7]},
                     {"in_uncached": 20, "in_cache_write_1h": 1000, "in_cache_write_24h": 500, "in_cache_write_unknown": 1500,
                      "out_visible": 50}, "inconsistent", id="a split that is less than its sum"),
        pytest.param({"inputTokens": 100, "outputTokens": 5, "totalTokens": 105, "cacheReadInputTokens": 60},
                     {"in_uncached": 40, "in_cache_read": 60, "out_visible": 5}, "repaired:cache_inclusive",
                     id="a total that says the cache is inside"),
        pytest.param({"inputTokens": 10, "outputTokens": 5, "totalTokens": 15, "cacheReadInputTokens": 60},
                     {"in_uncached": 10, "in_cache_read": 60, "out_visible": 5}, "repaired:total_without_cache",
                     id="a total that forgets the cache"),
        pytest.param({"inputTokens": 10, "outputTokens": 5, "totalTokens": 99},
                     {"in_uncached": 10, "out_visible": 5}, "inconsistent", id="a total that nothing explains"),
        pytest.param({"inputTokens": 0, "outputTokens": 0, "totalTokens": 0},
                     {"in_uncached": 0, "out_visible": 0}, "ok", id="explicit zeros"),
        pytest.param({"inputTokens": 0, "outputTokens": 5, "cacheReadInputTokens": 7},
                     {"in_cache_read": 7, "out_visible": 5}, "ok", id="nothing but cache"),
        pytest.param({"outputTokens": 5}, {"out_visible": 5}, "ok", id="an input that nobody told"),
        pytest.param({"inputTokens": -1, "outputTokens": 5}, {"out_visible": 5}, "inconsistent", id="an impossible input"),
    ],
)  # fmt: skip
def test_variants_of_the_shape(usage: dict[str, Any], buckets: dict[str, int], consistency: str) -> None:
    found = read(usage=usage)
    assert (found.buckets, found.consistency) == (buckets, consistency)
    assert (found.source == "reported") == ("inputTokens" in usage and usage["inputTokens"] >= 0)


@pytest.mark.parametrize(
    ("path", "model", "region"),
    [
        (CLAUDE, CLAUDE, None),
        (f"us.{CLAUDE}", CLAUDE, "us"),
        (f"eu.{CLAUDE}", CLAUDE, "eu"),
        (f"apac.{CLAUDE}", CLAUDE, "apac"),
        (f"global.{CLAUDE}", CLAUDE, "global"),
        (f"us-gov.{CLAUDE}", CLAUDE, "us_gov"),
        ("zai.glm-4.6", "zai.glm-4.6", None),
        ("openai.gpt-oss-120b-1:0", "openai.gpt-oss-120b-1:0", None),
        (f"arn:aws:bedrock:us-east-1::foundation-model/{CLAUDE}", CLAUDE, None),
        (f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{CLAUDE}", CLAUDE, "us"),
        ("us", "us", None),
    ],
)
def test_a_geography_before_the_model_is_the_region(path: str, model: str, region: str | None) -> None:
    usage = read(path_model=path, usage=USAGE)
    assert (usage.model, usage.region) == (model, region)


def test_an_arn_that_hides_its_model_is_its_own_name() -> None:
    for kind in ("application-inference-profile/abc123", "default-prompt-router/anthropic.claude:1"):
        name = f"arn:aws:bedrock:us-east-1:123456789012:{kind}"
        assert (
            read(path_model=name, usage=USAGE).model,
            read(path_model=name, usage=USAGE).service_tier,
        ) == (
            name,
            None,
        )
    provisioned = "arn:aws:bedrock:us-east-1:123456789012:provisioned-model/abc123"
    usage = read(path_model=provisioned, usage=USAGE)
    assert (usage.model, usage.service_tier) == (provisioned, "provisioned")


def test_a_router_says_which_model_it_chose() -> None:
    trace = {
        "promptRouter": {
            "invokedModelId": f"arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.{CLAUDE}"
        }
    }
    usage = read(path_model="arn:aws:bedrock:us-east-1:1:default-prompt-router/x:1", usage=USAGE, trace=trace)
    assert (usage.model, usage.region) == (CLAUDE, "us")


@pytest.mark.parametrize(
    ("said", "tier", "speed"),
    [
        ({"serviceTier": {"type": "flex"}}, "flex", None),
        ({"serviceTier": {"type": "priority"}}, "priority", None),
        ({"serviceTier": {"type": "default"}, "performanceConfig": {"latency": "standard"}}, None, None),
        ({"performanceConfig": {"latency": "optimized"}}, None, "optimized"),
        ({"serviceTier": 7, "performanceConfig": [], "trace": 7}, None, None),
    ],
)
def test_tier_and_latency_are_those_of_the_answer(
    said: dict[str, Any], tier: str | None, speed: str | None
) -> None:
    usage = read(usage=USAGE, **said)
    assert (usage.service_tier, usage.speed) == (tier, speed)


def assessed(**units: int) -> dict[str, Any]:
    return {"invocationMetrics": {"usage": units, "guardrailProcessingLatency": 5}}


def test_units_of_guardrails_are_added_over_both_sides() -> None:
    trace = {"guardrail": {
        "inputAssessment": {"g-1": assessed(contentPolicyUnits=2, topicPolicyUnits=1, wordPolicyUnits=9)},
        "outputAssessments": {"g-1": [assessed(contentPolicyUnits=3), assessed(sensitiveInformationPolicyFreeUnits=4)]},
    }}  # fmt: skip
    usage = read(usage=USAGE, trace=trace)
    assert usage.buckets == {**BUCKETS, "guardrail_unit": 2 + 1 + 3}
    assert usage.raw["guardrail"] == trace["guardrail"]


@pytest.mark.parametrize("trace", [{"guardrail": 7}, {"guardrail": {"inputAssessment": [7], "outputAssessments": {"g": 7}}},
                                   {"guardrail": {"inputAssessment": {"g": assessed()}}}])  # fmt: skip
def test_a_trace_without_units_changes_nothing(trace: Any) -> None:
    assert read(usage=USAGE, trace=trace).raw == USAGE


# --- Converse, streamed ---

METADATA = {"usage": USAGE, "metrics": {"latencyMs": 812}, "serviceTier": {"type": "flex"}, "p": "abc"}
FRAMES = [
    aws_message("messageStart", {"role": "assistant"}),
    aws_message("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": 'Hi "usage" é'}}),
    aws_message("contentBlockStop", {"contentBlockIndex": 0}),
    aws_message("messageStop", {"stopReason": "end_turn"}),
    aws_message("metadata", METADATA),
]


def stream(
    *chunks: bytes, fmt: str = "bedrock_converse", model: str = CLAUDE, complete: bool = True
) -> Usage:
    return watch(tap_for(fmt, AWS, provider="bedrock", model=model), chunks, complete=complete)[1]


@pytest.mark.parametrize("content_type", [AWS, "application/octet-stream", ""])
def test_a_stream_cut_anywhere_says_what_the_whole_answer_says(content_type: str) -> None:
    whole, text = read(usage=USAGE, serviceTier={"type": "flex"}), b"".join(FRAMES)
    for place in range(1, len(text)):
        tap = tap_for("bedrock_converse", content_type, provider="bedrock", model=CLAUDE)
        passed, usage = watch(tap, [text[:place], text[place:]])
        assert usage == whole, place
        assert len(passed) < len(text)


def test_the_metadata_frame_waits_for_the_commit() -> None:
    passed = watch(tap_for("bedrock_converse", AWS), [b"".join(FRAMES)])[0]
    assert passed == b"".join(FRAMES[:-1])


def test_a_stream_that_breaks_off_before_its_metadata_is_estimated() -> None:
    usage = stream(*FRAMES[:2], complete=False, model=f"us.{CLAUDE}")
    assert (usage.source, usage.buckets) == ("estimated", {"in_uncached": 11, "out_visible": 4})  # 13 bytes
    assert (usage.model, usage.region) == (CLAUDE, "us")


def test_an_exception_before_anything_is_no_usage() -> None:
    usage = stream(aws_message("validationException", {"message": "no"}, kind="exception"))
    assert (usage.source, usage.tokens_total) == ("none", None)


def test_adapters_name_the_event_inside_its_payload() -> None:
    text = lines({"messageStart": {"role": "assistant"}}, {"metadata": METADATA})
    usage = watch(tap_for("bedrock_converse", "application/x-ndjson", model=CLAUDE), [text])[1]
    assert (usage.buckets, usage.service_tier) == (BUCKETS, "flex")


COUNTS = st.integers(0, 10**6)


@given(tokens_in=COUNTS, tokens_out=COUNTS, cached=COUNTS, five=COUNTS, hour=COUNTS, units=st.integers(0, 9))
def test_a_streamed_answer_says_what_the_whole_one_says(
    tokens_in: int, tokens_out: int, cached: int, five: int, hour: int, units: int
) -> None:
    usage = {
        "inputTokens": tokens_in, "outputTokens": tokens_out, "cacheReadInputTokens": cached,
        "cacheWriteInputTokens": five + hour, "totalTokens": tokens_in + tokens_out + cached + five + hour,
        "cacheDetails": [{"ttl": "5m", "inputTokens": five}, {"ttl": "1h", "inputTokens": hour}],
    }  # fmt: skip
    trace = {"guardrail": {"inputAssessment": {"g": assessed(contentPolicyUnits=units)}}}
    whole = read(usage=usage, trace=trace)
    assert stream(*FRAMES[:-1], aws_message("metadata", {"usage": usage, "trace": trace})) == whole
    assert (whole.tokens_input, whole.tokens_output) == (tokens_in + cached + five + hour, tokens_out)
    assert whole.buckets.get("guardrail_unit", 0) == units and whole.consistency == "ok"


# --- InvokeModel, whole ---


@pytest.mark.parametrize(
    ("answer", "buckets"),
    [
        pytest.param({"type": "message", "model": "claude-sonnet-4-5-20250929", "usage": MESSAGE_USAGE}, MESSAGE_BUCKETS,
                     id="Claude"),
        pytest.param({"usage": {"inputTokens": 30, "outputTokens": 12, "totalTokens": 142, "cacheReadInputTokenCount": 100}},
                     {"in_uncached": 30, "in_cache_read": 100, "out_visible": 12}, id="Nova"),
        pytest.param({"generation": "Hi", "prompt_token_count": 30, "generation_token_count": 12},
                     {"in_uncached": 30, "out_visible": 12}, id="Llama"),
        pytest.param({"inputTextTokenCount": 30, "results": [{"tokenCount": 12}, {"tokenCount": 5}]},
                     {"in_uncached": 30, "out_visible": 12 + 5}, id="Titan"),
        pytest.param({"embedding": [0.1], "inputTextTokenCount": 30}, {"in_uncached": 30, "out_visible": 0},
                     id="Titan embeddings"),
        pytest.param({"choices": [{}], "model": "gpt-oss-120b", "usage": CHAT_USAGE}, CHAT_BUCKETS, id="OpenAI, Mistral"),
    ],
)  # fmt: skip
def test_the_body_of_any_vendor_at_bedrock_s_name_of_the_model(
    answer: dict[str, Any], buckets: dict[str, int]
) -> None:
    usage = read("bedrock_invoke", f"us.{CLAUDE}", **answer)
    assert (usage.buckets, usage.source, usage.consistency) == (buckets, "reported", "ok")
    assert (usage.model, usage.region, usage.provider) == (CLAUDE, "us", "bedrock")
    assert usage.extractor == "bedrock_invoke/1"


def test_a_result_that_is_not_counted_leaves_the_output_unknown() -> None:
    usage = read("bedrock_invoke", inputTextTokenCount=30, results=[{"tokenCount": 12}, {"outputText": "…"}])
    assert (usage.tokens_input, usage.tokens_output) == (30, None)


def test_a_body_that_counts_nothing_is_no_usage() -> None:
    assert read("bedrock_invoke", generations=[{"text": "Hi"}]).source == "none"


# --- InvokeModel, streamed ---

METRICS = {"inputTokenCount": 10, "outputTokenCount": 500, "cacheReadInputTokenCount": 5000,
           "cacheWriteInputTokenCount": 3000, "invocationLatency": 400, "firstByteLatency": 200}  # fmt: skip


def frame(document: Any) -> bytes:
    text = base64.b64encode(json.dumps(document).encode()).decode()
    return aws_message("chunk", {"bytes": text, "p": "abcdef"})


def claude_frames(metrics: dict[str, int] | None = METRICS) -> list[bytes]:
    start = {**MESSAGE_USAGE, "output_tokens": 1, "output_tokens_details": None}
    last: dict[str, Any] = {"type": "message_stop"}
    if metrics is not None:
        last["amazon-bedrock-invocationMetrics"] = metrics
    return [
        frame({"type": "message_start", "message": {"model": "claude-sonnet-4-5", "usage": start}}),
        frame({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}}),
        frame({"type": "message_delta", "delta": {"stop_reason": "end_turn"},
               "usage": {"output_tokens": 500, "output_tokens_details": {"thinking_tokens": 120}}}),
        frame(last),
    ]  # fmt: skip


def test_the_vendor_s_stream_is_unwrapped_and_checked_against_the_metrics() -> None:
    usage = stream(*claude_frames(), fmt="bedrock_invoke", model=f"us.{CLAUDE}")
    assert (usage.buckets, usage.source, usage.consistency) == (MESSAGE_BUCKETS, "reported", "ok")
    assert (usage.model, usage.region) == (CLAUDE, "us")
    assert usage.raw["amazon-bedrock-invocationMetrics"] == METRICS


def test_a_vendor_s_stream_cut_anywhere() -> None:
    text = b"".join(claude_frames())
    whole = stream(text, fmt="bedrock_invoke")
    for place in range(1, len(text)):
        passed, usage = watch(
            tap_for("bedrock_invoke", AWS, provider="bedrock", model=CLAUDE), [text[:place], text[place:]]
        )
        assert usage == whole, place
        assert len(passed) < len(text)


def test_the_frame_with_the_metrics_waits_for_the_commit() -> None:
    frames = claude_frames()
    passed = watch(tap_for("bedrock_invoke", AWS), [b"".join(frames)])[0]
    assert passed == b"".join(frames[:-1])


def test_metrics_that_differ_hold_since_they_are_what_is_billed() -> None:
    usage = stream(*claude_frames({**METRICS, "outputTokenCount": 700}), fmt="bedrock_invoke")
    assert usage.buckets == {
        "in_uncached": 10,
        "in_cache_read": 5000,
        "in_cache_write_5m": 3000,
        "out_visible": 700,
    }
    assert (usage.consistency, usage.rules[-1]) == ("inconsistent", "metrics_differ")


def test_metrics_say_what_a_vendor_s_stream_left_out() -> None:
    start, *_, last = claude_frames()
    empty = frame({"type": "message_start", "message": {"model": "claude-sonnet-4-5", "usage": None}})
    usage = stream(empty, last, fmt="bedrock_invoke")
    assert (usage.tokens_input, usage.tokens_output) == (10 + 5000 + 3000, 500)
    assert (usage.source, usage.rules) == ("reported", ("cache_split_missing",))
    assert stream(start, last, fmt="bedrock_invoke").buckets == usage.buckets


def test_metrics_alone_will_do() -> None:
    frames = [
        frame({"contentBlockDelta": {"delta": {"text": "Hi"}}}),
        frame(
            {
                "messageStop": {},
                "amazon-bedrock-invocationMetrics": {"inputTokenCount": 30, "outputTokenCount": 12},
            }
        ),
    ]
    usage = stream(*frames, fmt="bedrock_invoke", model="amazon.nova-pro-v1:0")
    assert (usage.buckets, usage.source, usage.model) == (
        {"in_uncached": 30, "out_visible": 12},
        "reported",
        "amazon.nova-pro-v1:0",
    )


@pytest.mark.parametrize(
    "documents",
    [
        pytest.param([{"generation": "Hi", "prompt_token_count": 30, "generation_token_count": 1},
                      {"generation": "", "prompt_token_count": None, "generation_token_count": 12}], id="Llama"),
        pytest.param([{"outputText": "Hi", "inputTextTokenCount": 30, "totalOutputTextTokenCount": None},
                      {"outputText": "", "totalOutputTextTokenCount": 12, "completionReason": "FINISH"}], id="Titan"),
        pytest.param([{"contentBlockDelta": {}}, {"metadata": {"usage": {"inputTokens": 30, "outputTokens": 12}}}], id="Nova"),
        pytest.param([{"choices": [{"delta": {}}]},
                      {"choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}}], id="OpenAI"),
    ],
)  # fmt: skip
def test_counters_of_other_vendors_are_running_totals(documents: list[dict[str, Any]]) -> None:
    usage = stream(*[frame(document) for document in documents], fmt="bedrock_invoke")
    assert (usage.buckets, usage.source) == ({"in_uncached": 30, "out_visible": 12}, "reported")
    broken = stream(*[frame(document) for document in documents], fmt="bedrock_invoke", complete=False)
    assert broken.source == "reported_partial"


def test_a_vendor_s_stream_that_breaks_off_knows_its_input() -> None:
    usage = stream(*claude_frames()[:2], fmt="bedrock_invoke", complete=False)
    assert (usage.source, usage.tokens_input, usage.tokens_output) == ("reported_partial", 8010, 2)
    nothing = stream(frame({"generations": []}), fmt="bedrock_invoke", complete=False)
    assert (nothing.source, nothing.model) == ("estimated", CLAUDE)


@pytest.mark.parametrize(
    "payload", [{"bytes": "%%%"}, {"bytes": 7}, {"bytes": "bm8ganNvbg=="}, {}, b"no json"]
)
def test_a_frame_that_cannot_be_unwrapped_costs_itself_alone(payload: Any) -> None:
    usage = stream(aws_message("chunk", payload), *claude_frames(), fmt="bedrock_invoke")
    assert usage.buckets == MESSAGE_BUCKETS


# --- anything at all ---

NAMES = st.sampled_from([
    *USAGE, *METRICS, *METADATA, "ttl", "type", "trace", "guardrail", "inputAssessment", "g", "invocationMetrics", "usage",
    "promptRouter", "invokedModelId", "performanceConfig", "latency", "amazon-bedrock-invocationMetrics", "bytes", "metadata",
    "prompt_token_count", "generation_token_count", "inputTextTokenCount", "results", "tokenCount", "message", "input_tokens",
    "output_tokens", "prompt_tokens", "model", "contentPolicyUnits",
])  # fmt: skip
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2000)
    | st.floats()
    | st.sampled_from(["message_start", "5m", "x"])
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)
BOTH = ["bedrock_converse", "bedrock_invoke"]


@given(st.dictionaries(NAMES, DOCUMENTS), st.sampled_from(BOTH), st.booleans())
def test_any_json_gives_a_usage_that_can_be_trusted(
    document: dict[str, Any], fmt: str, complete: bool
) -> None:
    frames = [aws_message("metadata", document), frame(document)]
    for usage in (
        wire_format(fmt).read_body(body(**document), FACTS, "bedrock"),
        stream(*frames, fmt=fmt, complete=complete),
    ):
        assert all(count >= 0 for count in usage.buckets.values())
        assert usage.source != "none" or (usage.buckets == {} and usage.tokens_total is None)


@given(st.binary(), st.sampled_from(BOTH), st.sampled_from([AWS, JSON, "application/octet-stream"]))
def test_any_bytes_are_survived(text: bytes, fmt: str, content_type: str) -> None:
    assert wire_format(fmt).read_body(text, FACTS, "bedrock").source == "none"
    assert watch(tap_for(fmt, content_type), [text])[1].source == "none"
