"""Framings other than server-sent events: the same frames however the bytes are cut, and what is damaged says so."""

import json
import math
import struct
import tracemalloc
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.extract import wire_format
from metering.tap import usage_of_messages
from metering.tap.array import ArrayFraming
from metering.tap.aws import AwsFraming
from metering.tap.frames import Framing
from metering.tap.lines import LineFraming
from tests.metering.payloads import CHAT_BUCKETS, CHAT_USAGE, body, chat_stream
from tests.metering.streams import (
    AWS,
    JSON,
    NDJSON,
    SSE,
    array,
    aws_message,
    cut,
    lines,
    tap_for,
    watch,
)

TEXTS = [
    "plain",
    'quotes " and \\ and \\" and \\\\',
    "braces } ] { [ ,",
    "ä♥\U0001f600",
    "\n\r\n",
    "",
    "[DONE]",
]
CHUNKS: list[Any] = [
    *({"model": "gpt-5.6", "choices": [{"delta": {"content": text}}], "usage": None} for text in TEXTS),
    {"model": "gpt-5.6", "service_tier": "default", "choices": [], "usage": CHAT_USAGE},
]
ENDED = {"type": "execution.completed", "execution_id": "e-1", "model": "demo-small", "usage": CHAT_USAGE}


def as_aws(*documents: Any) -> bytes:
    return b"".join(aws_message("chunk", document) for document in documents)


FRAMINGS = [
    pytest.param(LineFraming, lines, NDJSON, id="lines"),
    pytest.param(ArrayFraming, array, JSON, id="array"),
    pytest.param(AwsFraming, as_aws, AWS, id="AWS event stream"),
]
Write = Callable[..., bytes]


def frames_of(framing: Framing, chunks: list[bytes]) -> list[Any]:
    return [json.loads(frame.data) for chunk in chunks for frame in framing.feed(chunk)] + [
        json.loads(frame.data) for frame in framing.rest()
    ]


@pytest.mark.parametrize(("framing", "write", "content_type"), FRAMINGS)
def test_each_document_is_a_frame(framing: type[Framing], write: Write, content_type: str) -> None:
    reader = framing()
    assert frames_of(reader, [write(*CHUNKS)]) == CHUNKS
    assert reader.damage == ""


@pytest.mark.parametrize(("framing", "write", "content_type"), FRAMINGS)
def test_a_stream_cut_in_two_at_every_byte_has_the_same_frames(
    framing: type[Framing], write: Write, content_type: str
) -> None:
    text = write(*CHUNKS)
    for place in range(1, len(text)):
        reader = framing()
        assert frames_of(reader, [text[:place], text[place:]]) == CHUNKS, place
        assert reader.damage == ""


@pytest.mark.parametrize(("framing", "write", "content_type"), FRAMINGS)
def test_a_stream_byte_by_byte_has_the_same_frames(
    framing: type[Framing], write: Write, content_type: str
) -> None:
    assert frames_of(framing(), [bytes([byte]) for byte in write(*CHUNKS)]) == CHUNKS


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(max_size=4), JSON_VALUES, max_size=3), max_size=5), st.data())
@pytest.mark.parametrize(("framing", "write", "content_type"), FRAMINGS)
def test_any_documents_cut_anywhere_have_the_same_frames(
    framing: type[Framing], write: Write, content_type: str, documents: list[Any], data: st.DataObject
) -> None:
    text = write(*documents)
    places = data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=12))
    assert frames_of(framing(), cut(text, places)) == documents


@pytest.mark.parametrize(("framing", "write", "content_type"), FRAMINGS)
def test_a_stream_says_the_same_usage_in_every_framing(
    framing: type[Framing], write: Write, content_type: str
) -> None:
    text = write(*CHUNKS)
    expected = watch(tap_for("openai_chat", SSE), [chat_stream()])[1]
    for place in range(1, len(text), 3):
        usage = watch(tap_for("openai_chat", content_type), [text[:place], text[place:]])[1]
        assert (usage.buckets, usage.source, usage.consistency) == (CHAT_BUCKETS, "reported", "ok")
        assert (usage.model, usage.raw) == (expected.model, expected.raw)


