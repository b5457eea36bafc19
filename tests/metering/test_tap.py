"""The tap: the same usage however the bytes are cut, and nothing terminal let go before the commit."""

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import wire_format
from metering.tap import TAIL_BYTES, Tap, open_tap
from tests.metering.payloads import (
    CHAT_BUCKETS,
    CHAT_USAGE,
    MESSAGE_BUCKETS,
    RESPONSES_BUCKETS,
    RESPONSES_USAGE,
    body,
    chat_stream,
    data,
    event,
    message_stream,
    responses_stream,
)
from tests.metering.streams import FACTS, JSON, SSE, cut, watch

FORMATS = ["openai_chat", "openai_responses", "openai_embeddings", "anthropic_messages", "execute"]

EXECUTE_STREAM = b"".join([
    event("execution.started", execution_id="e-1", task_type="t", model="demo-small"),
    event("execution.delta", delta="execution.completed [DONE] ä"),
    event("execution.completed", execution_id="e-1", task_type="t", model="demo-small", output="…", usage=CHAT_USAGE),
])  # fmt: skip

# Format, the whole stream, the bytes that its terminal event begins with, and what it used.
STREAMS = [
    pytest.param("openai_chat", chat_stream(), b"data: [DONE]", CHAT_BUCKETS, id="chat"),
    pytest.param("openai_chat", chat_stream(line_end=b"\r\n"), b"data: [DONE]", CHAT_BUCKETS, id="chat, CRLF"),
    pytest.param("openai_responses", responses_stream(), b"event: response.completed", RESPONSES_BUCKETS, id="responses"),
    pytest.param(
        "openai_responses", responses_stream(line_end=b"\r\n"), b"event: response.completed", RESPONSES_BUCKETS,
        id="responses, CRLF",
    ),
    pytest.param("anthropic_messages", message_stream(), b"event: message_stop", MESSAGE_BUCKETS, id="messages"),
    pytest.param(
        "anthropic_messages", message_stream(line_end=b"\r\n"), b"event: message_stop", MESSAGE_BUCKETS, id="messages, CRLF"
    ),
    pytest.param("execute", EXECUTE_STREAM, b"event: execution.completed", CHAT_BUCKETS, id="execute"),
]  # fmt: skip


def stream_tap(fmt: str = "openai_chat", encoding: str = "", **options: Any) -> Tap:
    return open_tap(wire_format(fmt), FACTS, "openai", SSE, encoding, **options)


def has_all(fmt: str, passed: bytes) -> bool:
    """Whether a client that goes by whole lines has the end of the answer in its hands."""
    lines = passed.replace(b"\r", b"").split(b"\n")
    ends = {
        "openai_chat": lambda line: line.startswith(b"data: [DONE]"),
        "openai_responses": lambda line: line.startswith(b'data: {"type": "response.completed"'),
        "anthropic_messages": lambda line: line.startswith(b'data: {"type": "message_stop"'),
        "execute": lambda line: line.startswith(b'data: {"type": "execution.completed"'),
    }
    return any(ends[fmt](line) for line in lines[:-1]) or lines[-1] == b"data: [DONE]"


@pytest.mark.parametrize(("fmt", "text", "terminal", "buckets"), STREAMS)
def test_a_whole_stream_in_one_chunk(fmt: str, text: bytes, terminal: bytes, buckets: dict[str, int]) -> None:
    passed, usage = watch(stream_tap(fmt), [text])
    assert usage.buckets == buckets
    assert (usage.source, usage.consistency) == ("reported", "ok")
    assert passed == text[: text.rindex(terminal)]


@pytest.mark.parametrize(("fmt", "text", "terminal", "buckets"), STREAMS)
def test_a_stream_cut_in_two_at_every_byte(
    fmt: str, text: bytes, terminal: bytes, buckets: dict[str, int]
) -> None:
    whole = watch(stream_tap(fmt), [text])[1]
    for place in range(1, len(text)):
        passed, usage = watch(stream_tap(fmt), [text[:place], text[place:]])
        assert usage == whole, place
        assert not has_all(fmt, passed), place


