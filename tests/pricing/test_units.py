"""Every bucket knows its side, and the rates that may price it."""

import pytest

from pricing.units import (
    TOKEN_BUCKETS,
    UNITS,
    is_billable,
    is_input,
    is_output,
    is_token,
    rate_candidates,
    side_of,
)


def test_every_token_bucket_is_on_exactly_one_side() -> None:
    assert all(is_input(bucket) != is_output(bucket) for bucket in TOKEN_BUCKETS)
    assert all(is_token(bucket) for bucket in TOKEN_BUCKETS)


def test_units_are_on_neither_side() -> None:
    assert {side_of(unit) for unit in UNITS} == {"other"}


@pytest.mark.parametrize(
    ("bucket", "candidates"),
    [
        ("in_uncached", ("in_uncached",)),
        ("in_cache_read", ("in_cache_read", "in_uncached")),
        ("in_tool_prompt", ("in_tool_prompt", "in_uncached")),
        ("in_cache_write_unknown", ("in_cache_write_unknown", "in_cache_write_5m", "in_uncached")),
        (
            "in_cache_write_1h",
            ("in_cache_write_1h", "in_cache_write_unknown", "in_cache_write_5m", "in_uncached"),
        ),
        (
            "in_cache_write_3d",
            ("in_cache_write_3d", "in_cache_write_unknown", "in_cache_write_5m", "in_uncached"),
        ),
        ("out_reasoning", ("out_reasoning", "out_visible")),
        ("out_visible.image", ("out_visible.image", "out_visible")),
        ("in_cache_read.image", ("in_cache_read.image", "in_uncached.image", "in_cache_read", "in_uncached")),
        ("in_cache_read.audio", ("in_cache_read.audio", "in_uncached.audio")),
        ("out_visible.audio", ("out_visible.audio",)),
        ("web_search", ("web_search",)),
    ],
)
def test_a_bucket_falls_back_along_its_chain(bucket: str, candidates: tuple[str, ...]) -> None:
    assert rate_candidates(bucket) == candidates


@pytest.mark.parametrize("bucket", [name for name in TOKEN_BUCKETS if name.endswith(".audio")])
def test_audio_is_never_priced_as_text(bucket: str) -> None:
    assert all(name.endswith(".audio") for name in rate_candidates(bucket))


@pytest.mark.parametrize("name", ["in_uncached", "in_cache_write_3d", "out_visible.video", "page"])
def test_a_rate_can_be_written_for(name: str) -> None:
    assert is_billable(name)


@pytest.mark.parametrize("name", ["", "tokens", "in_cache_write_", "in_uncached.smell", "page.audio"])
def test_no_rate_can_be_written_for(name: str) -> None:
    assert not is_billable(name)
