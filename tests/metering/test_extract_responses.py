"""OpenAI Responses and those who speak it: tokens, tools beside them, and models beside the one that answered."""

from decimal import Decimal
from typing import Any

import pytest

from metering.estimate import RequestFacts
from metering.extract import wire_format
from metering.tap import open_tap
from pricing.usage import Usage, UsagePart
from tests.metering.payloads import RESPONSES_BUCKETS, RESPONSES_USAGE, body, event

FACTS = RequestFacts(model="asked-for", readable=True, tokens_input_estimate=11)
USAGE: dict[str, Any] = {"input_tokens": 100, "output_tokens": 20, "total_tokens": 120}
BUCKETS: dict[str, Any] = {"in_uncached": 100, "out_visible": 20}
NO_IMAGES: dict[str, Any] = {
    "input_tokens": 0,
    "input_tokens_details": {"image_tokens": 0, "text_tokens": 0},
    "output_tokens": 0,
    "total_tokens": 0,
}
IMAGES: dict[str, Any] = {
    "input_tokens": 50, "input_tokens_details": {"image_tokens": 40, "text_tokens": 10}, "output_tokens": 900, "total_tokens": 950,
    "cached_tokens": 30, "cached_tokens_details": {"cached_image_tokens": 25, "cached_text_tokens": 5},
}  # fmt: skip
IMAGE_BUCKETS: dict[str, Any] = {
    "in_uncached": 5,
    "in_uncached.image": 15,
    "in_cache_read": 5,
    "in_cache_read.image": 25,
    "out_visible.image": 900,
}
SVG: dict[str, Any] = {
    "model": "gpt-5.6",
    "input_tokens": 40,
    "output_tokens": 60,
    "reasoning_tokens": 20,
    "total_tokens": 100,
}
SVG_BUCKETS: dict[str, Any] = {"in_uncached": 40, "out_visible": 40, "out_reasoning": 20}
IMAGE_TOOL: dict[str, Any] = {"type": "image_generation", "model": "gpt-image-2", "quality": "high"}


def read(fmt: str = "openai_responses", provider: str = "openai", **fields: Any) -> Usage:
    fields = {"object": "response", "model": "gpt-5.6", "usage": USAGE, **fields}
    return wire_format(fmt).read_body(body(**fields), FACTS, provider)


def watch(
    fmt: str = "openai_responses", provider: str = "openai", kind: str = "response.completed", **fields: Any
) -> Usage:
    """The same response at the end of a stream."""
    fields = {"object": "response", "model": "gpt-5.6", "usage": USAGE, **fields}
    tap = open_tap(wire_format(fmt), FACTS, provider, "text/event-stream", "")
    tap.feed(event("response.created", response={**fields, "usage": None, "tool_usage": None, "output": []}))
    tap.feed(event("response.output_text.delta", delta='"type":"web_search_call"'))
    tap.feed(event(kind, response=fields))
    return tap.finish(complete=True)


def call(kind: str, action: str | None = None, status: str = "completed", **more: Any) -> dict[str, Any]:
    return {
        "type": kind,
        "id": "x",
        "status": status,
        **({"action": {"type": action}} if action else {}),
        **more,
    }


CASES = [
    pytest.param({}, BUCKETS, (), id="nothing but tokens"),
    pytest.param({"tool_usage": {"web_search": {"num_requests": 0}, "image_gen": NO_IMAGES}}, BUCKETS, (), id="tools that did nothing"),
    pytest.param({"tool_usage": {"web_search": {"num_requests": 2}, "image_gen": NO_IMAGES}}, {**BUCKETS, "web_search": 2}, (),
                 id="searches"),
    pytest.param(  # the counter knows which of the calls are billed
        {"tool_usage": {"web_search": {"num_requests": 1}, "image_gen": NO_IMAGES},
         "output": [call("web_search_call", "search"), call("web_search_call", "search"), call("web_search_call", "open_page")]},
        {**BUCKETS, "web_search": 1}, (), id="a counter beside the calls",
    ),
    pytest.param(
        {"output": [call("web_search_call", "search"), call("web_search_call", "open_page"), call("web_search_call"),
                    call("web_search_call", "search", "failed"), {"type": "message"}]},
        {**BUCKETS, "web_search": 2}, ("searches_counted",), id="searches counted from the calls",
    ),
    pytest.param(
        {"output": [call("file_search_call"), call("file_search_call"), call("code_interpreter_call"), call("function_call")]},
        {**BUCKETS, "file_search": 2, "code_exec": 1}, (), id="files and code have no counter",
    ),
    pytest.param({"output": [{"type": "message", "content": '"type": "web_search_call"'}, {"type": ["web_search_call"]}]}, BUCKETS, (),
                 id="words about a call"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "buckets", "rules"), CASES)