@pytest.mark.parametrize(("fmt", "text", "terminal", "buckets"), STREAMS)
def test_a_stream_byte_by_byte_and_line_by_line(
    fmt: str, text: bytes, terminal: bytes, buckets: dict[str, int]
) -> None:
    whole = watch(stream_tap(fmt), [text])[1]
    for chunks in ([bytes([byte]) for byte in text], text.splitlines(keepends=True)):
        passed, usage = watch(stream_tap(fmt), chunks)
        assert usage == whole
        assert not has_all(fmt, passed)


@given(st.data())
@pytest.mark.parametrize(("fmt", "text", "terminal", "buckets"), STREAMS)
def test_a_stream_cut_anywhere(
    fmt: str, text: bytes, terminal: bytes, buckets: dict[str, int], data: st.DataObject
) -> None:
    places = data.draw(st.sets(st.integers(1, len(text) - 1), max_size=12))
    passed, usage = watch(stream_tap(fmt), cut(text, places))
    assert usage == watch(stream_tap(fmt), [text])[1]
    assert not has_all(fmt, passed)


@pytest.mark.parametrize("text", [chat_stream(), responses_stream(), message_stream()])
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_stream_broken_off_at_every_byte_never_says_zero(fmt: str, text: bytes) -> None:
    for end in range(0, len(text), 3):
        tap = stream_tap(fmt)
        tap.feed(text[:end])
        usage = tap.finish(complete=False)
        assert (usage.source == "none") == (usage.tokens_total is None and not usage.buckets)
        assert usage.tokens_total is None or usage.tokens_total > 0


def test_a_chat_stream_that_never_says_is_estimated_by_request_and_text() -> None:
    usage = watch(stream_tap(), [chat_stream(None, words=7)])[1]
    assert usage.buckets == {"in_uncached": 11, "out_visible": 23}  # 7 × 13 bytes at 4 a token
    assert (usage.source, usage.model_served, usage.raw) == ("estimated", "gpt-5.6", None)


def test_an_estimate_without_a_readable_request_leaves_the_input_unknown() -> None:
    tap = open_tap(wire_format("openai_chat"), RequestFacts(), "openai", SSE, "")
    usage = watch(tap, [chat_stream(None)], complete=False)[1]
    assert (usage.source, usage.tokens_input, usage.tokens_output) == ("estimated", None, 10)  # 3 × 13 bytes


def test_a_message_stream_cut_after_its_start_knows_its_input() -> None:
    text = message_stream()
    usage = watch(stream_tap("anthropic_messages"), [text[: text.index(b"event: ping")]], complete=False)[1]
    assert (usage.source, usage.tokens_input) == ("reported_partial", 10 + 3000 + 5000)
    assert usage.tokens_output == 4  # "message_stop ♥" has 16 bytes; the 1 of message_start is a placeholder
    assert usage.raw["output_tokens"] == 1


def test_a_message_stream_cut_before_its_last_delta_is_partial_with_the_latest_total() -> None:
    text = message_stream()
    usage = watch(
        stream_tap("anthropic_messages"), [text[: text.rindex(b"event: message_delta")]], complete=False
    )[1]
    assert (usage.source, usage.tokens_output) == ("reported_partial", 200)


def test_a_message_stream_cut_after_its_last_delta_is_reported() -> None:
    text = message_stream()
    usage = watch(
        stream_tap("anthropic_messages"), [text[: text.index(b"event: message_stop")]], complete=False
    )[1]
    assert (usage.source, usage.buckets) == ("reported", MESSAGE_BUCKETS)


def test_running_totals_are_never_added() -> None:
    totals = [{"prompt_tokens": 8, "completion_tokens": n, "total_tokens": 8 + n} for n in (1, 2, 3)]
    chunks = [data({"choices": [{"delta": {}}], "usage": usage}) for usage in totals]
    assert watch(stream_tap(), [*chunks, b"data: [DONE]\n\n"])[1].tokens_total == 8 + 3
    assert watch(stream_tap(), chunks, complete=False)[1].source == "reported_partial"


