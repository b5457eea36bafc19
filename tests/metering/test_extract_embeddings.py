"""Embeddings: the vectors are cut out unread, and that must never show."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import wire_format
from pricing.usage import Usage

FACTS = RequestFacts(model="asked-for", readable=True)
USAGE = {"prompt_tokens": 8, "total_tokens": 8}


def read(body: bytes, fmt: str = "openai_embeddings") -> Usage:
    usage = wire_format(fmt).read_body(body, FACTS, "openai")
    return msgspec.structs.replace(usage, extractor="any")


def test_an_answer_as_openai_sends_it() -> None:
    vectors = [{"object": "embedding", "index": n, "embedding": [0.5, -0.25] * 700} for n in range(3)]
    answer = {"object": "list", "data": vectors, "model": "text-embedding-3-small", "usage": USAGE}
    usage = read(json.dumps(answer, indent=2).encode())
    assert usage.buckets == {"in_uncached": 8, "out_visible": 0}
    assert (usage.model, usage.raw, usage.consistency) == ("text-embedding-3-small", USAGE, "ok")


@pytest.mark.parametrize(
    "body",
    [
        b'{"data": [1], "service_tier": "flex", "more": [2], "model": "m", "usage": {"prompt_tokens": 1, "total_tokens": 1}}',
        b'{"data": [1], "model": "m", "more": [2], "usage": {"prompt_tokens": 1, "total_tokens": 1}}',
        b'{"data": [1], "usage": {"prompt_tokens": 1, "total_tokens": 1}, "more": [2], "model": "m"}',
        b'{"usage": {"prompt_tokens": 1, "total_tokens": 1, "details": [{"x": [1]}]}, "model": "m"}',
        b'{"model": "a[b", "usage": {"prompt_tokens": 1, "total_tokens": 1}, "data": "c]d"}',
        b'{"model": "m", "data": "x]", "usage": {"prompt_tokens": 1, "total_tokens": 1}}',
        b'{"model": "m", "data": [1], "usage": {"prompt_tokens": 1, "total_tokens": 3}}',
        b'{"model": "m", "data": [1], "usage": {"prompt_tokens": true, "total_tokens": 1}}',
        b'{"model": "m", "data": [1], "usage": {"prompt_tokens": -1, "total_tokens": -1}}',
        b'{"model": "m", "data": [1], "usage": {"prompt_tokens": 1, "total_tokens": 1}',
    ],
)
def test_what_stands_elsewhere_is_found_as_in_any_other_answer(body: bytes) -> None:
    assert read(body) == read(body, "openai_chat")


PUNCTUATED = st.text(alphabet='ab[]{}",:\\ 1', max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | PUNCTUATED,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(PUNCTUATED, inner, max_size=3),
    max_leaves=8,
)
COUNTER = st.integers(-1, 9)
NAMES = PUNCTUATED | st.sampled_from(["object", "data", "model", "usage", "service_tier"])
ANSWERS = st.lists(
    st.tuples(NAMES, VALUES)
    | st.tuples(st.just("model"), PUNCTUATED)
    | st.tuples(st.just("data"), st.lists(st.lists(st.floats(-1, 1), max_size=2), max_size=2))
    | st.tuples(st.just("usage"), st.fixed_dictionaries({"prompt_tokens": COUNTER, "total_tokens": COUNTER})),
    max_size=7,
    unique_by=lambda field: field[0],
)


@given(ANSWERS, st.sampled_from([None, 1]))
def test_an_answer_reads_the_same_with_and_without_its_vectors(
    fields: list[tuple[str, Any]], indent: int | None
) -> None:
    body = json.dumps(dict(fields), indent=indent).encode()
    assert read(body) == read(body, "openai_chat")
