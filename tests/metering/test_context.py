"""What a price depends on is kept with the event, and read back as the same usage."""

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import msgspec

from metering.clean import clean_document
from metering.context import context_of, usage_of
from pricing.usage import Usage, UsagePart


def stored(usage: Usage) -> Any:
    """The columns of the event of `usage`, as they come back from a database."""
    documents = {"buckets": usage.buckets, "context": context_of(usage)}
    return SimpleNamespace(
        provider=usage.provider, model=usage.model, model_requested=usage.model_requested or "", usage_source=usage.source,
        consistency=usage.consistency, extractor=usage.extractor, tokens_input=usage.tokens_input,
        tokens_output=usage.tokens_output,
        **{name: msgspec.json.decode(clean_document(value)[0]) for name, value in documents.items()},
    )  # fmt: skip


def test_the_ordinary_case_is_an_empty_document() -> None:
    assert context_of(Usage(buckets={"in_uncached": 3}, provider="openai", model_served="m")) == {}


def test_everything_a_price_depends_on_comes_back() -> None:
    usage = Usage(
        buckets={"in_uncached": 12, "out_visible": 3}, provider="anthropic", model_requested="a", model_served="b",
        parts=(UsagePart({"in_uncached": 10, "out_visible": 2}, kind="message"), UsagePart({"in_uncached": 2, "out_visible": 1}, "c", "other", "advisor_message")),
        service_tier="priority", speed="fast", region="us", batch=True, byok=True, consistency="repaired:cache_additive",
        rules=("cache_additive", "split_missing"), extractor="x/1", reported_cost=Decimal("0.00095"),
    )  # fmt: skip
    assert usage_of(stored(usage)) == usage


def test_a_fraction_of_a_second_comes_back_exactly() -> None:
    usage = Usage(
        buckets={"audio_second": Decimal("12.30000000000000001"), "in_uncached": 0}, model_served="m"
    )
    assert usage_of(stored(usage)) == usage


def test_an_unknown_side_stays_unknown() -> None:
    usage = Usage(
        buckets={"out_visible": 3}, model_served="m", source="reported_partial", unknown_sides=("input",)
    )
    assert usage_of(stored(usage)) == usage


def test_what_was_mended_when_it_was_stored_is_no_count() -> None:
    event = stored(Usage(buckets={}, model_served="m"))
    event.buckets = {
        "truncated": True,
        "bytes": "70000",
        "in_uncached": 4,
        "audio_second": "NaN",
        "page": "x",
    }
    assert usage_of(event).buckets == {"in_uncached": 4}