def test_a_null_after_a_value_does_not_erase_it() -> None:
    chunks = [
        data({"choices": [], "usage": CHAT_USAGE}),
        data({"choices": [], "usage": {"prompt_tokens": None}}),
    ]
    assert watch(stream_tap(), chunks)[1].buckets == CHAT_BUCKETS


def test_groq_says_it_in_a_place_of_its_own() -> None:
    usage = {"prompt_tokens": 18, "completion_tokens": 556, "total_tokens": 574}
    assert watch(stream_tap(), [data({"choices": [{}], "x_groq": {"usage": usage}})])[1].tokens_total == 574


def test_words_in_the_content_are_no_terminal_event() -> None:
    for text in (
        "[DONE]",
        "data: [DONE]\n\n",
        'event: message_stop\ndata: {"type":"message_stop"}\n\n',
        '"usage":{',
    ):
        for fmt in ("openai_chat", "anthropic_messages", "openai_responses"):
            tap = stream_tap(fmt)
            chunk = event("content_block_delta", delta={"text": text}, choices=[{"delta": {"content": text}}])
            assert [tap.feed(chunk), tap.feed(chunk), tap.feed(chunk)] == [-1, -1, -1]


@pytest.mark.parametrize("kind", ["response.completed", "response.incomplete", "response.failed"])
def test_each_end_of_a_responses_stream_is_an_end(kind: str) -> None:
    chunk = event(kind, response={"model": "gpt-5.6", "usage": RESPONSES_USAGE})
    tap = stream_tap("openai_responses")
    assert tap.feed(chunk) == 0
    assert tap.finish(complete=True).buckets == RESPONSES_BUCKETS


def test_an_event_is_told_by_its_data_where_it_has_no_name() -> None:
    tap = stream_tap("anthropic_messages")
    assert (
        tap.feed(
            data({"type": "message_start", "message": {"usage": {"input_tokens": 1, "output_tokens": 1}}})
        )
        == -1
    )
    assert tap.feed(data({"type": "content_block_delta"}) + data({"type": "message_stop"})) == len(
        data({"type": "content_block_delta"})
    )


def test_an_event_of_several_data_lines_is_one_document() -> None:
    text = b'event: x\ndata: {"choices": [],\ndata:  "usage": {"prompt_tokens": 3,\ndata: "completion_tokens": 4}}\n\n'
    for place in range(1, len(text)):
        assert watch(stream_tap(), [text[:place], text[place:]])[1].tokens_total == 7, place


def test_after_the_terminal_event_everything_waits() -> None:
    tap = stream_tap()
    assert tap.feed(b"data: [DONE]\n\n") == 0
    assert [tap.feed(b"more"), tap.feed(b"data: x\n\n")] == [0, 0]


def test_a_done_without_its_line_end_is_held_all_the_same() -> None:
    tap = stream_tap()
    assert tap.feed(data({"choices": [{}]}) + b"data: [DONE]") == len(data({"choices": [{}]}))


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [b""],
        [b"\n\n"],
        [b": ping\n\n"],
        [data({"error": {"message": "overloaded"}})],
        [b"data: hello\n\n"],
        [b"\xff" * 99],
    ],
)
@pytest.mark.parametrize("fmt", FORMATS)
def test_a_stream_that_is_no_answer_has_no_usage(fmt: str, chunks: list[bytes]) -> None:
    usage = watch(stream_tap(fmt), chunks)[1]
    assert (usage.source, usage.tokens_total) == ("none", None)


def test_comments_before_the_first_event_do_not_hide_its_model() -> None:
    chunks = [
        b": OPENROUTER PROCESSING\n\n",
        b": OPENROUTER PROCESSING\n\n",
        data({"model": "m", "choices": [{}]}),
    ]
    assert watch(stream_tap(), chunks)[1].model_served == "m"


