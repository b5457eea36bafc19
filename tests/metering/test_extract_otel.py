"""GenAI spans: cached tokens inside the input by convention, unless numbers or a profile say otherwise."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.extract import otel_span, wire_format
from metering.extract.otel_span import SpanProfile
from pricing.usage import Usage
from tests.metering.payloads import body

ATTRIBUTES = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-4o-mini",
    "gen_ai.response.model": "gpt-4o-mini-2024-07-18",
    "gen_ai.usage.input_tokens": 1200,
    "gen_ai.usage.output_tokens": 80,
    "gen_ai.usage.cache_read.input_tokens": 1024,
    "gen_ai.usage.cache_creation.input_tokens": 32,
    "gen_ai.usage.reasoning.output_tokens": 16,
}
BUCKETS = {
    "in_uncached": 1200 - 1024 - 32,
    "in_cache_read": 1024,
    "in_cache_write_unknown": 32,
    "out_visible": 80 - 16,
    "out_reasoning": 16,
}


def otlp(attributes: dict[str, Any]) -> list[dict[str, Any]]:
    """Attributes as OTLP writes them in JSON: integers of 64 bits are text."""
    return [
        {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}
        for key, value in attributes.items()
    ]


def span(provider: str = "", scope: str = "", profile: SpanProfile | None = None, **usage: Any) -> Usage:
    """A span with `gen_ai.usage.…` attributes, dots written as double underscores."""
    attributes: dict[str, Any] = {
        f"gen_ai.usage.{key.replace('__', '.')}": value for key, value in usage.items()
    }
    document = {"attributes": attributes, "scope": {"name": scope}}
    return otel_span(document, provider=provider, profiles={scope: profile} if profile else {})


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"name": "chat", "attributes": otlp(ATTRIBUTES)}, id="OTLP"),
        pytest.param({"name": "chat", "attributes": ATTRIBUTES}, id="an SDK's JSON"),
        pytest.param(ATTRIBUTES, id="attributes alone"),
    ],
)
def test_a_span_in_any_notation(document: dict[str, Any]) -> None:
    for usage in (
        otel_span(document),
        wire_format("otel_span").read_body(body(**document), RequestFacts(), ""),
    ):
        assert (usage.buckets, usage.source, usage.consistency) == (BUCKETS, "reported", "ok")
        assert (usage.model_requested, usage.model_served) == ("gpt-4o-mini", "gpt-4o-mini-2024-07-18")
        assert (usage.provider, usage.extractor) == ("openai", "otel_span/1")
        assert usage.raw == {key: value for key, value in ATTRIBUTES.items() if ".usage." in key}


@pytest.mark.parametrize(
    ("input_name", "output_name"),
    [
        ("gen_ai.usage.prompt_tokens", "gen_ai.usage.completion_tokens"),
        ("llm.usage.prompt_tokens", "llm.usage.completion_tokens"),
        ("llm.token_count.prompt", "llm.token_count.completion"),
    ],
)
def test_names_of_before_are_read(input_name: str, output_name: str) -> None:
    usage = otel_span({input_name: 31, output_name: 12, "llm.usage.total_tokens": 43})
    assert (usage.buckets, usage.consistency) == ({"in_uncached": 31, "out_visible": 12}, "ok")


def test_the_current_name_goes_before_an_old_one() -> None:
    usage = otel_span(
        {"gen_ai.usage.prompt_tokens": 1, "gen_ai.usage.input_tokens": 31, "gen_ai.usage.output_tokens": 2}
    )
    assert usage.tokens_input == 31


@pytest.mark.parametrize(
    ("usage", "buckets", "consistency"),
    [
        pytest.param({"input_tokens": 10, "output_tokens": 500, "cache_read__input_tokens": 5000, "total_tokens": 5510},
                     {"in_uncached": 10, "in_cache_read": 5000, "out_visible": 500}, "repaired:cache_additive",
                     id="the total shows that the cache is beside"),
        pytest.param({"input_tokens": 10, "output_tokens": 5, "reasoning__output_tokens": 7, "total_tokens": 22},
                     {"in_uncached": 10, "out_visible": 5, "out_reasoning": 7}, "repaired:reasoning_additive",
                     id="the total shows that reasoning is beside"),
        pytest.param({"input_tokens": 10, "output_tokens": 5, "reasoning__output_tokens": 7, "total_tokens": 52,
                      "cache_read__input_tokens": 30},
                     {"in_uncached": 10, "in_cache_read": 30, "out_visible": 5, "out_reasoning": 7}, "repaired:cache_additive",
                     id="both are beside"),
        pytest.param({"input_tokens": 100, "output_tokens": 5, "cache_read__input_tokens": 60, "total_tokens": 105},
                     {"in_uncached": 40, "in_cache_read": 60, "out_visible": 5}, "ok", id="the total shows that it is inside"),
        pytest.param({"input_tokens": 10, "output_tokens": 5, "total_tokens": 99},
                     {"in_uncached": 10, "out_visible": 5}, "inconsistent", id="a total that nothing explains"),
        pytest.param({"input_tokens": 10, "output_tokens": 5, "cache_read__input_tokens": 60},
                     {"in_cache_read": 10, "out_visible": 5}, "inconsistent", id="more cache than input, from nobody we know"),
        pytest.param({"input_tokens": 10, "output_tokens": 5, "reasoning__output_tokens": 7},
                     {"in_uncached": 10, "out_reasoning": 5}, "inconsistent", id="more reasoning than output"),
        pytest.param({"input_tokens": 0, "output_tokens": 0}, {"in_uncached": 0, "out_visible": 0}, "ok", id="explicit zeros"),
        pytest.param({"output_tokens": 5}, {"out_visible": 5}, "ok", id="an input that nobody told"),
        pytest.param({"input_tokens": "12", "output_tokens": 5}, {"out_visible": 5}, "inconsistent", id="text is no count"),
    ],
)  # fmt: skip
def test_variants_of_a_span(usage: dict[str, Any], buckets: dict[str, int], consistency: str) -> None:
    found = span(**usage)
    assert (found.buckets, found.consistency) == (buckets, consistency)


@pytest.mark.parametrize("total", [None, 15])
@pytest.mark.parametrize("provider", ["anthropic", "bedrock"])
def test_more_cache_than_input_is_beside_it_where_the_provider_counts_so(
    provider: str, total: int | None
) -> None:
    usage = span(provider, input_tokens=10, output_tokens=5, cache_read__input_tokens=60, total_tokens=total)
    assert (usage.buckets, usage.consistency) == (
        {"in_uncached": 10, "in_cache_read": 60, "out_visible": 5},
        "repaired:provider_profile",
    )


def test_a_source_that_is_known_to_be_wrong_has_a_profile() -> None:
    beside = SpanProfile(cache_beside=True, reasoning_beside=True)
    counts: dict[str, Any] = {
        "input_tokens": 100,
        "output_tokens": 50,
        "cache_read__input_tokens": 60,
        "reasoning__output_tokens": 20,
    }
    usage = span(scope="acme.instrumentation", profile=beside, **counts)
    assert usage.buckets == {"in_uncached": 100, "in_cache_read": 60, "out_visible": 50, "out_reasoning": 20}
    assert usage.rules == ("provider_profile",)
    assert span(scope="acme.instrumentation", **counts).buckets == {
        "in_uncached": 40, "in_cache_read": 60, "out_visible": 30, "out_reasoning": 20,
    }  # fmt: skip


def test_numbers_go_before_a_profile() -> None:
    usage = span(
        scope="s", profile=SpanProfile(cache_beside=True), input_tokens=100, output_tokens=5, cache_read__input_tokens=60,
        total_tokens=105,
    )  # fmt: skip
    assert (usage.tokens_input, usage.rules) == (100, ())


@pytest.mark.parametrize(
    ("said", "slug"),
    [
        ("aws.bedrock", "bedrock"),
        ("gcp.vertex_ai", "google"),
        ("azure.ai.openai", "azure"),
        ("x_ai", "xai"),
        ("Acme", "acme"),
    ],
)
def test_the_provider_is_named_by_our_slug(said: str, slug: str) -> None:
    usage = otel_span(
        {**ATTRIBUTES, "gen_ai.provider.name": said, "openai.response.service_tier": "flex"}, provider="other"
    )
    assert (usage.provider, usage.service_tier) == (slug, "flex")


@pytest.mark.parametrize(
    "document", [{}, {"attributes": 7}, {"attributes": [7, {"key": 7}]}, {"gen_ai.system": "openai"}]
)
def test_a_span_without_counts_is_no_usage(document: dict[str, Any]) -> None:
    assert otel_span(document, provider="openai").source == "none"


NAMES = st.sampled_from(
    [*ATTRIBUTES, "attributes", "gen_ai.usage.total_tokens", "key", "value", "intValue", "scope", "name"]
)
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["12", *ATTRIBUTES])
)
DOCUMENTS = st.recursive(
    VALUES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=6),
    max_leaves=25,
)


@given(st.dictionaries(NAMES, DOCUMENTS))
def test_any_document_gives_a_usage_that_can_be_trusted(document: dict[str, Any]) -> None:
    usage = otel_span(document)
    assert all(type(count) is int and count >= 0 for count in usage.buckets.values())
    assert usage.source != "none" or (usage.buckets == {} and usage.tokens_total is None)


COUNTS = st.integers(0, 10**6)


@given(
    tokens_in=COUNTS,
    tokens_out=COUNTS,
    cached=COUNTS,
    written=COUNTS,
    reasoning=COUNTS,
    total=st.none() | COUNTS,
)
def test_the_buckets_of_a_side_are_its_headline_and_what_stands_beside_it(
    tokens_in: int, tokens_out: int, cached: int, written: int, reasoning: int, total: int | None
) -> None:
    usage = span(
        input_tokens=tokens_in, output_tokens=tokens_out, cache_read__input_tokens=cached,
        cache_creation__input_tokens=written, reasoning__output_tokens=reasoning, total_tokens=total,
    )  # fmt: skip
    assert usage.tokens_input == tokens_in + (cached + written if "cache_additive" in usage.rules else 0)
    assert usage.tokens_output == tokens_out + (reasoning if "reasoning_additive" in usage.rules else 0)


@given(st.binary())
def test_any_bytes_are_survived(text: bytes) -> None:
    assert wire_format("otel_span").read_body(text, RequestFacts(), "").source == "none"