def test_tools_whole_and_streamed(
    fields: dict[str, Any], buckets: dict[str, int], rules: tuple[str, ...]
) -> None:
    usage = read(**fields)
    assert (usage.buckets, usage.rules, usage.parts, usage.source) == (buckets, rules, (), "reported")
    for kind in ("response.completed", "response.incomplete", "response.failed"):
        assert watch(kind=kind, **fields) == usage


def test_tools_that_did_nothing_leave_the_usage_as_it_came() -> None:
    assert read(tool_usage={"web_search": {"num_requests": 0}, "image_gen": NO_IMAGES}).raw == USAGE
    assert read(tool_usage={"web_search": {"num_requests": 2}}).raw == {
        **USAGE,
        "tool_usage": {"web_search": {"num_requests": 2}},
    }
    assert read(output=[call("file_search_call")]).raw == {**USAGE, "output_calls": {"file_search_call": 1}}


def test_images_are_billed_at_the_model_that_the_tool_names() -> None:
    fields: dict[str, Any] = {
        "tool_usage": {"web_search": {"num_requests": 1}, "image_gen": IMAGES},
        "tools": [{"type": "web_search"}, IMAGE_TOOL],
    }
    usage = read(**fields)
    assert usage.parts == (
        UsagePart({**BUCKETS, "web_search": 1}),
        UsagePart(IMAGE_BUCKETS, "gpt-image-2", kind="image_gen"),
    )
    assert usage.buckets == {
        "in_uncached": 100 + 5, "in_uncached.image": 15, "in_cache_read": 5, "in_cache_read.image": 25, "out_visible": 20,
        "out_visible.image": 900, "web_search": 1,
    }  # fmt: skip
    assert (usage.consistency, usage.rules) == ("ok", ())
    assert watch(**fields) == usage


@pytest.mark.parametrize(
    "tools", [None, [], [{"type": "image_generation"}], [7], "x", [{"type": "function", "model": "m"}]]
)
def test_images_of_a_model_that_nobody_names_are_not_priced_as_this_one(tools: Any) -> None:
    usage = read(tool_usage={"image_gen": IMAGES}, tools=tools)
    assert usage.parts[1] == UsagePart(IMAGE_BUCKETS, "image_generation", kind="image_gen")
    assert usage.rules == ("image_model_not_told",)


def test_each_vector_image_is_billed_at_the_model_that_wrote_it() -> None:
    drawn = [call("image_generation_call", svg_usage=SVG), call("image_generation_call", svg_usage=None)]
    usage = read(output=drawn)
    assert usage.parts == (UsagePart(BUCKETS), UsagePart(SVG_BUCKETS, "gpt-5.6", kind="svg"))
    assert usage.tokens_total == 120 + 100
    assert watch(output=drawn) == usage


@pytest.mark.parametrize("bad", [7, "x", [], {"web_search": 7}, {"web_search": {"num_requests": -1}}])
def test_tool_usage_that_cannot_be_read_is_flagged(bad: Any) -> None:
    usage = read(tool_usage=bad)
    assert (usage.buckets, usage.consistency, usage.rules) == (BUCKETS, "inconsistent", ("field_refused",))


def test_an_output_of_another_shape_costs_nothing_but_its_tools() -> None:
    for output in (7, "web_search_call", [7], [call("file_search_call"), 7], {"a": 'file_search_call"'}):
        assert read(output=output).buckets == BUCKETS