def test_a_byte_order_mark_is_no_part_of_the_first_event() -> None:
    assert watch(stream_tap(), [b"\xef\xbb\xbf" + chat_stream()])[1].buckets == CHAT_BUCKETS


@pytest.mark.parametrize("size", [1_000, 65_536])
def test_a_last_event_of_megabytes_is_read_once_whatever_the_chunks(size: int) -> None:
    text = responses_stream(output="y" * 3_000_000)
    passed, usage = watch(
        stream_tap("openai_responses"), [text[at : at + size] for at in range(0, len(text), size)]
    )
    assert usage.buckets == RESPONSES_BUCKETS
    assert not has_all("openai_responses", passed)


def test_an_event_beyond_the_bound_is_not_kept_and_the_next_one_is_read() -> None:
    tap = stream_tap(body_max=1000)
    chunks = [b'data: {"choices": [{"delta": "', *[b"y" * 100] * 30, b'"}]}\n\n', chat_stream()]
    assert watch(tap, chunks)[1].buckets == CHAT_BUCKETS


# --- whole bodies ---


def json_tap(fmt: str = "openai_chat", encoding: str = "", content_type: str = JSON, **options: Any) -> Tap:
    return open_tap(wire_format(fmt), FACTS, "openai", content_type, encoding, **options)


@pytest.mark.parametrize(
    "content_type", [JSON, "Application/JSON; charset=utf-8", "application/vnd.x+json", ""]
)
def test_a_json_body_cut_in_two_at_every_byte(content_type: str) -> None:
    text = body(model="gpt-5.6 é", usage=CHAT_USAGE)
    for place in range(1, len(text)):
        passed, usage = watch(json_tap(content_type=content_type), [text[:place], text[place:]])
        assert (usage.buckets, usage.model) == (CHAT_BUCKETS, "gpt-5.6 é")
        assert passed == text


def test_a_body_beyond_the_bound_is_searched_at_its_end() -> None:
    text = body(output='"usage": {"prompt_tokens": 1}' + "y" * TAIL_BYTES * 2, usage=CHAT_USAGE)
    usage = watch(
        json_tap(body_max=TAIL_BYTES), [text[at : at + 65_536] for at in range(0, len(text), 65_536)]
    )[1]
    assert (usage.buckets, usage.consistency) == (CHAT_BUCKETS, "repaired:last_usage_object")
    assert (usage.source, usage.model) == ("reported", "asked-for")


def test_a_body_beyond_the_bound_without_usage_has_none() -> None:
    text = body(output="y" * TAIL_BYTES * 2)
    assert watch(json_tap(body_max=100), [text, b'"usage": {"prompt', b'_tokens": 1'])[1].source == "none"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/octet-stream", "text/html; charset=utf-8"]
)
def test_other_bodies_are_not_read_and_say_so(content_type: str) -> None:
    passed, usage = watch(json_tap(content_type=content_type), [body(usage=CHAT_USAGE)])
    assert (usage.source, usage.consistency) == ("none", "ok")
    assert usage.metadata == {"usage_note": f"content-type {content_type.partition(';')[0]} carries no usage"}
    assert passed == body(usage=CHAT_USAGE)


# --- compressed answers ---