@pytest.mark.parametrize(("framing", "write", "content_type"), FRAMINGS)
def test_a_stream_without_usage_is_estimated_by_its_text(
    framing: type[Framing], write: Write, content_type: str
) -> None:
    usage = watch(tap_for("openai_chat", content_type), [write(*CHUNKS[:-1])])[1]
    tokens = math.ceil(len("".join(TEXTS).encode()) / 4)
    assert (usage.source, usage.buckets) == ("estimated", {"in_uncached": 11, "out_visible": tokens})


# --- what waits for the commit ---


@pytest.mark.parametrize(("framing", "write", "content_type"), FRAMINGS)
def test_the_terminal_frame_waits_whole_and_after_it_everything(
    framing: type[Framing], write: Write, content_type: str
) -> None:
    text = write({"execution_id": "e-1", "delta": "execution.completed"}, ENDED)
    passed, usage = watch(tap_for("execute", content_type), [text])
    assert usage.buckets == CHAT_BUCKETS
    assert b'"usage"' not in passed and passed.count(b"e-1") == 1
    tap = tap_for("execute", content_type)
    tap.feed(text)
    assert [tap.feed(b"x"), tap.feed(text)] == [0, 0]


def client_has_line(passed: bytes) -> bool:
    return any(b"execution.completed" in line for line in passed.split(b"\n")[:-1])


def test_the_last_line_waits_wherever_it_is_cut() -> None:
    text = lines({"execution_id": "e-1"}, ENDED)
    for place in range(1, len(text)):
        passed, usage = watch(tap_for("execute", NDJSON), [text[:place], text[place:]])
        assert usage.buckets == CHAT_BUCKETS
        assert not client_has_line(passed), place


def test_a_last_line_that_nothing_ends_waits_all_the_same() -> None:
    head, last = lines({"execution_id": "e-1"}), lines(ENDED).rstrip()
    assert tap_for("execute", NDJSON).feed(head + last) == len(head)
    tap = tap_for("execute", NDJSON)
    assert [tap.feed(head), tap.feed(last[:50]), tap.feed(last[50:])] == [-1, -1, 0]


def test_a_last_message_of_an_event_stream_waits_wherever_it_is_cut() -> None:
    text = as_aws({"execution_id": "e-1"}, ENDED)
    for place in range(1, len(text)):
        passed, usage = watch(tap_for("execute", AWS), [text[:place], text[place:]])
        assert usage.buckets == CHAT_BUCKETS
        assert len(passed) < len(text), place


def test_the_bracket_that_closes_an_array_waits() -> None:
    text = array(*CHUNKS)
    for place in range(1, len(text)):
        passed, usage = watch(tap_for("openai_chat", JSON), [text[:place], text[place:]])
        assert usage.buckets == CHAT_BUCKETS
        assert passed == text[: text.rindex(b"]")]


def test_after_the_end_of_an_array_everything_waits_and_nothing_is_read() -> None:
    text, framing = array(*CHUNKS), ArrayFraming()
    tap = tap_for("openai_chat", JSON)
    assert [tap.feed(text) >= 0, tap.feed(b"\n"), tap.feed(text)] == [True, 0, 0]
    assert (len(framing.feed(text)), framing.feed(text)) == (len(CHUNKS), [])


def test_a_line_that_was_held_whole_keeps_its_end_waiting() -> None:
    tap = tap_for("execute", NDJSON)
    assert [tap.feed(lines(ENDED).rstrip()), tap.feed(b"\n"), tap.feed(b"\n")] == [0, 0, 0]


def test_an_exception_ends_an_event_stream() -> None:
    head = as_aws(*CHUNKS[:2])
    text = head + aws_message("throttlingException", {"message": "slow down"}, kind="exception")
    passed, usage = watch(tap_for("openai_chat", AWS), [text])
    assert passed == head
    assert (usage.source, usage.consistency) == ("estimated", "ok")
    assert usage.metadata == {"stream_error": "throttlingException"}


# --- damage ---


def test_a_line_that_is_no_json_costs_itself_alone() -> None:
    text = b"\n\r\n{oops\n" + lines(*CHUNKS)
    assert watch(tap_for("openai_chat", NDJSON), [text])[1].buckets == CHAT_BUCKETS


def test_a_byte_order_mark_is_no_part_of_the_first_line() -> None:
    assert frames_of(LineFraming(), [b"\xef\xbb", b"\xbf" + lines({"a": 1}, {"b": 2})]) == [
        {"a": 1},
        {"b": 2},
    ]


