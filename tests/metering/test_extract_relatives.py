"""Providers and gateways that speak OpenAI's chat format in ways of their own: whole, streamed, and with what they add."""

from decimal import Decimal
from typing import Any

import pytest

from metering.estimate import RequestFacts
from metering.extract import wire_format
from metering.tap import open_tap
from pricing.usage import Usage, UsagePart
from tests.metering.payloads import body, data

FACTS = RequestFacts(model="asked-for", readable=True, tokens_input_estimate=11)


def read(provider: str, text: bytes, fmt: str = "openai_chat") -> Usage:
    return wire_format(fmt).read_body(text, FACTS, provider)


def watch(provider: str, chunks: list[bytes], *, complete: bool = True, fmt: str = "openai_chat") -> Usage:
    tap = open_tap(wire_format(fmt), FACTS, provider, "text/event-stream", "")
    for chunk in chunks:
        tap.feed(chunk)
    return tap.finish(complete)


def streamed(answer: dict[str, Any], *, usage_in: str = "usage") -> list[bytes]:
    """The same answer as its provider streams it: two words, the usage on the last chunk, the end."""
    head: dict[str, Any] = {"object": "chat.completion.chunk"}
    head.update({key: answer[key] for key in ("model", "service_tier") if key in answer})
    words = [
        data({**head, "choices": [{"index": 0, "delta": {"content": word}}], "usage": None}) for word in "ab"
    ]
    told: dict[str, Any] = {key: answer[key] for key in ("usage", "usage_breakdown") if key in answer}
    last: dict[str, Any] = dict(head, choices=[])
    last.update(told if usage_in == "usage" else {usage_in: {"id": "req_1", **told}})
    return [b": PROCESSING\n\n", *words, data(last), b"data: [DONE]\n\n"]


MISTRAL: dict[str, Any] = {"model": "mistral-large-latest", "usage": {
    "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150, "prompt_audio_seconds": None,
    "prompt_tokens_details": {"cached_tokens": 64}}}  # fmt: skip
VOXTRAL: dict[str, Any] = {"model": "voxtral-mini-latest", "usage": {  # the total counts 2625 tokens of audio, which is paid by the second
    "prompt_tokens": 4, "completion_tokens": 635, "total_tokens": 3264, "prompt_audio_seconds": 203, "service_tier": "batch"}}  # fmt: skip
DEEPSEEK: dict[str, Any] = {"model": "deepseek-chat", "usage": {
    "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "prompt_cache_hit_tokens": 64,
    "prompt_cache_miss_tokens": 36, "prompt_tokens_details": {"cached_tokens": 64}}}  # fmt: skip
GROQ: dict[str, Any] = {"model": "llama-3.3-70b", "service_tier": "on_demand", "usage": {
    "queue_time": 0.26, "prompt_tokens": 18, "prompt_time": 0.01, "completion_tokens": 556, "completion_time": 0.8,
    "total_tokens": 574, "total_time": 0.81}}  # fmt: skip
XAI: dict[str, Any] = {"model": "grok-4", "usage": {
    "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 160, "num_sources_used": 0,
    "prompt_tokens_details": {"text_tokens": 100, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 98},
    "completion_tokens_details": {"reasoning_tokens": 50, "audio_tokens": 0}, "cost_in_usd_ticks": 37756000}}  # fmt: skip
XAI_SEARCH: dict[str, Any] = {"model": "grok-4", "usage": {
    "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "num_sources_used": 9,
    "num_server_side_tools_used": 6, "server_side_tool_usage_details": {
        "web_search_calls": 1, "x_search_calls": 2, "code_interpreter_calls": 3, "file_search_calls": 0, "mcp_calls": 5}}}  # fmt: skip