def raw_deflate(text: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(text) + packer.flush()


PACKERS = [
    pytest.param("gzip", gzip.compress, id="gzip"),
    pytest.param(
        "GZIP", lambda text: gzip.compress(text[:9]) + gzip.compress(text[9:]), id="gzip in two members"
    ),
    pytest.param("deflate", zlib.compress, id="deflate"),
    pytest.param("deflate", raw_deflate, id="deflate without its header"),
]


@pytest.mark.parametrize(("encoding", "pack"), PACKERS)
def test_a_compressed_body_cut_at_every_byte(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    text = pack(body(model="gpt-5.6", usage=CHAT_USAGE))
    for place in range(1, len(text)):
        passed, usage = watch(json_tap(encoding=encoding), [text[:place], text[place:]])
        assert usage.buckets == CHAT_BUCKETS and passed == text


@pytest.mark.parametrize(("encoding", "pack"), PACKERS)
def test_a_compressed_stream_waits_from_the_chunk_that_ends_it(
    encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    text = pack(chat_stream())
    whole = watch(stream_tap(), [chat_stream()])[1]
    for place in range(1, len(text)):
        passed, usage = watch(stream_tap(encoding=encoding), [text[:place], text[place:]])
        assert usage == whole
        assert len(passed) < len(text)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip"])
def test_an_encoding_that_is_not_read_passes_and_says_so(encoding: str) -> None:
    for tap in (json_tap(encoding=encoding), stream_tap(encoding=encoding)):
        passed, usage = watch(tap, [b"anything"])
        assert (usage.source, usage.metadata) == (
            "none",
            {"usage_note": f"content-encoding {encoding} is not read"},
        )
        assert passed == b"anything"


def test_a_bomb_is_not_inflated_beyond_the_bound() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join([packer.compress(b"\0" * 2**20) for _ in range(200)]) + packer.flush()
    passed, usage = watch(json_tap(encoding="gzip"), [bomb])
    assert (usage.source, passed) == ("none", bomb)
    assert usage.metadata == {"usage_note": "the compressed body is damaged or too large"}


def test_a_damaged_compressed_body_has_no_usage() -> None:
    text = bytearray(gzip.compress(body(usage=CHAT_USAGE)))
    text[12] ^= 0xFF
    assert watch(json_tap(encoding="gzip"), [bytes(text)])[1].source == "none"


# --- anything at all ---

LINES = st.sampled_from([
    b"\n", b"\r\n", b"\r", b"data: ", b"data:", b"event: message_stop\n", b"event: content_block_delta\n", b": c\n", b"[DONE]",
    b'{"type": "message_stop"}\n', b'{"usage": {"prompt_tokens": 1, "completion_tokens": 2}, "choices": []}\n', b'"usage":null',
    b'{"type": "response.completed", "response": {"usage": {"input_tokens": 1, "output_tokens": 2}}}\n', b"{", b"\xef\xbb\xbf",
    b'{"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 5, "output_tokens": 1}}}\n', b"\xc3", b"\n\n",
    b'data: {"choices": [{}], "model": "n", "usage":null}\n\n', b"id: 7\n", b'{"execution_id": "e", "usage": {"tokens_input": 3}}',
])  # fmt: skip


@given(st.lists(LINES, max_size=20).map(b"".join), st.sampled_from(FORMATS), st.booleans(), st.data())
def test_any_split_of_any_stream_gives_the_same_usage(
    text: bytes, fmt: str, complete: bool, data: st.DataObject
) -> None:
    places = data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=10))
    passed, usage = watch(stream_tap(fmt), cut(text, places), complete=complete)
    whole_passed, whole = watch(stream_tap(fmt), [text], complete=complete)
    assert usage == whole
    assert text.startswith(passed) and text.startswith(whole_passed)


@given(st.lists(st.binary(max_size=40)), st.sampled_from(FORMATS), st.sampled_from(["", "gzip", "deflate", "br"]),
       st.sampled_from([SSE, JSON, "text/plain", "é"]), st.booleans())  # fmt: skip
def test_any_bytes_are_survived(
    chunks: list[bytes], fmt: str, encoding: str, content_type: str, complete: bool
) -> None:
    tap = open_tap(wire_format(fmt), FACTS, "openai", content_type, encoding, body_max=64)
    usage = watch(tap, chunks, complete=complete)[1]
    assert usage.source in ("none", "estimated")


@given(st.binary(), st.sampled_from(FORMATS))
def test_any_bytes_after_a_good_stream_change_nothing(noise: bytes, fmt: str) -> None:
    whole = watch(stream_tap("openai_chat"), [chat_stream()])[1]
    assert watch(stream_tap("openai_chat"), [chat_stream() + noise])[1] == whole
    assert json.dumps(whole.raw)
