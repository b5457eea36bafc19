"""Usage says what is known, and what is not."""

import pytest

from pricing.usage import Usage


def test_each_side_is_the_sum_of_its_buckets() -> None:
    usage = Usage(
        buckets={
            "in_uncached": 48,
            "in_cache_read": 1024,
            "out_visible.audio": 7,
            "out_reasoning": 5,
            "web_search": 2,
        }
    )
    assert (usage.tokens_input, usage.tokens_output, usage.tokens_total) == (
        48 + 1024,
        7 + 5,
        48 + 1024 + 7 + 5,
    )


def test_an_explicit_zero_is_zero() -> None:
    usage = Usage(buckets={"in_uncached": 0, "out_visible": 0})
    assert (usage.tokens_input, usage.tokens_output, usage.tokens_total) == (0, 0, 0)


def test_without_a_report_nothing_is_known() -> None:
    usage = Usage(buckets={}, source="none")
    assert (usage.tokens_input, usage.tokens_output, usage.tokens_total) == (None, None, None)


def test_an_unknown_side_makes_the_total_unknown() -> None:
    usage = Usage(buckets={"in_uncached": 9}, source="reported_partial", unknown_sides=("output",))
    assert (usage.tokens_input, usage.tokens_output, usage.tokens_total) == (9, None, None)


@pytest.mark.parametrize(
    ("served", "requested", "model"),
    [
        ("gpt-5.4-2026-03-05", "gpt-5.4", "gpt-5.4-2026-03-05"),
        (None, "gpt-5.4", "gpt-5.4"),
        ("", "gpt-5.4", "gpt-5.4"),
        (None, None, ""),
    ],
)
def test_the_model_that_served_is_the_one_billed(
    served: str | None, requested: str | None, model: str
) -> None:
    assert Usage(buckets={}, model_served=served, model_requested=requested).model == model
