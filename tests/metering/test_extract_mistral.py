"""Mistral's pages and conversations, and Cloudflare's wrapping."""

from typing import Any

import pytest

from metering.estimate import RequestFacts
from metering.extract import wire_format
from metering.tap import open_tap
from pricing.usage import Usage
from tests.metering.payloads import CHAT_BUCKETS, CHAT_USAGE, body, data, event

FACTS = RequestFacts(model="asked-for", readable=True, tokens_input_estimate=11)


def read(fmt: str, provider: str = "mistral", **fields: Any) -> Usage:
    return wire_format(fmt).read_body(body(**fields), FACTS, provider)


def watch(fmt: str, *events: bytes, provider: str = "mistral", complete: bool = True) -> Usage:
    tap = open_tap(wire_format(fmt), FACTS, provider, "text/event-stream", "")
    for text in events:
        tap.feed(text)
    return tap.finish(complete)


# --- OCR ---

INFO = {"pages_processed": 3, "doc_size_bytes": 40_000}
PAGE = {
    "index": 0,
    "markdown": '"image_annotation": "x"',
    "images": [{"id": "img-0", "image_annotation": None}],
}


def test_pages_are_billed_by_the_piece() -> None:
    usage = read(
        "mistral_ocr", model="mistral-ocr-latest", pages=[PAGE], document_annotation=None, usage_info=INFO
    )
    assert (usage.buckets, usage.model, usage.raw) == ({"page": 3}, "mistral-ocr-latest", INFO)
    assert (usage.source, usage.consistency, usage.tokens_total) == ("reported", "ok", 0)


@pytest.mark.parametrize(
    "fields",
    [{"document_annotation": "{}"}, {"pages": [{**PAGE, "images": [{"image_annotation": "a bird"}]}]}],
    ids=["of the document", "of an image"],
)
def test_annotated_pages_have_a_price_of_their_own(fields: dict[str, Any]) -> None:
    assert read("mistral_ocr", **{"pages": [PAGE], "usage_info": INFO, **fields}).buckets == {
        "page_annotated": 3
    }


@pytest.mark.parametrize("info", [None, {}, {"pages_processed": -1}, 7])
def test_no_pages_are_no_usage(info: Any) -> None:
    usage = read("mistral_ocr", usage_info=info)
    assert (usage.source, usage.tokens_total) == ("none", None)
    assert usage.consistency == ("ok" if not info else "inconsistent")


# --- conversations ---

USAGE = {
    "prompt_tokens": 100, "completion_tokens": 40, "connector_tokens": 700, "total_tokens": 840,
    "connectors": {"web_search": 2, "code_interpreter": 1, "image_generation": 1},
}  # fmt: skip
BUCKETS = {
    "in_uncached": 100,
    "in_tool_prompt": 700,
    "out_visible": 40,
    "web_search": 2,
    "code_exec": 1,
    "image": 1,
}
OUTPUTS = [
    {"type": "tool.execution", "name": "web_search"},
    {"type": "message.output", "model": "mistral-medium-latest", "content": "…"},
]


def test_connectors_are_units_and_what_they_fetched_is_input() -> None:
    usage = read("mistral_conversations", conversation_id="conv_1", outputs=OUTPUTS, usage=USAGE)
    assert (usage.buckets, usage.model, usage.rules) == (BUCKETS, "mistral-medium-latest", ())
    assert (usage.tokens_input, usage.raw) == (800, USAGE)
    assert usage == watch(
        "mistral_conversations",
        event("conversation.response.started", conversation_id="conv_1"),
        event("tool.execution.started", name="web_search"),
        event("message.output.delta", model="mistral-medium-latest", content="conversation.response.done"),
        event("conversation.response.done", usage=USAGE),
    )


def test_fetched_tokens_that_the_prompt_counts_as_well_are_not_counted_twice() -> None:
    usage = read("mistral_conversations", usage={**USAGE, "prompt_tokens": 800, "total_tokens": 840})
    assert (usage.buckets, usage.rules) == (BUCKETS, ("connector_tokens_inside",))


def test_a_total_that_fits_neither_way_is_inconsistent() -> None:
    usage = read("mistral_conversations", usage={**USAGE, "total_tokens": 5})
    assert (usage.buckets, usage.consistency) == (BUCKETS, "inconsistent")


def test_without_connectors_it_is_chat() -> None:
    usage = read("mistral_conversations", outputs="of another shape", model="m", usage=CHAT_USAGE)
    assert (usage.buckets, usage.model) == (CHAT_BUCKETS, "m")
    assert (
        read(
            "mistral_conversations", usage={**CHAT_USAGE, "connectors": None, "connector_tokens": None}
        ).buckets
        == CHAT_BUCKETS
    )


def test_a_conversation_that_breaks_off_is_estimated() -> None:
    usage = watch(
        "mistral_conversations",
        event("conversation.response.started"),
        event("message.output.delta", model="m"),
        complete=False,
    )
    assert (usage.source, usage.model, usage.buckets) == (
        "estimated",
        "m",
        {"out_visible": 2, "in_uncached": 11},
    )


# --- Cloudflare ---


def test_cloudflare_wraps_its_answer_and_names_no_model() -> None:
    usage = read(
        "cloudflare_run", "cloudflare", success=True, result={"response": "…", "usage": CHAT_USAGE}, errors=[]
    )
    assert (usage.buckets, usage.model, usage.model_served, usage.provider) == (
        CHAT_BUCKETS,
        "asked-for",
        None,
        "cloudflare",
    )
    assert (
        read("cloudflare_run", "cloudflare", result={"model": "@cf/meta/llama", "usage": CHAT_USAGE}).model
        == "@cf/meta/llama"
    )
    assert read("cloudflare_run", "cloudflare", model="m", usage=CHAT_USAGE).buckets == CHAT_BUCKETS


@pytest.mark.parametrize("result", [None, {}, 7, [], {"usage": None}, {"shape": [1], "data": [[0.5]]}])
def test_a_result_without_usage_has_none(result: Any) -> None:
    usage = read("cloudflare_run", "cloudflare", success=True, result=result)
    assert (usage.source, usage.tokens_total) == ("none", None)


def test_a_stream_of_cloudflare_that_says_nothing_is_estimated() -> None:
    word = data({"response": "a"})
    usage = watch("cloudflare_run", word, word, b"data: [DONE]\n\n", provider="cloudflare")
    assert (usage.source, usage.buckets) == ("estimated", {"out_visible": 1, "in_uncached": 11})  # 2 bytes
    said = watch(
        "cloudflare_run",
        word,
        data({"response": "", "usage": CHAT_USAGE}),
        b"data: [DONE]\n\n",
        provider="cloudflare",
    )
    assert (said.source, said.buckets) == ("reported", CHAT_BUCKETS)
