"""What a request says of itself, and that no request can do harm by what it says."""

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from metering.clean import TEXT_LIMITS
from metering.estimate import MESSAGE_OVERHEAD_TOKENS, NAME_MAX, RequestFacts, estimate_tokens, read_request
from metering.extract import wire_format

CHAT, EMBEDDINGS = wire_format("openai_chat"), wire_format("openai_embeddings")


def read(**fields: Any) -> RequestFacts:
    return read_request(json.dumps(fields).encode(), CHAT)


def test_it_reads_what_matters() -> None:
    facts = read(
        model="gpt-5.6", stream=True, max_completion_tokens=64, user="u1", task_type="summary",
        stream_options={"include_usage": True}, messages=[{"role": "user", "content": "Hi"}],
    )  # fmt: skip
    assert (facts.model, facts.stream, facts.max_tokens, facts.user_id) == ("gpt-5.6", True, 64, "u1")
    assert (facts.task_type, facts.include_usage, facts.readable) == ("summary", True, True)


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({"max_tokens": 1}, 1),
        ({"max_output_tokens": 2}, 2),
        ({"max_tokens": 1, "max_completion_tokens": 3}, 3),
        ({"max_tokens": 0}, 0),
        ({}, None),
        ({"max_tokens": True}, None),
        ({"max_tokens": -1}, None),
        ({"max_tokens": "5"}, None),
        ({"max_tokens": 2**53 + 1}, None),
    ],
)
def test_the_output_limit_is_the_callers_own(fields: dict[str, Any], limit: int | None) -> None:
    assert read(**fields).max_tokens == limit


@pytest.mark.parametrize("body", [b'{"model": "other"}', b"{}", b"{", b"\x1f\x8b", b""])
def test_a_model_in_the_path_goes_before_one_in_the_body(body: bytes) -> None:
    assert read_request(body, CHAT, path_model="gemini-2.5-pro").model == "gemini-2.5-pro"


def test_embeddings_have_no_output() -> None:
    assert read_request(b'{"model": "text-embedding-3-small", "input": "Hi"}', EMBEDDINGS).max_tokens == 0


@pytest.mark.parametrize(
    ("fields", "user"),
    [
        ({"user": "a", "metadata": {"user_id": "b"}, "safety_identifier": "c"}, "a"),
        ({"metadata": {"user_id": "b"}, "safety_identifier": "c"}, "b"),
        ({"safety_identifier": "c"}, "c"),
        ({"user": 7, "metadata": "x"}, None),
        ({"user": ""}, None),
    ],
)
def test_the_end_user_is_taken_from_the_first_that_says(fields: dict[str, Any], user: str | None) -> None:
    assert read(**fields).user_id == user


@pytest.mark.parametrize(("size", "tokens"), [(0, 0), (1, 1), (4, 1), (5, 2), (400, 100)])
def test_the_estimate_is_a_quarter_of_the_bytes_rounded_up(size: int, tokens: int) -> None:
    assert estimate_tokens(size) == (tokens + MESSAGE_OVERHEAD_TOKENS if size else 0)


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("Deflate", zlib.compress), ("identity", bytes)]
)
def test_a_compressed_request_is_read_and_estimated_as_what_it_says(encoding: str, pack: Any) -> None:
    plain = json.dumps({"model": "m", "input": "word " * 200}).encode()
    facts = read_request(pack(plain), CHAT, encoding)
    assert facts.model == "m" and facts.tokens_input_estimate == estimate_tokens(len(plain))


@pytest.mark.parametrize(
    ("body", "encoding"), [(b"\x1f\x8bnonsense", "gzip"), (b"{}", "br"), (b"[]", ""), (b"", ""), (b"{", "")]
)
def test_what_cannot_be_read_is_said_to_be_unreadable(body: bytes, encoding: str) -> None:
    facts = read_request(body, CHAT, encoding)
    assert not facts.readable and facts.model is None


@pytest.mark.parametrize("body", [b"[" * 10_000, b'{"metadata":' + b"[" * 10_000 + b"]" * 10_000 + b"}"])
def test_a_deeply_nested_request_is_survived(body: bytes) -> None:
    assert not read_request(body, CHAT).readable


@given(st.binary(), st.sampled_from(["", "gzip", "deflate", "br", "é"]))
def test_any_bytes_are_survived(body: bytes, encoding: str) -> None:
    assert read_request(body, CHAT, encoding).tokens_input_estimate >= 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["user_id", "include_usage"]) | st.text(), inner)
    ),
    max_leaves=10,
)
fields = st.sampled_from([
    "model", "stream", "max_tokens", "max_output_tokens", "stream_options", "user", "metadata", "safety_identifier", "task_type",
])  # fmt: skip


@given(st.dictionaries(fields, json_values))
def test_any_json_is_survived_and_facts_have_their_types(document: dict[str, Any]) -> None:
    facts = read_request(json.dumps(document).encode(), CHAT)
    assert {type(facts.stream), type(facts.include_usage)} == {bool}
    assert facts.model is None or isinstance(facts.model, str)
    assert facts.user_id is None or isinstance(facts.user_id, str)
    assert facts.max_tokens is None or 0 <= facts.max_tokens <= 2**53


# Large bodies

LONG = {"messages": [{"role": "user", "content": "x" * 200_000}]}
SAID = st.fixed_dictionaries(
    {},
    optional={
        "model": st.text(max_size=300) | st.none() | st.integers(),
        "stream": st.booleans() | st.text(),
        "max_tokens": st.integers() | st.floats(allow_nan=False),
        "max_completion_tokens": st.none() | st.integers(0, 10),
        "stream_options": st.dictionaries(st.sampled_from(["include_usage", "other"]), st.booleans()),
        "metadata": st.dictionaries(st.sampled_from(["user_id", "other"]), st.text() | st.integers())
        | st.text(),
        "user": st.text(max_size=10),
        "task_type": st.text(max_size=10),
    },
)


@given(SAID)
def test_a_large_body_says_what_a_small_one_says(said: dict[str, Any]) -> None:
    small, large = read(**said), read(**said, **LONG)
    assert msgspec.structs.replace(large, tokens_input_estimate=small.tokens_input_estimate) == small


@pytest.mark.parametrize("name", ["metadata", "user", "stream_options", "max_tokens"])
def test_a_million_lists_in_place_of_a_value_are_not_built(name: str) -> None:
    """Each would take 56 bytes, and all of them a second."""
    body = b'{"model":"gpt-5.6","%s":[%s]}' % (name.encode(), b",".join([b"[]"] * 1_000_000))
    tracemalloc.start()
    try:
        facts = read_request(body, CHAT)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert facts == RequestFacts(
        model="gpt-5.6", readable=True, tokens_input_estimate=estimate_tokens(len(body))
    )
    assert most < 2 * len(body)


def test_a_name_is_cut_to_its_column_and_one_beyond_all_names_is_not_read() -> None:
    assert NAME_MAX == TEXT_LIMITS["model"] == 200
    assert read(model="m" * 201).model == read(model="m" * 201, **LONG).model == "m" * 200
    beyond = read(model="m" * 20_000, **LONG)
    assert (beyond.model, beyond.readable) == (None, False)
