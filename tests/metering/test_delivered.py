"""What an answer is estimated by where nobody said what it used: the text in it, at four bytes of UTF-8 a token, rounded up."""

import base64
import json
import math
import random
from typing import Any

import pytest

from metering.estimate import RequestFacts
from metering.extract import wire_format
from metering.extract.delivered import is_error
from metering.tap import open_tap
from pricing.usage import Usage
from tests.metering.payloads import body, data, event

FACTS = RequestFacts(model="m-1", tokens_input_estimate=11, readable=True)
SSE = "text/event-stream"
TEXT = 'Grüße ♥ "quoted" \\ \n 🙂'
TOKENS = math.ceil(len(TEXT.encode()) / 4)
MEDIA = base64.b64encode(bytes(3000)).decode()


def tap(fmt: str, kind: str = SSE, facts: RequestFacts = FACTS, **options: Any) -> Any:
    return open_tap(wire_format(fmt), facts, "acme", kind, "", **options)


def read(fmt: str, document: Any, **options: Any) -> Usage:
    watching = tap(fmt, "application/json", **options)
    watching.feed(json.dumps(document).encode())
    usage: Usage = watching.finish(True)
    return usage


def stream(fmt: str, *chunks: bytes, complete: bool = True) -> Usage:
    watching = tap(fmt)
    for chunk in chunks:
        if watching.feed(chunk) >= 0:
            break
    usage: Usage = watching.finish(complete)
    return usage


def chat(**message: Any) -> Any:
    return {"model": "m-1", "choices": [{"index": 0, "message": {"role": "assistant", **message}}]}


CALL = {"id": "c", "type": "function", "function": {"name": "look_up", "arguments": TEXT}}
WHOLE: list[tuple[str, Any]] = [
    ("openai_chat", chat(content=TEXT)),
    ("openai_chat", chat(content=[{"type": "text", "text": TEXT}])),
    ("openai_chat", chat(content=None, refusal=TEXT)),
    ("openai_chat", chat(content=None, tool_calls=[CALL])),
    ("openai_chat", chat(content="", reasoning=TEXT, reasoning_content=TEXT)),
    ("openai_chat", chat(content=TEXT, audio={"data": MEDIA, "transcript": TEXT}, annotations=[{"text": TEXT}])),
    ("openai_chat", {"model": "m-1", "choices": [{"text": TEXT, "logprobs": {"tokens": [TEXT]}}]}),
    ("openai_responses", {"model": "m-1", "output": [{"type": "message", "content": [{"text": TEXT}]}], "instructions": TEXT}),
    ("openai_responses", {"model": "m-1", "output": [{"type": "function_call", "arguments": TEXT}]}),
    ("anthropic_messages", {"model": "m-1", "content": [{"type": "text", "text": TEXT}]}),
    ("anthropic_messages", {"model": "m-1", "content": [{"type": "thinking", "thinking": TEXT, "signature": MEDIA}]}),
    ("gemini_generate", {"modelVersion": "m-1", "candidates": [{"content": {"parts": [{"text": TEXT}]}}]}),
    ("gemini_generate", {"candidates": [{"content": {"parts": [{"text": TEXT}, {"inlineData": {"data": MEDIA}}]}}]}),
    ("ollama", {"model": "m-1", "message": {"role": "assistant", "content": TEXT}}),
    ("ollama", {"model": "m-1", "response": TEXT}),
    ("cohere_chat", {"message": {"content": [{"type": "text", "text": TEXT}]}}),
    ("bedrock_converse", {"output": {"message": {"content": [{"text": TEXT}]}}}),
    ("execute", {"model": "m-1", "output": TEXT}),
]  # fmt: skip


@pytest.mark.parametrize(("fmt", "document"), WHOLE)
def test_a_whole_answer_without_usage_is_estimated_by_its_text_and_the_request(
    fmt: str, document: Any
) -> None:
    usage = read(fmt, document)
    assert (usage.source, usage.buckets) == ("estimated", {"in_uncached": 11, "out_visible": TOKENS})
    assert (usage.model, usage.unknown_sides, usage.raw) == ("m-1", (), None)


