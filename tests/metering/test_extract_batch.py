"""Batches: the object, its lines one by one, and all lines together say the same, and each says that it was a batch."""

import json
from decimal import Decimal
from typing import Any

import pytest

from metering.estimate import RequestFacts
from metering.extract import usage_of_line, wire_format
from metering.tap import open_tap
from pricing.pricelist import RateCard
from pricing.rating import rate_usage
from pricing.usage import Usage, UsagePart
from tests.metering.payloads import CHAT_BUCKETS, CHAT_USAGE, RESPONSES_BUCKETS, RESPONSES_USAGE, body
from tests.pricing.prices import NOW, rates, usd

FACTS = RequestFacts(model="asked-for", readable=True)
SMALL = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def line(answer: Any, id_: Any = "batch_req_1", **more: Any) -> bytes:
    response = None if answer is None else {"status_code": 200, "request_id": "r", "body": answer}
    return json.dumps(
        {"id": id_, "custom_id": "mine-1", "response": response, "error": None, **more}
    ).encode()


def chat(usage: Any = SMALL, model: str = "gpt-5.6", **more: Any) -> dict[str, Any]:
    return {
        "object": "chat.completion",
        "model": model,
        "service_tier": "default",
        "choices": [{}],
        "usage": usage,
        **more,
    }


def together(*lines: bytes) -> Usage:
    """As a file of results goes by, one line a frame."""
    tap = open_tap(wire_format("openai_batch"), FACTS, "openai", "application/jsonl", "")
    tap.feed(b"\n".join(lines) + b"\n")
    return tap.finish(complete=True)


def test_the_object_says_the_sum() -> None:
    text = body(id="batch_1", object="batch", model="gpt-5.6", status="completed", usage=RESPONSES_USAGE)
    usage = wire_format("openai_batch").read_body(text, FACTS, "openai")
    assert (usage.buckets, usage.model, usage.batch, usage.source) == (
        RESPONSES_BUCKETS,
        "gpt-5.6",
        True,
        "reported",
    )
    assert (usage.extractor, usage.service_tier) == ("openai_batch/1", None)


def test_a_batch_that_is_not_done_has_no_usage_yet() -> None:
    text = body(id="batch_1", object="batch", model="gpt-5.6", status="in_progress", usage=None)
    usage = wire_format("openai_batch").read_body(text, FACTS, "openai")
    assert (usage.source, usage.tokens_total, usage.batch) == ("none", None, True)


@pytest.mark.parametrize(
    ("answer", "buckets"),
    [
        (chat(CHAT_USAGE), CHAT_BUCKETS),
        ({"object": "response", "model": "gpt-5.6", "usage": RESPONSES_USAGE, "tool_usage": {"web_search": {"num_requests": 2}}},
         {**RESPONSES_BUCKETS, "web_search": 2}),
        ({"object": "list", "model": "text-embedding-3-small", "usage": {"prompt_tokens": 8, "total_tokens": 8}, "data": []},
         {"in_uncached": 8, "out_visible": 0}),
    ],
    ids=["chat", "response", "embedding"],
)  # fmt: skip
def test_each_line_is_a_call_of_its_own(answer: dict[str, Any], buckets: dict[str, int]) -> None:
    usage = usage_of_line(line(answer), FACTS, "openai")
    assert (usage.buckets, usage.batch, usage.model, usage.extractor) == (
        buckets,
        True,
        answer["model"],
        "openai_batch/1",
    )
    assert together(line(answer)).buckets == {**buckets, "request": 1}


def test_lines_of_one_model_are_added_up() -> None:
    usage = together(
        line(chat()), line(chat(), "batch_req_2"), line(None, "batch_req_3", error={"code": "x"})
    )
    assert (usage.buckets, usage.model, usage.parts, usage.batch) == (
        {"in_uncached": 20, "out_visible": 10, "request": 2},
        "gpt-5.6",
        (),
        True,
    )
    whole = wire_format("openai_batch").read_body(
        line(chat()) + b"\n" + line(chat(), "batch_req_2"), FACTS, "openai"
    )
    assert whole == usage


def test_lines_of_several_models_are_billed_at_each() -> None:
    usage = together(line(chat()), line(chat(model="gpt-5-mini"), "batch_req_2"), line(chat(), "batch_req_3"))
    assert usage.parts == (
        UsagePart({"in_uncached": 20, "out_visible": 10, "request": 2}, "gpt-5.6", kind="line"),
        UsagePart({"in_uncached": 10, "out_visible": 5, "request": 1}, "gpt-5-mini", kind="line"),
    )


LONG = {"in_uncached": "1", "out_visible": "5"}, {"in_uncached": "2", "out_visible": "7.5"}


def cost(usage: Usage) -> Decimal | None:
    """At a batch price that doubles for calls that read more than 1,000 tokens."""
    ordinary = rates(LONG[0], provider="openai", model="gpt-5.6", batch=True)
    long = rates(LONG[1], provider="openai", model="gpt-5.6", batch=True, input_above=1_000, first_id=9)
    return rate_usage(RateCard.compile([*ordinary, *long], {}, 1), usage, book="cost", at=NOW).total


def test_many_short_calls_are_no_long_one() -> None:
    """200 × 10 tokens read are more than 1,000, but no call reads more than 10."""
    many = together(*(line(chat(), f"batch_req_{number}") for number in range(200)))
    assert cost(many) == 2_000 * usd("1") + 1_000 * usd("5")
    total = {"prompt_tokens": 2_000, "completion_tokens": 1_000, "total_tokens": 3_000}
    counts = {"total": 201, "completed": 200, "failed": 1}
    whole = body(id="batch_1", object="batch", model="gpt-5.6", usage=total, request_counts=counts)
    assert cost(wire_format("openai_batch").read_body(whole, FACTS, "openai")) == cost(many)
    long = {"prompt_tokens": 1_001, "completion_tokens": 10, "total_tokens": 1_011}
    assert cost(together(line(chat(long)))) == 1_001 * usd("2") + 10 * usd("7.5")


@pytest.mark.parametrize(
    "counts", [None, 7, [], {}, {"completed": 0}, {"completed": "2"}, {"completed": True}, {"completed": -1}]
)
def test_a_count_that_is_none_is_left_out(counts: Any) -> None:
    text = body(id="batch_1", object="batch", model="gpt-5.6", usage=RESPONSES_USAGE, request_counts=counts)
    assert wire_format("openai_batch").read_body(text, FACTS, "openai").buckets == RESPONSES_BUCKETS


def test_a_line_counts_once_however_often_it_comes_and_needs_no_id() -> None:
    assert together(line(chat()), line(chat())).tokens_total == 15
    assert together(line(chat(), None), line(chat(), None), line(chat(), "")).tokens_total == 45


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"\xff",
        line(None),
        line(7),
        line({}),
        line(chat(None)),
        b'{"response": 7}',
    ],
)
def test_a_line_without_an_answer_used_nothing_that_we_know(text: bytes) -> None:
    usage = usage_of_line(text, FACTS, "openai")
    assert (usage.source, usage.buckets, usage.tokens_total) == ("none", {}, None)
    assert together(text).source == "none"