def test_a_message_with_one_wrong_bit_is_left_out_and_says_so() -> None:
    good, usage_message = as_aws(*CHUNKS[:-1]), as_aws(CHUNKS[-1])
    for place in range(12, len(usage_message)):  # everything after the prelude
        damaged = bytearray(usage_message)
        damaged[place] ^= 0x10
        usage = watch(tap_for("openai_chat", AWS), [good + bytes(damaged)])[1]
        assert (usage.source, usage.consistency, usage.rules) == (
            "estimated",
            "inconsistent",
            ("damaged_frame",),
        )


def test_what_comes_after_a_damaged_message_is_read() -> None:
    damaged = bytearray(as_aws(CHUNKS[0]))
    damaged[-1] ^= 1
    usage = watch(tap_for("openai_chat", AWS), [bytes(damaged) + as_aws(*CHUNKS)])[1]
    assert (usage.buckets, usage.rules) == (CHAT_BUCKETS, ("damaged_frame",))
    assert usage.consistency == "inconsistent"


@pytest.mark.parametrize("place", range(12))
def test_after_a_damaged_prelude_nothing_can_be_found(place: int) -> None:
    text = bytearray(as_aws(*CHUNKS))
    text[place] ^= 1
    usage = watch(tap_for("openai_chat", AWS), [bytes(text)])[1]
    assert (usage.source, usage.consistency, usage.rules) == ("none", "inconsistent", ("damaged_frame",))


def test_a_stream_that_ends_inside_a_message_says_so() -> None:
    text = as_aws(*CHUNKS)
    usage = watch(tap_for("openai_chat", AWS), [text[:-1]], complete=False)[1]
    assert (usage.source, usage.rules) == ("estimated", ("damaged_frame",))


