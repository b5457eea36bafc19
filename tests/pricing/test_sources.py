"""What other people's catalogues say, in our units; and what is left out of them, with its reason."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from pricing.conditions import Conditions
from pricing.sources import Line, SourceCatalogue, SourceUnreadable
from pricing.sources.genai_catalogue import read_genai_catalogue
from pricing.sources.litellm_map import read_litellm_map

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def line(model: str, bucket: str, provider: str = "openai", **conditions: Any) -> Line:
    return Line(provider, model, bucket, Conditions(**conditions))


@pytest.fixture(scope="module")
def genai() -> SourceCatalogue:
    return read_genai_catalogue(NOW)


def read(tmp_path: Path, entries: Any) -> SourceCatalogue:
    path = tmp_path / "map.json"
    path.write_text(entries if isinstance(entries, str) else json.dumps(entries))
    return read_litellm_map(str(path))


def entry(provider: str = "openai", **fields: Any) -> dict[str, Any]:
    return {"litellm_provider": provider, "mode": "chat", **fields}


# genai-prices


def test_the_shipped_catalogue_is_read_whole(genai: SourceCatalogue) -> None:
    assert len(genai.models) > 2_000
    assert len(genai.prices) > 5_000
    assert {line.provider for line in genai.prices} >= {"openai", "anthropic", "google", "bedrock", "xai"}


def test_prices_are_per_million_tokens_and_per_thousand_units(genai: SourceCatalogue) -> None:
    sonnet = {
        bucket: genai.prices[line("claude-sonnet-4-5", bucket, "anthropic")]
        for bucket in ("in_uncached", "out_visible", "web_search")
    }
    assert [(found.price, found.per) for found in sonnet.values()] == [
        (3, 1_000_000),
        (15, 1_000_000),
        (10, 1_000),
    ]


def test_a_long_context_is_a_line_of_its_own(genai: SourceCatalogue) -> None:
    base, above = (
        line("gemini-2.5-pro", "in_uncached", "google"),
        line("gemini-2.5-pro", "in_uncached", "google", input_above=200_000),
    )
    assert (genai.prices[base].price, genai.prices[above].price) == (Decimal("1.25"), Decimal("2.5"))


def test_batches_and_tiers_are_conditions(genai: SourceCatalogue) -> None:
    assert any(found.conditions.batch for found in genai.prices)
    assert {found.conditions.service_tier for found in genai.prices} >= {"", "flex", "priority"}


def test_the_price_is_that_of_the_instant() -> None:
    o3 = line("o3", "in_uncached")
    before, after = (
        read_genai_catalogue(datetime(2025, month, 1, tzinfo=UTC)).prices[o3].price for month in (5, 12)
    )
    assert (before, after) == (10, 2)


def test_a_window_of_the_day_is_a_condition(genai: SourceCatalogue) -> None:
    windows = [found for found in genai.prices if found.conditions.time_from is not None]
    assert windows
    assert all(found.conditions.time_zone == "UTC" for found in windows)


def test_an_hourly_price_that_has_no_end_by_the_second_is_left_out_and_said(genai: SourceCatalogue) -> None:
    assert any(problem.startswith("groq/whisper-large-v3: audio_second") for problem in genai.problems)


# A price map in LiteLLM's form


def test_a_price_per_token_is_read_from_its_text(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        '{"gpt-x": {"litellm_provider": "openai", "input_cost_per_token": 1.1e-07, "output_cost_per_token": 0.00000044}}',
    )
    # as floats these are 0.10999999999999999… and 0.44000000000000000…
    assert {name: price.price for name, price in found.prices.items()} == {
        line("gpt-x", "in_uncached"): Decimal("0.11"),
        line("gpt-x", "out_visible"): Decimal("0.44"),
    }


def test_the_endings_of_its_keys_are_conditions(tmp_path: Path) -> None:
    found = read(tmp_path, {"gpt-x": entry(
        input_cost_per_token=0.000002, input_cost_per_token_batches=0.000001, input_cost_per_token_priority=0.000004,
        input_cost_per_token_above_200k_tokens=0.000003, input_cost_per_token_above_272k_tokens_priority=0.000006,
        cache_creation_input_token_cost_above_1hr=0.000005,
    )})  # fmt: skip
    assert {name: price.price for name, price in found.prices.items()} == {
        line("gpt-x", "in_uncached"): 2,
        line("gpt-x", "in_uncached", batch=True): 1,
        line("gpt-x", "in_uncached", service_tier="priority"): 4,
        line("gpt-x", "in_uncached", input_above=200_000): 3,
        line("gpt-x", "in_uncached", input_above=272_000, service_tier="priority"): 6,
        line("gpt-x", "in_cache_write_1h"): 5,
    }


def test_a_region_in_front_of_a_name_is_another_price_and_left_out(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        {
            "azure/eu/gpt-x": entry("azure", input_cost_per_token=1),
            "azure/gpt-x": entry("azure", input_cost_per_token=0.000001),
        },
    )
    assert set(found.prices) == {line("gpt-x", "in_uncached", "azure")}


@pytest.mark.parametrize(
    "price", [-0.000001, True, "0.000001", [1], {"a": 1}, 1e30, 10**40, float("nan"), float("inf")]
)
def test_what_is_no_price_is_left_out_and_said(tmp_path: Path, price: Any) -> None:
    found = read(tmp_path, {"gpt-x": entry(input_cost_per_token=price, output_cost_per_token=0.000001)})
    assert set(found.prices) == {line("gpt-x", "out_visible")}
    assert [problem.split(":")[0] for problem in found.problems] == ["openai/gpt-x"]


def test_two_prices_for_one_line_are_none(tmp_path: Path) -> None:
    found = read(tmp_path, {
        "gemini/g": entry("gemini", input_cost_per_token=0.000001), "g": entry("gemini", input_cost_per_token=0.000002),
    })  # fmt: skip
    assert found.prices == {}
    assert found.problems == ("google/g: in_uncached has two prices",)


@pytest.mark.parametrize("name", ["x" * 500, "bad\nname", "nul\0", "", "ｗ\u202eevil"])
def test_a_name_that_is_none_is_left_out(tmp_path: Path, name: str) -> None:
    assert read(tmp_path, {name: entry(input_cost_per_token=0.000001), "ok": entry()}).prices == {}


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "7", "{", "[" * 100_000, '{"a": 1', "\ufeff{}", "<html>"]
)
def test_what_is_no_map_cannot_be_read(tmp_path: Path, text: str) -> None:
    with pytest.raises(SourceUnreadable):
        read(tmp_path, text)


def test_a_file_that_is_not_there_and_a_plain_http_address_cannot_be_read(tmp_path: Path) -> None:
    for where in (str(tmp_path / "none.json"), str(tmp_path), "http://prices.invalid/map.json"):
        with pytest.raises(SourceUnreadable):
            read_litellm_map(where)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["litellm_provider", "input_cost_per_token", "x", "gpt"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(JSON)
def test_any_json_is_survived(tmp_path_factory: pytest.TempPathFactory, document: Any) -> None:
    path = tmp_path_factory.mktemp("map") / "map.json"
    path.write_text(json.dumps(document))
    try:
        found = read_litellm_map(str(path))
    except SourceUnreadable:
        return
    assert all(price.price.is_finite() and price.price >= 0 for price in found.prices.values())
