"""Several models in one answer: what each of them used, priced at its own model, and the sum of it."""

from collections.abc import Iterable, Mapping
from typing import Any

from metering.extract.counts import Counted, Counters, text_or_none
from metering.extract.shape_openai import read_openai
from pricing.usage import UsagePart, tokens_of

PART_UNREADABLE = "part_unreadable"  # what one of the models used is not known, so the headline holds
PARTS_DIFFER = "parts_differ_from_headline"


def summed(parts: Iterable[UsagePart]) -> dict[str, Any]:
    """All buckets of all parts."""
    total: dict[str, Any] = {}
    for part in parts:
        for bucket, quantity in part.buckets.items():
            total[bucket] = total.get(bucket, 0) + quantity
    return total


def counted_parts(counters: Counters, parts: Iterable[UsagePart]) -> Counted:
    """The parts that used something, and their sum, with what `counters` noted. A single part of the call's own model is none."""
    told = tuple(part for part in parts if part.buckets)
    counted = counters.counted(summed(told))
    if len(told) > 1 or any(part.model or part.provider for part in told):
        counted.parts = told
    return counted


def with_breakdown(
    counted: Counted, breakdown: Any, provider: str, usage: Mapping[str, Any]
) -> tuple[Counted, Mapping[str, Any]]:
    """Groq's compound systems: `{"models": [{"model", "usage"}]}`. The result, and the raw usage with the evidence beside it.

    Units that only the headline has are the compound system's own.
    """
    models = breakdown.get("models") if isinstance(breakdown, dict) else None
    if not isinstance(models, list) or not models:
        return counted, usage
    raw = {**usage, "usage_breakdown": breakdown}
    counters = Counters()
    counters.take(counted)
    parts: list[UsagePart] = []
    for item in models:
        part = _part_of(counters, item, provider)
        if part is None:
            counters.flaw(PART_UNREADABLE)
            return counters.counted(counted.buckets, counted.unknown_sides), raw
        parts.append(part)
    units = {name: count for name, count in counted.buckets.items() if not name.startswith(("in_", "out_"))}
    joined = counted_parts(counters, [*parts, UsagePart(units)])
    if counted.known and tokens_of(joined.buckets) != tokens_of(counted.buckets):
        counters.repair(PARTS_DIFFER)
        joined.rules, joined.consistency = counters.rules, counters.consistency
    return joined, raw


def _part_of(counters: Counters, item: Any, provider: str) -> UsagePart | None:
    if not isinstance(item, dict) or not isinstance(item.get("usage"), dict):
        return None
    model = text_or_none(item.get("model"))
    read = read_openai(item["usage"], provider, model or "")
    counters.take(read)
    return None if model is None or read.unknown_sides else UsagePart(read.buckets, model, kind="model")
