"""Cohere: what it bills and not what it counts, as whole numbers."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import wire_format
from pricing.usage import Usage
from tests.metering.payloads import body, event
from tests.metering.streams import NDJSON, SSE, lines, tap_for, watch

FACTS = RequestFacts(model="command-a", tokens_input_estimate=11, readable=True)
USAGE = {
    "billed_units": {"input_tokens": 5.0, "output_tokens": 7.0},
    "tokens": {"input_tokens": 71.0, "output_tokens": 7.0},
    "cached_tokens": 64.0,
}


def chat(usage: Any) -> Usage:
    return wire_format("cohere_chat").read_body(body(usage=usage), FACTS, "cohere")


def meta(**billed: Any) -> Usage:
    text = body(meta={"api_version": {"version": "1"}, "billed_units": billed})
    return wire_format("cohere_v1").read_body(text, FACTS, "cohere")


def test_the_billed_five_count_and_not_the_seventy_one() -> None:
    usage = chat(USAGE)
    assert usage.buckets == {"in_uncached": 5, "out_visible": 7}
    assert (usage.source, usage.consistency, usage.raw) == ("reported", "ok", USAGE)
    assert (usage.model, usage.provider) == ("command-a", "cohere")


@pytest.mark.parametrize(
    ("billed", "buckets", "source", "consistency"),
    [
        pytest.param({"input_tokens": 5, "output_tokens": 7, "search_units": 2.0},
                     {"in_uncached": 5, "out_visible": 7, "search_unit": 2}, "reported", "ok", id="search units"),
        pytest.param({"input_tokens": 5.5, "output_tokens": 7.0}, {"out_visible": 7}, "reported_partial", "inconsistent",
                     id="half a token is refused"),
        pytest.param({"input_tokens": 5.0}, {"in_uncached": 5}, "reported_partial", "ok", id="an output that nobody told"),
        pytest.param({"input_tokens": 0.0, "output_tokens": 0.0}, {"in_uncached": 0, "out_visible": 0}, "reported", "ok",
                     id="explicit zeros"),
        pytest.param({"input_tokens": 5, "output_tokens": 7, "classifications": 3}, {"in_uncached": 5, "out_visible": 7},
                     "reported", "repaired:tool_not_known", id="something that has no unit"),
    ],
)  # fmt: skip
def test_variants_of_a_chat(
    billed: dict[str, Any], buckets: dict[str, int], source: str, consistency: str
) -> None:
    usage = chat({"billed_units": billed})
    assert (usage.buckets, usage.source, usage.consistency) == (buckets, source, consistency)


def test_where_nothing_is_billed_what_is_counted_has_to_do() -> None:
    usage = chat({"tokens": {"input_tokens": 71.0, "output_tokens": 7.0}})
    assert (usage.buckets, usage.consistency) == (
        {"in_uncached": 71, "out_visible": 7},
        "repaired:billed_units_missing",
    )


@pytest.mark.parametrize(
    "usage", [None, 7, {}, {"billed_units": None}, {"billed_units": {}}, {"billed_units": 7}]
)
def test_usage_that_says_nothing_is_none(usage: Any) -> None:
    assert (chat(usage).source, chat(usage).tokens_total) == ("none", None)


@pytest.mark.parametrize(
    ("billed", "buckets"),
    [
        pytest.param({"input_tokens": 8.0}, {"in_uncached": 8, "out_visible": 0}, id="embeddings write nothing"),
        pytest.param({"search_units": 1.0}, {"search_unit": 1, "in_uncached": 0, "out_visible": 0}, id="a rerank has no tokens"),
        pytest.param({"input_tokens": 0.0, "images": 2.0, "image_tokens": 1200.0},
                     {"image": 2, "in_uncached.image": 1200, "out_visible": 0}, id="images"),
        pytest.param({"image_tokens": 1200.0}, {"in_uncached.image": 1200, "out_visible": 0}, id="image tokens alone"),
        pytest.param({"input_tokens": 5.0, "output_tokens": 7.0}, {"in_uncached": 5, "out_visible": 7}, id="the old chat"),
        pytest.param({"pages": 3}, {"page": 3, "in_uncached": 0, "out_visible": 0}, id="pages"),
    ],
)  # fmt: skip
def test_in_meta_what_is_not_named_was_not_used(billed: dict[str, Any], buckets: dict[str, int]) -> None:
    usage = meta(**billed)
    assert (usage.buckets, usage.source, usage.consistency) == (buckets, "reported", "ok")


def test_a_refused_counter_in_meta_is_unknown_and_never_zero() -> None:
    usage = meta(input_tokens=1.5, search_units=1)
    assert (usage.tokens_input, usage.source, usage.consistency) == (None, "reported_partial", "inconsistent")


@pytest.mark.parametrize("answer", [{}, {"meta": 7}, {"meta": {"api_version": {"version": "1"}}}])
def test_meta_that_says_nothing_is_none(answer: dict[str, Any]) -> None:
    assert wire_format("cohere_v1").read_body(body(**answer), FACTS, "cohere").source == "none"


# --- streams ---


def chat_stream(usage: Any = USAGE) -> list[bytes]:
    return [
        event("message-start", id="x", delta={"message": {"role": "assistant"}}),
        event("content-delta", index=0, delta={"message": {"content": {"text": "message-end"}}}),
        event("message-end", delta={"finish_reason": "COMPLETE", "usage": usage}),
    ]


def test_a_streamed_chat_cut_anywhere_says_what_the_whole_one_says() -> None:
    text = b"".join(chat_stream())
    whole = wire_format("cohere_chat").read_body(body(usage=USAGE), FACTS, "cohere")
    for place in range(1, len(text)):
        tap = tap_for("cohere_chat", SSE, provider="cohere", model="command-a")
        passed, usage = watch(tap, [text[:place], text[place:]])
        assert usage == whole, place
        assert len(passed) < len(text) - 1, place  # its line is not whole


def test_the_event_that_ends_the_message_waits_for_the_commit() -> None:
    chunks = chat_stream()
    assert watch(tap_for("cohere_chat", SSE), chunks)[0] == b"".join(chunks[:-1])


def test_a_chat_that_breaks_off_is_estimated() -> None:
    usage = watch(tap_for("cohere_chat", SSE), chat_stream()[:2], complete=False)[1]
    assert (usage.source, usage.buckets) == ("estimated", {"in_uncached": 11, "out_visible": 3})  # 11 bytes


V1_LINES = lines(
    {"is_finished": False, "event_type": "stream-start", "generation_id": "g"},
    {"is_finished": False, "event_type": "text-generation", "text": "Hi"},
    {
        "is_finished": True,
        "event_type": "stream-end",
        "response": {"meta": {**USAGE, "api_version": {"version": "1"}}},
    },
)


@pytest.mark.parametrize("content_type", [NDJSON, "application/stream+json"])
def test_the_old_chat_streams_lines_and_ends_with_the_whole_response(content_type: str) -> None:
    whole = wire_format("cohere_v1").read_body(body(meta=USAGE), FACTS, "cohere")
    for place in range(1, len(V1_LINES)):
        tap = tap_for("cohere_v1", content_type, provider="cohere", model="command-a")
        passed, usage = watch(tap, [V1_LINES[:place], V1_LINES[place:]])
        assert usage == whole, place
        assert not passed.endswith(b"}}}\n")


def test_an_old_chat_that_breaks_off_is_estimated() -> None:
    text = V1_LINES[: V1_LINES.index(b"stream-end")]
    assert watch(tap_for("cohere_v1", NDJSON), [text], complete=False)[1].source == "estimated"


COUNTS = st.integers(0, 10**6)


@given(tokens_in=COUNTS, tokens_out=COUNTS, searches=st.integers(0, 9))
def test_a_streamed_answer_says_what_the_whole_one_says(
    tokens_in: int, tokens_out: int, searches: int
) -> None:
    usage = {
        "billed_units": {
            "input_tokens": float(tokens_in),
            "output_tokens": float(tokens_out),
            "search_units": searches,
        }
    }
    tap = tap_for("cohere_chat", SSE, provider="cohere", model="command-a")
    assert watch(tap, chat_stream(usage))[1] == chat(usage)
    assert (chat(usage).tokens_input, chat(usage).tokens_output) == (tokens_in, tokens_out)


NAMES = st.sampled_from(["usage", "meta", "billed_units", "tokens", "input_tokens", "output_tokens", "search_units", "images",
                         "image_tokens", "type", "delta", "event_type", "response"])  # fmt: skip
VALUES = (
    st.none()
    | st.booleans()
    | st.integers(-5, 2000)
    | st.floats()
    | st.sampled_from(["message-end", "stream-end"])
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)
BOTH = ["cohere_chat", "cohere_v1"]


@given(st.dictionaries(NAMES, DOCUMENTS), st.sampled_from(BOTH), st.booleans())
def test_any_json_gives_a_usage_that_can_be_trusted(
    document: dict[str, Any], fmt: str, complete: bool
) -> None:
    streamed = watch(tap_for(fmt, NDJSON), [lines(document)], complete=complete)[1]
    for usage in (wire_format(fmt).read_body(body(**document), FACTS, "cohere"), streamed):
        assert all(type(count) is int and count >= 0 for count in usage.buckets.values())
        assert usage.source != "none" or (usage.buckets == {} and usage.tokens_total is None)


@given(st.binary(), st.sampled_from(BOTH))
def test_any_bytes_are_survived(text: bytes, fmt: str) -> None:
    assert wire_format(fmt).read_body(text, FACTS, "cohere").source == "none"
