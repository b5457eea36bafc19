"""The consistency rules: which fires is told, arithmetic comes before profiles, and nothing is cut to fit in silence."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.extract.counts import COUNT_MAX, Counted
from metering.extract.profiles import INSIDE, profile_of
from metering.extract.shape_openai import read_openai, read_thoroughly


def chat(prompt: Any, completion: Any, total: Any = None, *, provider: str = "", model: str = "", cached: Any = None,
         written: Any = None, reasoning: Any = None, **more: Any) -> Counted:  # fmt: skip
    usage = {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "completion_tokens_details": {"reasoning_tokens": reasoning}, **more,
    }  # fmt: skip
    return read_openai(usage, provider, model)


def test_rule_1_a_total_of_both_headlines_means_that_all_details_are_inside() -> None:
    counted = chat(100, 50, 150, cached=60, written=30, reasoning=20)
    assert counted.buckets == {
        "in_uncached": 100 - 60 - 30, "in_cache_read": 60, "in_cache_write_unknown": 30,
        "out_visible": 50 - 20, "out_reasoning": 20,
    }  # fmt: skip
    assert (counted.consistency, counted.rules) == ("ok", ())


def test_rule_2_a_total_with_reasoning_on_top_means_that_it_stands_beside() -> None:
    counted = chat(100, 10, 100 + 10 + 50, cached=98, reasoning=50)
    assert counted.buckets == {"in_uncached": 2, "in_cache_read": 98, "out_visible": 10, "out_reasoning": 50}
    assert (counted.consistency, counted.rules) == ("repaired:reasoning_additive", ("reasoning_additive",))


def test_rule_3_a_total_with_the_cache_on_top_means_that_it_stands_beside() -> None:
    counted = chat(10, 20, 10 + 20 + 5000 + 300, cached=5000, written=300)
    assert counted.buckets == {
        "in_uncached": 10, "in_cache_read": 5000, "in_cache_write_unknown": 300, "out_visible": 20,
    }  # fmt: skip
    assert (counted.consistency, counted.rules) == ("repaired:cache_additive", ("cache_additive",))


def test_rule_3_holds_for_a_cache_that_would_fit_inside_as_well() -> None:
    counted = chat(500, 20, 500 + 20 + 300, cached=300)
    assert counted.buckets == {"in_uncached": 500, "in_cache_read": 300, "out_visible": 20}
    assert counted.rules == ("cache_additive",)


def test_cache_and_reasoning_may_both_stand_beside() -> None:
    counted = chat(10, 20, 10 + 20 + 400 + 70, cached=400, reasoning=70)
    assert counted.buckets == {
        "in_uncached": 10,
        "in_cache_read": 400,
        "out_visible": 20,
        "out_reasoning": 70,
    }
    assert counted.rules == ("cache_additive", "reasoning_additive")


def test_of_two_equal_numbers_the_one_that_does_not_fit_inside_stands_beside() -> None:
    counted = chat(10, 50, 10 + 50 + 40, cached=40, reasoning=40)
    assert counted.buckets == {"in_uncached": 10, "in_cache_read": 40, "out_visible": 10, "out_reasoning": 40}
    assert counted.rules == ("cache_additive",)


def test_rule_4_more_cached_than_sent_is_inconsistent_and_the_profile_decides() -> None:
    plain = chat(10, 5, 15, cached=12)
    assert plain.buckets == {"in_cache_read": 10, "out_visible": 5}
    assert (plain.consistency, plain.rules) == ("inconsistent", ("cache_exceeds_input",))
    portkey = chat(10, 5, 15, cached=12, provider="portkey", model="claude-sonnet-4-5")
    assert portkey.buckets == {"in_uncached": 10, "in_cache_read": 12, "out_visible": 5}
    assert (portkey.consistency, portkey.rules) == (
        "inconsistent",
        ("cache_exceeds_input", "provider_profile"),
    )


def test_reasoning_that_fits_nowhere_is_inconsistent() -> None:
    counted = chat(10, 5, 15, reasoning=9)
    assert counted.buckets == {"in_uncached": 10, "out_reasoning": 5}
    assert (counted.consistency, counted.rules) == ("inconsistent", ("reasoning_exceeds_output",))


@pytest.mark.parametrize("total", [14, 16, 999])
def test_a_total_that_nothing_explains_is_inconsistent_and_the_headlines_hold(total: int) -> None:
    counted = chat(10, 5, total, cached=3)
    assert counted.buckets == {"in_uncached": 7, "in_cache_read": 3, "out_visible": 5}
    assert (counted.consistency, counted.rules) == ("inconsistent", ("total_unexplained",))


@pytest.mark.parametrize("bad", [True, False, -1, float("nan"), float("inf"), 2**53 + 1, 1.5, "7", [], {}])
def test_rule_5_what_is_no_counter_is_refused_and_flagged(bad: Any) -> None:
    counted = chat(10, 5, 15, cached=bad)
    assert (counted.buckets, counted.consistency) == ({"in_uncached": 10, "out_visible": 5}, "inconsistent")
    assert counted.rules == ("field_refused",)


def test_rule_6_an_explicit_zero_is_zero_and_what_is_null_is_unknown() -> None:
    assert chat(0, 0, 0).buckets == {"in_uncached": 0, "out_visible": 0}
    assert chat(None, None, None).unknown_sides == ("input", "output")
    assert chat(None, 0, None).unknown_sides == ("input",)


# --- where arithmetic does not decide ---


def test_without_a_total_the_profile_decides() -> None:
    assert chat(10, 5, cached=4, reasoning=2).buckets == {
        "in_uncached": 6, "in_cache_read": 4, "out_visible": 3, "out_reasoning": 2,
    }  # fmt: skip
    grok = chat(10, 5, reasoning=20, provider="xai")
    assert grok.buckets == {"in_uncached": 10, "out_visible": 5, "out_reasoning": 20}
    assert (grok.consistency, grok.rules) == ("repaired:provider_profile", ("provider_profile",))


def test_the_total_comes_before_the_profile() -> None:
    assert chat(10, 50, 60, reasoning=20, provider="xai").rules == ()
    assert chat(10, 50, 60, cached=5, provider="portkey", model="claude-x").buckets["in_uncached"] == 5


def test_a_total_that_counts_only_the_headlines_proves_nothing() -> None:
    counted = chat(14, 500, 514, reasoning=90, provider="perplexity")
    assert counted.buckets == {"in_uncached": 14, "out_visible": 500, "out_reasoning": 90}
    assert (counted.consistency, counted.rules) == ("repaired:provider_profile", ("provider_profile",))


def test_thoughts_that_only_the_total_counts_are_reasoning_where_the_profile_says_so() -> None:
    for provider, model in (
        ("google", "gemini-2.5-pro"),
        ("portkey", "gemini-2.5-pro"),
        ("", "google/gemini-2.5-pro"),
    ):
        counted = chat(10, 5, 10 + 5 + 300, provider=provider, model=model)
        assert counted.buckets == {"in_uncached": 10, "out_visible": 5, "out_reasoning": 300}
        assert counted.rules == ("reasoning_from_total",)


def test_a_profile_is_found_by_gateway_and_by_the_family_of_the_model() -> None:
    claude = profile_of("portkey", "@anthropic/claude-sonnet-4-5", False)
    assert claude.cache_beside and not claude.reasoning_beside
    assert profile_of("portkey", "gemini-2.5-pro", False).reasoning_beside
    assert (
        profile_of("portkey", "us.anthropic.claude-sonnet-4-5-v1:0", False) == INSIDE
    )  # Bedrock is counted inside
    assert profile_of("litellm", "claude-sonnet-4-5", False) == INSIDE
    assert profile_of("openai", "gpt-5.6", False) == INSIDE


def test_in_the_responses_api_reasoning_is_inside_at_every_provider() -> None:
    for provider in ("xai", "perplexity", "google", "openai"):
        assert not profile_of(provider, "x", True).reasoning_beside
        counted = read_openai(
            {"input_tokens": 10, "output_tokens": 50, "output_tokens_details": {"reasoning_tokens": 20}},
            provider,
            "x",
        )
        assert counted.buckets == {"in_uncached": 10, "out_visible": 30, "out_reasoning": 20}


# --- what holds for all numbers ---

COUNTS = st.integers(0, 10**6)
SOMETHING = st.one_of(
    COUNTS, st.sampled_from([0, 1, 7, -1, True, False, 1.0, 1.5, "3", None, COUNT_MAX, COUNT_MAX + 1])
)
NAMES = [
    "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "prompt_tokens_details",
    "completion_tokens_details", "input_tokens_details", "output_tokens_details", "type", "cached_tokens",
]  # fmt: skip
DETAILS = st.dictionaries(
    st.sampled_from([
        "cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "text_tokens", "reasoning_tokens",
        "rejected_prediction_tokens", "accepted_prediction_tokens", "new_tokens",
    ]),
    SOMETHING,
    max_size=4,
)  # fmt: skip
PROVIDERS = st.sampled_from(["", "openai", "perplexity", "xai", "portkey", "google"])


@given(st.dictionaries(st.sampled_from(NAMES), st.one_of(SOMETHING, DETAILS, st.none())), PROVIDERS)
def test_the_short_cut_reads_what_the_long_way_reads(usage: dict[str, Any], provider: str) -> None:
    assert read_openai(usage, provider, "claude-x") == read_thoroughly(usage, provider, "claude-x")


@given(
    prompt=COUNTS,
    completion=COUNTS,
    cached=COUNTS,
    reasoning=COUNTS,
    responses=st.booleans(),
    provider=PROVIDERS,
)
def test_the_short_cut_is_taken_right(
    prompt: int, completion: int, cached: int, reasoning: int, responses: bool, provider: str
) -> None:
    a, b = ("input", "output") if responses else ("prompt", "completion")
    usage = {
        f"{a}_tokens": prompt, f"{b}_tokens": completion, "total_tokens": prompt + completion,
        f"{a}_tokens_details": {"cached_tokens": cached % (prompt + 1)},
        f"{b}_tokens_details": {"reasoning_tokens": reasoning % (completion + 1)},
    }  # fmt: skip
    assert read_openai(usage, provider) == read_thoroughly(usage, provider)


@given(prompt=COUNTS, completion=COUNTS, extra=COUNTS, cached=COUNTS, written=COUNTS, reasoning=COUNTS, citation=COUNTS,
       audio=COUNTS, provider=PROVIDERS)  # fmt: skip
def test_every_token_is_in_one_bucket_or_the_result_says_so(
    prompt: int, completion: int, extra: int, cached: int, written: int, reasoning: int, citation: int, audio: int,
    provider: str,
) -> None:  # fmt: skip
    usage = {
        "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion + extra,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": audio},
        "completion_tokens_details": {"reasoning_tokens": reasoning}, "citation_tokens": citation,
    }  # fmt: skip
    counted = read_openai(usage, provider)
    tokens_in = sum(count for name, count in counted.buckets.items() if name.startswith("in_"))
    tokens_out = sum(count for name, count in counted.buckets.items() if name.startswith("out_"))
    assert tokens_in in (prompt, prompt + cached + written)
    assert all(count >= 0 for count in counted.buckets.values())
    if counted.consistency != "inconsistent" and "provider_profile" not in counted.rules:
        assert tokens_in + tokens_out == prompt + completion + extra
    assert (counted.consistency == "ok") == (counted.rules == ())
