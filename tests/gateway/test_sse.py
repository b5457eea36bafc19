"""Cutting event streams, and taking the usage chunk out of them, at every cut of their bytes."""

import itertools

import pytest
from hypothesis import given, strategies as st

from project.gateway.sse import EventSplitter, Json, UsageStripper, data_of

CHUNK = b'data: {"choices":[{"delta":{"content":"Gr\xc3\xbc\xc3\x9fe"}}],"usage":null}\n\n'
USAGE = b'data: {"model":"gpt-x","choices":[],"usage":{"prompt_tokens":8,"total_tokens":8},"service_tier":"flex"}\n\n'
DONE = b"data: [DONE]\n\n"
SAID = {"usage": {"prompt_tokens": 8, "total_tokens": 8}, "model": "gpt-x", "service_tier": "flex"}


def stripped(chunks: list[bytes]) -> tuple[bytes, list[Json]]:
    said: list[Json] = []
    stripper = UsageStripper(said.append)
    passed = b"".join(stripper.feed(chunk) for chunk in chunks)
    return passed + stripper.finish(), said


def in_two(stream: bytes) -> list[list[bytes]]:
    return [[stream[:cut], stream[cut:]] for cut in range(len(stream) + 1)]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_the_usage_chunk_is_taken_out_at_every_cut(line_end: bytes) -> None:
    before, usage, after = (part.replace(b"\n", line_end) for part in (b": hello\n\n" + CHUNK, USAGE, DONE))
    for chunks in in_two(before + usage + after):
        assert stripped(chunks) == (before + after, [SAID])


def test_the_usage_chunk_is_taken_out_of_a_stream_of_single_bytes() -> None:
    assert stripped([bytes((byte,)) for byte in CHUNK + USAGE + DONE]) == (CHUNK + DONE, [SAID])


def test_usage_is_said_before_anything_after_it_goes_out() -> None:
    said: list[Json] = []
    stripper = UsageStripper(said.append)
    assert stripper.feed(CHUNK + USAGE[:-1]) == CHUNK
    assert said == []
    assert stripper.feed(USAGE[-1:]) == b""
    assert said == [SAID]


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"choices":[],"prompt_filter_results":[]}\n\n',  # Azure's first chunk
        b'data: {"choices":[{"delta":{}}],"usage":{"prompt_tokens":8}}\n\n',  # running totals
        b'data: {"usage":{"prompt_tokens":8}}\n\n',  # no choices at all
        b'data: {"choices":[{"delta":{"content":"\\"usage\\": {}"}}]}\n\n',
        b'data: {"choices":[],"usage":[[[\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":\xff}}\n\n',
        b'data: {"choices":[],"usage":' + b'{"a":' * 10_000 + b"1" + b"}" * 10_000 + b"}\n\n",
        b"event: ping\n\n",
        b"\n\n\n\n",
    ],
)
def test_every_other_event_passes_as_it_is(event: bytes) -> None:
    assert stripped([event + DONE]) == (event + DONE, [])


def test_a_usage_chunk_whose_data_stands_on_several_lines_is_taken_out() -> None:
    event = (
        b'event: chunk\ndata: {"choices":[],\ndata:  "usage":{"prompt_tokens":8},\ndata: "model":"gpt-x"}\n\n'
    )
    passed, said = stripped([CHUNK + event + DONE])
    assert passed == CHUNK + DONE
    assert [(one["usage"], one["model"]) for one in said] == [({"prompt_tokens": 8}, "gpt-x")]


def test_a_stream_that_ends_without_an_empty_line_loses_nothing() -> None:
    assert stripped([CHUNK + b"data: [DONE]"]) == (CHUNK + b"data: [DONE]", [])
    assert stripped([CHUNK + USAGE[:-2]]) == (CHUNK, [SAID])


def test_a_line_of_a_megabyte_in_small_chunks_is_searched_once() -> None:
    event = b"data: " + b"x" * 2**20 + b"\n\n"
    splitter = EventSplitter()
    found = [splitter.feed(event[at : at + 100]) for at in range(0, len(event), 100)]
    assert list(itertools.chain(*found)) == [event]


@given(st.lists(st.sampled_from([b"\r", b"\n", b"data: x", b"data:y", b": z"])), st.data())
def test_events_joined_are_the_stream_however_it_is_cut(parts: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)))))
    pieces = [stream[start:end] for start, end in itertools.pairwise([0, *cuts, len(stream)])]
    whole, cut = EventSplitter(), EventSplitter()
    events = [event for piece in pieces for event in cut.feed(piece)]
    assert (events, cut.rest()) == (whole.feed(stream), whole.rest())
    assert b"".join(events) + stream[len(b"".join(events)) :] == stream


def test_data_lines_are_joined_by_line_feeds() -> None:
    assert data_of(b"event: a\r\ndata: one\r\ndata:two\r\ndatabase: no\r\n: data: no\r\n\r\n") == b"one\ntwo"