XAI_SOURCES: dict[str, Any] = {"model": "grok-3", "usage": {
    "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "num_sources_used": 9}}  # fmt: skip
OPENROUTER: dict[str, Any] = {"model": "anthropic/claude-sonnet-4.5", "provider": "Anthropic", "usage": {
    "prompt_tokens": 194, "completion_tokens": 20, "total_tokens": 214, "cost": 0.00095, "is_byok": False,
    "cost_details": {"upstream_inference_cost": None}, "server_tool_use_details": {"web_search_requests": 2, "tool_calls_executed": 2},
    "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 50, "video_tokens": 20},
    "completion_tokens_details": {"reasoning_tokens": 5, "image_tokens": 8}}}  # fmt: skip
OPENROUTER_BYOK: dict[str, Any] = {"model": "openai/gpt-5.6", "usage": {
    "prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12, "cost": 0.000001, "is_byok": True,
    "cost_details": {"upstream_inference_cost": 0.02}}}  # fmt: skip
PERPLEXITY: dict[str, Any] = {"model": "sonar-deep-research", "usage": {
    "prompt_tokens": 14, "completion_tokens": 50, "total_tokens": 64, "citation_tokens": 20, "reasoning_tokens": 90,
    "num_search_queries": 3, "search_context_size": "low",
    "cost": {"input_tokens_cost": 0.0, "output_tokens_cost": 0.001, "request_cost": 0.005, "total_cost": 0.006}}}  # fmt: skip
DATABRICKS: dict[str, Any] = {"model": "databricks-claude", "usage": {
    "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110, "cache_read_input_tokens": 60, "reasoning_tokens": 4}}  # fmt: skip
CEREBRAS: dict[str, Any] = {"model": "gpt-oss-120b", "usage": {
    "prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110,
    "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 30}}}  # fmt: skip
TOGETHER: dict[str, Any] = {
    "model": "llama",
    "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
}
LITELLM: dict[str, Any] = {"model": "claude-sonnet-4-5", "usage": {  # everything inside, and once more at the top
    "prompt_tokens": 8010, "completion_tokens": 500, "total_tokens": 8510, "cost": 0.02253,
    "prompt_tokens_details": {"cached_tokens": 5000, "cache_creation_tokens": 3000,
                              "cache_creation_token_details": {"ephemeral_5m_input_tokens": 2000, "ephemeral_1h_input_tokens": 1000}},
    "cache_read_input_tokens": 5000, "cache_creation_input_tokens": 3000}}  # fmt: skip
PORTKEY_CLAUDE: dict[str, Any] = {"model": "claude-sonnet-4-5", "usage": {
    "prompt_tokens": 10, "completion_tokens": 500, "total_tokens": 10 + 500 + 5000 + 3000,
    "prompt_tokens_details": {"cached_tokens": 5000}, "cache_read_input_tokens": 5000, "cache_creation_input_tokens": 3000}}  # fmt: skip
PORTKEY_GEMINI: dict[str, Any] = {"model": "gemini-2.5-pro", "usage": {
    "prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1000 + 200 + 300,
    "completion_tokens_details": {"reasoning_tokens": 300}, "prompt_tokens_details": {"cached_tokens": 400}}}  # fmt: skip
GOOGLE: dict[str, Any] = {"model": "google/gemini-2.5-pro", "usage": {
    "prompt_tokens": 11, "completion_tokens": 20, "total_tokens": 61, "extra_properties": {"google": {"traffic_type": "ON_DEMAND_FLEX"}}}}  # fmt: skip

CASES = [
    pytest.param("mistral", MISTRAL, {"in_uncached": 36, "in_cache_read": 64, "out_visible": 50}, (), None, id="Mistral"),
    pytest.param("mistral", VOXTRAL, {"in_uncached": 4, "out_visible": 635, "audio_second": 203}, ("audio_in_total",), None, id="Voxtral"),
    pytest.param("deepseek", DEEPSEEK, {"in_uncached": 36, "in_cache_read": 64, "out_visible": 10}, (), None, id="DeepSeek"),
    pytest.param("groq", GROQ, {"in_uncached": 18, "out_visible": 556}, (), None, id="Groq"),
    pytest.param("xai", XAI, {"in_uncached": 2, "in_cache_read": 98, "out_visible": 10, "out_reasoning": 50},
                 ("reasoning_additive",), "0.0037756", id="xAI"),
    pytest.param("xai", XAI_SEARCH, {"in_uncached": 100, "out_visible": 10, "web_search": 1, "social_search": 2, "code_exec": 3},
                 (), None, id="xAI, tools on the server"),
    pytest.param("xai", XAI_SOURCES, {"in_uncached": 100, "out_visible": 10, "search_unit": 9}, (), None, id="xAI, sources"),
    pytest.param("openrouter", OPENROUTER,
                 {"in_uncached": 194 - 100 - 50 - 20, "in_uncached.video": 20, "in_cache_read": 100, "in_cache_write_unknown": 50,
                  "out_visible": 20 - 5 - 8, "out_visible.image": 8, "out_reasoning": 5, "web_search": 2},
                 ("cache_taken_as_text",), "0.00095", id="OpenRouter"),
    pytest.param("openrouter", OPENROUTER_BYOK, {"in_uncached": 10, "out_visible": 2}, (), "0.000001", id="OpenRouter, own key"),
    pytest.param("perplexity", PERPLEXITY,
                 {"in_uncached": 14, "out_visible": 50, "out_reasoning": 90, "out_citation": 20, "web_search": 3},
                 ("provider_profile",), "0.006", id="Perplexity"),
    pytest.param("databricks", DATABRICKS, {"in_uncached": 40, "in_cache_read": 60, "out_visible": 6, "out_reasoning": 4}, (), None,
                 id="Databricks"),
    pytest.param("cerebras", CEREBRAS, {"in_uncached": 70, "in_uncached.image": 30, "out_visible": 10}, (), None, id="Cerebras"),
    pytest.param("together", TOGETHER, {"in_uncached": 7, "out_visible": 3}, (), None, id="Together"),
    pytest.param("litellm", LITELLM,
                 {"in_uncached": 10, "in_cache_read": 5000, "in_cache_write_5m": 2000, "in_cache_write_1h": 1000, "out_visible": 500},
                 (), "0.02253", id="LiteLLM"),
    pytest.param("portkey", PORTKEY_CLAUDE,
                 {"in_uncached": 10, "in_cache_read": 5000, "in_cache_write_unknown": 3000, "out_visible": 500},
                 ("cache_additive",), None, id="Portkey before Anthropic"),
    pytest.param("portkey", PORTKEY_GEMINI, {"in_uncached": 600, "in_cache_read": 400, "out_visible": 200, "out_reasoning": 300},
                 ("reasoning_additive",), None, id="Portkey before Gemini"),
    pytest.param("google", GOOGLE, {"in_uncached": 11, "out_visible": 20, "out_reasoning": 30}, ("reasoning_from_total",), None,
                 id="Google's OpenAI-compatible endpoint"),
]  # fmt: skip


@pytest.mark.parametrize(("provider", "answer", "buckets", "rules", "cost"), CASES)
def test_each_relative_whole_and_streamed(
    provider: str, answer: dict[str, Any], buckets: dict[str, int], rules: tuple[str, ...], cost: str | None
) -> None:
    usage = read(provider, body(**answer, choices=[]))
    assert usage.buckets == buckets
    assert (usage.source, usage.rules) == ("reported", rules)
    assert usage.reported_cost == (Decimal(cost) if cost else None)
    assert (usage.provider, usage.model, usage.raw) == (provider, answer["model"], answer["usage"])
    assert watch(provider, streamed(answer)) == usage


@pytest.mark.parametrize(("provider", "answer", "buckets", "rules", "cost"), CASES)
def test_running_totals_on_every_chunk_give_the_last_and_never_their_sum(
    provider: str, answer: dict[str, Any], buckets: dict[str, int], rules: tuple[str, ...], cost: str | None
) -> None:
    """As vLLM sends them; Perplexity's interim chunks have a cost of 0, which means not yet."""
    usage = answer["usage"]
    interim = {
        **usage,
        "completion_tokens": 1,
        "total_tokens": usage["prompt_tokens"] + 1,
        "completion_tokens_details": None,
    }
    chunks = [
        data({"model": answer["model"], "choices": [{"delta": {}}], "usage": each})
        for each in (interim, interim, usage)
    ]
    assert watch(provider, chunks).buckets == buckets


def test_a_tier_stands_where_each_provider_puts_it() -> None:
    assert read("mistral", body(**VOXTRAL)).batch
    assert read("google", body(**GOOGLE)).service_tier == "flex"
    assert read("groq", body(**GROQ)).service_tier is None


def test_a_key_of_the_callers_own_is_told() -> None:
    assert [read("openrouter", body(**answer)).byok for answer in (OPENROUTER_BYOK, OPENROUTER)] == [
        True,
        False,
    ]


def test_groq_streams_usage_in_a_place_of_its_own() -> None:
    assert watch("groq", streamed(GROQ, usage_in="x_groq")) == read("groq", body(**GROQ))


COMPOUND: dict[str, Any] = {
    "model": "groq/compound",
    "usage": {"prompt_tokens": 300, "completion_tokens": 70, "total_tokens": 370},
    "usage_breakdown": {"models": [
        {"model": "llama-4-scout", "usage": {"prompt_tokens": 200, "completion_tokens": 30, "total_tokens": 230}},
        {"model": "gpt-oss-120b", "usage": {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140,
                                            "completion_tokens_details": {"reasoning_tokens": 25}}},
    ]},
}  # fmt: skip
COMPOUND_PARTS = (
    UsagePart({"in_uncached": 200, "out_visible": 30}, "llama-4-scout", kind="model"),
    UsagePart({"in_uncached": 100, "out_visible": 15, "out_reasoning": 25}, "gpt-oss-120b", kind="model"),
)


def test_a_compound_system_is_billed_model_by_model() -> None:
    usage = read("groq", body(**COMPOUND))
    assert usage.parts == COMPOUND_PARTS
    assert usage.buckets == {"in_uncached": 200 + 100, "out_visible": 30 + 15, "out_reasoning": 25}
    assert (usage.consistency, usage.model) == ("ok", "groq/compound")
    assert usage.raw == {**COMPOUND["usage"], "usage_breakdown": COMPOUND["usage_breakdown"]}
    for place in ("usage", "x_groq"):
        assert watch("groq", streamed(COMPOUND, usage_in=place)) == usage


def test_models_that_used_more_than_the_headline_are_noted() -> None:
    usage = read(
        "groq",
        body(**{**COMPOUND, "usage": {"prompt_tokens": 100, "completion_tokens": 40, "total_tokens": 140}}),
    )
    assert (usage.parts, usage.rules) == (COMPOUND_PARTS, ("parts_differ_from_headline",))


@pytest.mark.parametrize(
    "models",
    [[{"model": "a", "usage": {"total_tokens": 8}}], [{"usage": GROQ["usage"]}], [{"model": "a"}], [7]],
)
def test_a_model_that_says_too_little_leaves_the_headline_as_it_is(models: list[Any]) -> None:
    usage = read("groq", body(**{**COMPOUND, "usage_breakdown": {"models": models}}))
    assert (usage.parts, usage.buckets) == ((), {"in_uncached": 300, "out_visible": 70})
    assert usage.consistency == "inconsistent" and "part_unreadable" in usage.rules


@pytest.mark.parametrize("breakdown", [None, {}, [], {"models": None}, {"models": []}, "x"])
def test_a_breakdown_that_says_nothing_is_none(breakdown: Any) -> None:
    usage = read("groq", body(**{**COMPOUND, "usage_breakdown": breakdown}))
    assert (usage.parts, usage.consistency, usage.raw) == ((), "ok", COMPOUND["usage"])


@pytest.mark.parametrize("error", [{"error": {"code": 502}}, {"x_groq": {"id": "r", "error": "over capacity"}},
                                   {"choices": [{"delta": {}, "finish_reason": "error"}], "error": {"message": "x"}}])  # fmt: skip
def test_an_error_in_the_middle_of_a_stream_leaves_an_estimate_and_never_zero(error: dict[str, Any]) -> None:
    usage = watch("openrouter", [*streamed(TOGETHER)[:3], data(error)])
    assert (usage.source, usage.tokens_input) == ("estimated", 11)
    assert usage.tokens_output == 1  # 2 bytes


def test_an_error_after_running_totals_leaves_the_last_of_them() -> None:
    total = data({"choices": [{"delta": {}}], "usage": TOGETHER["usage"]})
    usage = watch("vllm", [total, data({"error": {"message": "x"}})], complete=False)
    assert (usage.source, usage.tokens_total) == ("reported_partial", 10)


def test_a_cost_of_nothing_before_the_end_is_no_evidence() -> None:
    skeleton = {**PERPLEXITY["usage"], "cost": {"total_cost": 0.0}}
    chunk = data({"model": "sonar", "choices": [{"delta": {}}], "usage": skeleton})
    assert watch("perplexity", [chunk], complete=False).reported_cost is None
    assert watch("perplexity", [chunk, *streamed(PERPLEXITY)]).reported_cost == Decimal("0.006")
    assert read("openrouter", body(usage={**TOGETHER["usage"], "cost": 0})).reported_cost == 0


def test_a_tool_that_has_no_unit_is_noted() -> None:
    usage = read(
        "perplexity", body(usage={**TOGETHER["usage"], "tool_calls_details": {"teleport": {"invocation": 2}}})
    )
    assert (usage.rules, usage.tokens_total) == (("tool_not_known",), 10)


@pytest.mark.parametrize(
    "digits", ["0.00014675000000000001", "1E-7", "12.300000000000000444", "0", "7", "0.10"]
)
def test_a_reported_cost_has_the_digits_that_were_sent(digits: str) -> None:
    text = (
        b'{"usage": {"cost": %s, "prompt_tokens": 1, "completion_tokens": 1}, "x": "\\"cost\\": 5"}'
        % digits.encode()
    )
    assert read("openrouter", text).reported_cost == Decimal(digits)
    assert watch("openrouter", [b'data: {"choices": [], ' + text[1:] + b"\n\n"]).reported_cost == Decimal(
        digits
    )


@pytest.mark.parametrize("bad", [-1, True, "x", None, 1e400, [], {"total_cost": "x"}, 10**17])
def test_what_is_no_cost_is_no_evidence(bad: Any) -> None:
    assert read("openrouter", body(usage={**TOGETHER["usage"], "cost": bad})).reported_cost is None


@pytest.mark.parametrize("details", [0, None, 60])
def test_a_hit_that_the_details_do_not_say_counts(details: int | None) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101, "prompt_cache_hit_tokens": 64,
             "prompt_tokens_details": {"cached_tokens": details}}  # fmt: skip
    found = read("deepseek", body(usage=usage))
    assert found.buckets["in_cache_read"] == (details or 64)
    assert found.rules == (("cache_counters_differ",) if details else ())


def test_hits_and_misses_are_an_input() -> None:
    found = read(
        "deepseek",
        body(usage={"completion_tokens": 1, "prompt_cache_hit_tokens": 64, "prompt_cache_miss_tokens": 36}),
    )
    assert (found.tokens_input, found.rules) == (100, ("input_from_hit_and_miss",))


def test_an_empty_id_or_none_changes_nothing() -> None:
    for name in ({"id": None}, {"id": ""}, {}):
        assert read("openai", body(**TOGETHER, **name)) == read("openai", body(**TOGETHER))


def test_the_served_model_is_billed_and_both_are_kept() -> None:
    usage = read("openai", body(**TOGETHER))
    assert (usage.model_requested, usage.model_served, usage.model) == ("asked-for", "llama", "llama")