def test_the_arguments_of_a_tool_that_are_a_document_count_as_its_text() -> None:
    used = {"model": "m-1", "content": [{"type": "tool_use", "name": "look_up", "input": {"q": "abc"}}]}
    assert read("anthropic_messages", used).buckets["out_visible"] == 3  # {"q":"abc"} has 11 bytes


UNTOLD: list[tuple[str, Any]] = [
    ("openai_chat", chat(content=None)),
    ("openai_chat", chat(content="")),
    ("openai_chat", chat(content=None, audio={"data": MEDIA})),
    ("openai_chat", {"model": "m-1", "data": [{"b64_json": MEDIA}], "content": 7}),
    ("openai_responses", {"model": "m-1", "output": [{"type": "image_generation_call", "result": MEDIA}]}),
    ("gemini_generate", {"candidates": [{"content": {"parts": [{"inlineData": {"data": MEDIA}}]}}]}),
    ("gemini_generate", {"candidates": [{"content": {"parts": [{"text": MEDIA}]}}]}),
    ("anthropic_messages", {"model": "m-1", "content": []}),
    ("execute", {"model": "m-1", "result": {"text": TEXT}}),
    ("openai_chat", [TEXT]),
    ("openai_chat", None),
]


@pytest.mark.parametrize(("fmt", "document"), UNTOLD)
def test_media_and_unknown_shapes_are_no_text_and_stay_unknown(fmt: str, document: Any) -> None:
    usage = read(fmt, document)
    assert (usage.source, usage.buckets, usage.tokens_total) == ("none", {}, None)


def test_without_a_model_nobody_knows_that_one_wrote_it() -> None:
    assert read("execute", {"output": TEXT}, facts=RequestFacts(readable=True)).source == "none"


def test_text_in_an_answer_that_is_no_success_was_not_written_by_a_model() -> None:
    assert read("openai_chat", chat(content=TEXT), good=False).source == "none"


def test_half_a_body_says_nothing() -> None:
    watching = tap("openai_chat", "application/json")
    watching.feed(json.dumps(chat(content=TEXT)).encode())
    assert watching.finish(False).source == "none"