def test_a_compaction_is_a_call_of_its_own_at_the_requested_model() -> None:
    usage = wire_format("openai_responses").read_body(
        body(object="response.compaction", output=[{"type": "compaction"}], usage=RESPONSES_USAGE),
        FACTS,
        "openai",
    )
    assert (usage.buckets, usage.model_served, usage.model) == (RESPONSES_BUCKETS, None, "asked-for")


def test_a_response_in_the_background_has_no_usage_until_it_is_polled() -> None:
    usage = read(usage=None, status="queued", service_tier="flex")
    assert (usage.source, usage.tokens_total, usage.service_tier) == ("none", None, "flex")


def test_cache_writes_of_two_lifetimes_and_a_rest() -> None:
    details = {
        "cached_tokens": 0,
        "cache_write_tokens": 90,
        "cache_write_tokens_details": {"ttl_30m_tokens": 50, "ttl_7d_tokens": 30},
    }
    usage = read(usage={**USAGE, "input_tokens_details": details})
    assert usage.buckets == {
        "in_uncached": 10, "in_cache_write_30m": 50, "in_cache_write_7d": 30, "in_cache_write_unknown": 10, "out_visible": 20,
    }  # fmt: skip


def test_cache_writes_that_are_more_than_their_sum_are_flagged() -> None:
    details = {"cache_write_tokens": 40, "cache_write_tokens_details": {"ttl_30m_tokens": 50}}
    usage = read(usage={**USAGE, "input_tokens_details": details})
    assert usage.buckets == {"in_uncached": 60, "in_cache_write_unknown": 40, "out_visible": 20}
    assert usage.rules == ("cache_writes_exceed_sum",)


XAI: dict[str, Any] = {  # reasoning is inside here, and calls are counted in the usage, so the items beside it are none
    **USAGE, "input_tokens_details": {"cached_tokens": 80}, "output_tokens_details": {"reasoning_tokens": 15},
    "num_sources_used": 0, "num_server_side_tools_used": 7, "cost_in_usd_ticks": 569184000,
    "server_side_tool_usage_details": {"web_search_calls": 0, "x_search_calls": 7, "code_interpreter_calls": 0},
}  # fmt: skip


def test_xai_counts_its_tools_in_the_usage() -> None:
    fields: dict[str, Any] = {"usage": XAI, "output": [call("web_search_call", "search")], "model": "grok-4"}
    usage = read(provider="xai", **fields)
    assert usage.buckets == {
        "in_uncached": 20,
        "in_cache_read": 80,
        "out_visible": 5,
        "out_reasoning": 15,
        "social_search": 7,
    }
    assert (usage.reported_cost, usage.rules) == (Decimal("0.0569184"), ())
    assert watch(provider="xai", **fields) == usage


PERPLEXITY: dict[str, Any] = {
    **USAGE, "input_tokens_details": {"cache_creation_input_tokens": 10, "cache_read_input_tokens": 60},
    "tool_calls_details": {"search_web": {"invocation": 2}, "web_search": 1},
    "cost": {"currency": "USD", "input_cost": 0.0001, "output_cost": 0.0002, "total_cost": 0.03037},
}  # fmt: skip


def test_perplexity_has_names_of_its_own() -> None:
    usage = read("perplexity_responses", "perplexity", usage=PERPLEXITY)
    assert usage.buckets == {
        "in_uncached": 30, "in_cache_read": 60, "in_cache_write_unknown": 10, "out_visible": 20, "web_search": 3,
    }  # fmt: skip
    assert (usage.reported_cost, usage.extractor) == (Decimal("0.03037"), "perplexity_responses/1")
    assert watch("perplexity_responses", "perplexity", usage=PERPLEXITY) == usage


def test_a_raw_anthropic_counter_in_this_shape_is_told_by_the_total() -> None:
    usage = read(
        usage={"input_tokens": 10, "output_tokens": 20, "total_tokens": 5030, "cache_read_input_tokens": 5000}
    )
    assert usage.buckets == {"in_uncached": 10, "in_cache_read": 5000, "out_visible": 20}
    assert usage.rules == ("cache_additive",)