@pytest.mark.parametrize(
    "headers",
    [
        b"\x05",  # a name that is longer than the block
        b"\x01a",  # no type
        b"\x01a\x63",  # a type that does not exist
        b"\x01a\x07\x00",  # half a length
        b"\x01a\x07\x00\x09xyz",  # a value that is longer than the block
        b"\x01a\x04\x00",  # half a number
    ],
)
def test_headers_that_cannot_be_read_are_damage(headers: bytes) -> None:
    prelude = struct.pack(">II", len(headers) + 16, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers
    framing = AwsFraming()
    assert (
        framing.feed(message + struct.pack(">I", zlib.crc32(message)) + as_aws({"a": 1}))[0].data
        == b'{"a": 1}'
    )
    assert framing.damage == "damaged_frame"


def test_headers_of_every_type_are_passed_over() -> None:
    values = {
        0: b"",
        1: b"",
        2: b"x",
        3: b"xx",
        4: b"x" * 4,
        5: b"x" * 8,
        6: b"\0\2xx",
        8: b"x" * 8,
        9: b"x" * 16,
    }
    headers = b"".join(b"\1a" + bytes([kind]) + value for kind, value in values.items())
    headers += b"\x0b:event-type\x07\x00\x04done"
    prelude = struct.pack(">II", len(headers) + 16 + 2, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + b"{}"
    framing = AwsFraming()
    (frame,) = framing.feed(message + struct.pack(">I", zlib.crc32(message)))
    assert (frame.event, frame.data, frame.failed, framing.damage) == (b"done", b"{}", False, "")


@pytest.mark.parametrize(("framing", "write", "content_type"), FRAMINGS)
def test_a_frame_beyond_the_bound_is_not_kept_and_the_next_one_is_read(
    framing: type[Framing], write: Write, content_type: str
) -> None:
    text = write({"choices": [], "text": "y" * 50_000}, *CHUNKS)
    tap = tap_for("openai_chat", content_type, body_max=2_000)
    usage = watch(tap, [text[at : at + 100] for at in range(0, len(text), 100)])[1]
    assert usage.buckets == CHAT_BUCKETS
    assert (usage.consistency, usage.rules) == ("inconsistent", ("frame_too_long",))


@pytest.mark.parametrize(
    ("content_type", "opening", "frame", "endless"),
    [
        pytest.param(NDJSON, b"", lines(CHUNKS[0]), b'{"text": "', id="lines"),
        pytest.param(JSON, b"[", lines(CHUNKS[0]).rstrip() + b",", b'{"text": "', id="array"),
        pytest.param(AWS, b"", as_aws(CHUNKS[0]), as_aws({"text": "y" * 10_000_000})[:200], id="AWS event stream"),
    ],
)  # fmt: skip
def test_what_is_kept_of_a_stream_does_not_grow_with_it(
    content_type: str, opening: bytes, frame: bytes, endless: bytes
) -> None:
    tap = tap_for("openai_chat", content_type, body_max=100_000)
    tap.feed(opening + frame)
    many, piece = frame * 100, b"y" * 50_000
    tracemalloc.start()
    for _ in range(100):
        tap.feed(many)
    tap.feed(endless)
    for _ in range(190):
        tap.feed(piece)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000  # of 10 MB
    usage = tap.finish(complete=False)
    frames = 1 + 100 * 100 + (content_type == NDJSON)  # a line that is not kept ends with the stream
    assert usage.tokens_output == -(-len("plain") * frames // 4)
    assert usage.rules == ("frame_too_long",)


def test_a_document_of_megabytes_in_small_chunks_is_read_in_linear_time() -> None:
    text = array({"choices": [{"text": '\\" {' * 1_000_000}]}, *CHUNKS)
    chunks = [text[at : at + 1_000] for at in range(0, len(text), 1_000)]
    assert watch(tap_for("openai_chat", JSON), chunks)[1].buckets == CHAT_BUCKETS


@given(st.lists(st.binary(max_size=40)), st.sampled_from([NDJSON, AWS, JSON]), st.booleans())
def test_any_bytes_are_survived(chunks: list[bytes], content_type: str, complete: bool) -> None:
    tap = tap_for("openai_chat", content_type, body_max=64)
    assert watch(tap, chunks, complete=complete)[1].source in ("none", "estimated")


@given(st.binary(max_size=200), st.sampled_from([NDJSON, AWS, JSON]), st.data())
def test_any_split_of_any_bytes_gives_the_same_usage(
    noise: bytes, content_type: str, data: st.DataObject
) -> None:
    write = {NDJSON: lines, AWS: as_aws, JSON: array}[content_type]
    text = write(*CHUNKS[:2])
    place = data.draw(st.integers(0, len(text)))
    text = text[:place] + noise + text[place:]
    places = data.draw(st.sets(st.integers(1, len(text)), max_size=9))
    whole = watch(tap_for("openai_chat", content_type), [text])[1]
    assert watch(tap_for("openai_chat", content_type), cut(text, places))[1] == whole


# --- where the content type says nothing ---


@pytest.mark.parametrize("content_type", [JSON, "", "application/problem+json"])
def test_an_answer_that_is_called_json_may_be_events(content_type: str) -> None:
    text = b": hello\n\n" + chat_stream()
    for place in range(1, len(text)):
        passed, usage = watch(tap_for("openai_chat", content_type), [text[:place], text[place:]])
        assert usage.buckets == CHAT_BUCKETS
        assert b"[DONE]" not in passed


def test_a_body_is_a_body_whatever_stands_before_it() -> None:
    text = b"\xef\xbb\xbf \r\n" + body(model="m", usage=CHAT_USAGE)
    for place in range(1, len(text)):
        usage = watch(tap_for("openai_chat", JSON), [text[:place], text[place:]])[1]
        assert usage.buckets == CHAT_BUCKETS


# --- WebSocket messages ---


def test_messages_are_read_in_their_order_as_text_or_bytes() -> None:
    texts = [json.dumps(chunk) for chunk in CHUNKS]
    usage = usage_of_messages(wire_format("openai_chat"), texts, provider="openai")
    assert (usage.buckets, usage.model, usage.provider) == (CHAT_BUCKETS, "gpt-5.6", "openai")
    assert (
        usage_of_messages(wire_format("openai_chat"), [text.encode() for text in texts]).buckets
        == CHAT_BUCKETS
    )


def test_no_messages_are_no_usage() -> None:
    assert usage_of_messages(wire_format("openai_chat"), []).source == "none"


@given(st.lists(st.binary() | st.text(), max_size=5))
def test_any_messages_are_survived(messages: list[str | bytes]) -> None:
    assert usage_of_messages(wire_format("openai_chat"), messages).source in ("none", "estimated")