def test_an_explicit_zero_is_a_zero() -> None:
    zero = {**chat(content=TEXT), "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}}
    usage = read("openai_chat", zero)
    assert (usage.source, usage.tokens_input, usage.tokens_output) == ("reported", 0, 0)


def test_a_request_that_could_not_be_read_leaves_the_input_unknown() -> None:
    usage = read("openai_chat", chat(content=TEXT), facts=RequestFacts())
    assert (usage.source, usage.tokens_input, usage.tokens_output) == ("estimated", None, TOKENS)


def pieces(text: str, size: int = 3) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def delta(**said: Any) -> bytes:
    return data({"model": "m-1", "choices": [{"index": 0, "delta": said}], "usage": None})


STREAMS: list[tuple[str, list[bytes]]] = [
    ("openai_chat", [delta(role="assistant", content=""), *(delta(content=piece) for piece in pieces(TEXT))]),
    ("openai_chat", [delta(reasoning=piece, reasoning_content=piece) for piece in pieces(TEXT)]),
    ("openai_chat", [delta(tool_calls=[{"index": 0, "function": {"arguments": piece}}]) for piece in pieces(TEXT)]),
    ("openai_responses", [
        event("response.created", response={"model": "m-1"}),
        *(event("response.output_text.delta", delta=piece) for piece in pieces(TEXT)),
        event("response.output_text.done", text=TEXT),
        event("response.content_part.done", part={"type": "output_text", "text": TEXT}),
    ]),
    ("anthropic_messages", [
        event("message_start", message={"model": "m-1", "content": []}),
        *(event("content_block_delta", delta={"type": "text_delta", "text": piece}) for piece in pieces(TEXT)),
    ]),
    ("anthropic_messages", [
        event("message_start", message={"model": "m-1", "content": []}),
        *(event("content_block_delta", delta={"type": "input_json_delta", "partial_json": piece}) for piece in pieces(TEXT)),
    ]),
    ("gemini_generate", [data({"modelVersion": "m-1", "candidates": [{"content": {"parts": [{"text": piece}]}}]}) for piece in pieces(TEXT)]),
    ("execute", [event("execution.started", execution_id="e", model="m-1"), *(event("execution.delta", delta=piece) for piece in pieces(TEXT))]),
]  # fmt: skip


@pytest.mark.parametrize(("fmt", "chunks"), STREAMS)
def test_a_stream_is_estimated_as_the_same_text_in_one_piece(fmt: str, chunks: list[bytes]) -> None:
    usage = stream(fmt, *chunks, complete=False)
    assert (usage.source, usage.buckets) == ("estimated", {"in_uncached": 11, "out_visible": TOKENS})


def test_what_a_stream_said_is_taken_and_only_the_rest_is_estimated() -> None:
    usage = {"input_tokens": 25, "cache_read_input_tokens": 100, "output_tokens": 1}
    start = event("message_start", message={"model": "m-1", "content": [], "usage": usage})
    words = [event("content_block_delta", delta={"type": "text_delta", "text": "abcd" * 5})] * 3
    cut = stream("anthropic_messages", start, *words, complete=False)
    assert (cut.source, cut.tokens_input, cut.tokens_output) == (
        "reported_partial",
        125,
        15,
    )  # 3 × 20 bytes / 4


def test_audio_in_a_stream_is_no_text() -> None:
    spoken = [event("response.audio.delta", delta=MEDIA)] * 5
    usage = stream("openai_responses", event("response.created", response={"model": "m-1"}), *spoken)
    assert (usage.source, usage.tokens_output) == ("estimated", 6), (
        "one for each event, of which nobody knows more"
    )


def test_a_long_stream_is_estimated_from_its_beginning_however_it_is_cut() -> None:
    words = [delta(content="abcdefgh"), delta(content="ijkl")] * 500
    text = b"".join(words)
    assert len(text) > 4 * 16 * 1024
    expected = stream("openai_chat", *words, complete=False)
    assert expected.tokens_output == pytest.approx(1500, rel=0.02)  # 500 × (8 + 4) bytes / 4
    dice = random.Random(5)
    for _ in range(30):
        cuts = sorted(dice.sample(range(len(text)), 40))
        chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
        assert stream("openai_chat", *chunks, complete=False).buckets == expected.buckets
    assert stream("openai_chat", text, complete=False).buckets == expected.buckets


ERRORS = [
    data({"error": {"message": "no", "code": 500}}),
    data({"error": "no"}),
    event("error", error={"type": "overloaded_error"}),
    event("response.failed", response={"model": "m-1", "status": "failed"}),
    b"event: error\ndata: gone\n\n",
]


@pytest.mark.parametrize("last", ERRORS)
@pytest.mark.parametrize("end", [b"", b"data: [DONE]\n\n", b": bye\n\n"])
def test_a_stream_that_ends_with_an_error_says_so_wherever_it_is_cut(last: bytes, end: bytes) -> None:
    text = delta(content="ab") * 2 + last + end
    for cut in range(len(text)):
        watching = tap("openai_chat")
        for chunk in (text[:cut], text[cut:]):
            watching.feed(chunk)
        watching.finish(True)
        assert watching.failed, cut


@pytest.mark.parametrize(
    "last",
    [
        delta(content='"error"'),
        data({"choices": [], "error": None}),
        data({"choices": [{"delta": {"content": '{"error": 1}'}}]}),
        event("response.completed", response={"model": "m-1", "error": None}),
        data({"choices": [{"delta": {}, "error": "inside"}]}),
    ],
)
def test_text_about_errors_is_none(last: bytes) -> None:
    watching = tap("openai_chat")
    watching.feed(delta(content="ab") + last)
    watching.finish(True)
    assert not watching.failed


@pytest.mark.parametrize("document", [b"", b"{", b"[]", b'{"error": 0}', b'{"type": "message"}'])
def test_what_is_no_error_is_none(document: bytes) -> None:
    assert not is_error(b"", document)


def test_a_good_status_with_an_error_in_its_body_is_a_failure() -> None:
    watching = tap("openai_chat", "application/json")
    watching.feed(body(error={"message": "no", "code": 502}, model="m-1"))
    assert watching.finish(True).source == "none" and watching.failed
