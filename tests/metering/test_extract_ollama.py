"""Ollama: counts on the line that is done, any of which may be left out."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import wire_format
from pricing.usage import Usage
from tests.metering.payloads import body
from tests.metering.streams import JSON, NDJSON, lines, tap_for, watch

FACTS = RequestFacts(model="asked-for", tokens_input_estimate=11, readable=True)
DONE = {"model": "llama3.1", "created_at": "2026-11-20T12:00:00Z", "message": {"role": "assistant", "content": ""}, "done": True,
        "done_reason": "stop", "total_duration": 4883583458, "prompt_eval_count": 26, "prompt_eval_duration": 342546000,
        "eval_count": 259, "eval_duration": 4535599000}  # fmt: skip


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"model": "llama3.1", "message": {"role": "assistant", "content": text}, "done": False, **more}


LINES = [said('Hi "done": true'), said(' } \\" \n é'), DONE]


def read(**fields: Any) -> Usage:
    return wire_format("ollama").read_body(body(**fields), FACTS, "ollama")


def test_an_answer_has_its_counts_among_durations() -> None:
    usage = read(**DONE)
    assert usage.buckets == {"in_uncached": 26, "out_visible": 259}
    assert (usage.model, usage.provider, usage.source) == ("llama3.1", "ollama", "reported")
    assert usage.raw == {"prompt_eval_count": 26, "eval_count": 259}


@pytest.mark.parametrize(
    ("changes", "tokens_in", "tokens_out", "source"),
    [
        pytest.param(
            {"prompt_eval_count": None}, None, 259, "reported_partial", id="a prompt that was cached"
        ),
        pytest.param({"eval_count": None}, 26, None, "reported_partial", id="no output count"),
        pytest.param({"prompt_eval_count": None, "eval_count": None}, None, None, "none", id="neither"),
        pytest.param({"prompt_eval_count": 0, "eval_count": 0}, 0, 0, "reported", id="explicit zeros"),
        pytest.param(
            {"eval_count": None, "embeddings": [[0.1]]}, 26, 0, "reported", id="embeddings write nothing"
        ),
        pytest.param({"eval_count": 1.5}, 26, None, "reported_partial", id="a count that is none"),
    ],
)
def test_a_count_that_is_missing_is_unknown(
    changes: dict[str, Any], tokens_in: int | None, tokens_out: int | None, source: str
) -> None:
    usage = read(**{**DONE, **changes})
    assert (usage.tokens_input, usage.tokens_output, usage.source) == (tokens_in, tokens_out, source)


@pytest.mark.parametrize("content_type", [NDJSON, JSON, "text/plain", ""])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_stream_cut_anywhere_says_what_the_whole_answer_says(content_type: str, line_end: bytes) -> None:
    text, last = lines(*LINES, line_end=line_end), len(lines(*LINES[:-1], line_end=line_end))
    whole = read(**DONE)
    for place in range(1, len(text)):
        tap = tap_for("ollama", content_type, provider="ollama")
        passed, usage = watch(tap, [text[:place], text[place:]])
        assert usage == whole, place
        assert passed in (text[:last], text[:place]) and len(passed) < len(text.rstrip()), place


def test_the_line_that_is_done_waits_for_the_commit() -> None:
    text = lines(*LINES)
    assert watch(tap_for("ollama", NDJSON), [text])[0] == lines(*LINES[:-1])


@pytest.mark.parametrize("indent", [None, 2])
def test_an_answer_that_is_not_streamed_is_one_document(indent: int | None) -> None:
    import json

    text = json.dumps(DONE, indent=indent).encode()
    for place in range(1, len(text)):
        usage = watch(tap_for("ollama", JSON, provider="ollama"), [text[:place], text[place:]])[1]
        assert usage == read(**DONE), place


def test_a_stream_that_breaks_off_is_estimated() -> None:
    usage = watch(tap_for("ollama", NDJSON), [lines(*LINES[:2])], complete=False)[1]
    assert (usage.source, usage.buckets, usage.model) == (
        "estimated",
        {"in_uncached": 11, "out_visible": 7},  # 15 + 10 bytes
        "llama3.1",
    )


def test_a_stream_whose_last_line_has_no_counts_is_estimated() -> None:
    last = {"model": "llama3.1", "done": True}
    assert watch(tap_for("ollama", NDJSON), [lines(LINES[0], last)])[1].source == "estimated"


def test_an_error_line_ends_a_stream() -> None:
    error = lines({"error": "an error was encountered while running the model"})
    passed, usage = watch(tap_for("ollama", NDJSON), [lines(LINES[0]), error])
    assert (passed, usage.source, usage.metadata) == (lines(LINES[0]), "estimated", {"stream_error": "error"})
    assert watch(tap_for("ollama", NDJSON), [error])[1].source == "none"


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.text(max_size=9))
def test_a_streamed_answer_says_what_the_whole_one_says(tokens_in: int, tokens_out: int, text: str) -> None:
    last = {**DONE, "prompt_eval_count": tokens_in, "eval_count": tokens_out}
    streamed = watch(tap_for("ollama", NDJSON, provider="ollama"), [lines(said(text), last)])[1]
    assert streamed == read(**last)
    assert (streamed.tokens_input, streamed.tokens_output) == (tokens_in, tokens_out)


NAMES = st.sampled_from([*DONE, "error", "embeddings"])
VALUES = st.none() | st.booleans() | st.integers(-5, 2000) | st.floats() | st.text(max_size=3)


@given(st.dictionaries(NAMES, VALUES), st.booleans())
def test_any_json_gives_a_usage_that_can_be_trusted(document: dict[str, Any], complete: bool) -> None:
    streamed = watch(tap_for("ollama", NDJSON), [lines(document)], complete=complete)[1]
    for usage in (read(**document), streamed):
        assert all(type(count) is int and count >= 0 for count in usage.buckets.values())
        assert usage.source != "none" or (usage.buckets == {} and usage.tokens_total is None)


@given(st.binary())
def test_any_bytes_are_survived(text: bytes) -> None:
    assert wire_format("ollama").read_body(text, FACTS, "ollama").source == "none"
