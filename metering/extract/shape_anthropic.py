"""The Anthropic usage object: cache reads and writes stand beside `input_tokens`, thinking inside `output_tokens`."""

from collections.abc import Mapping
from typing import Any

from metering.extract.counts import UNKNOWN_TTL, Counted, Counters, cache_write_bucket, put
from pricing.usage import UnknownSide

_SPLIT_PREFIX, _SPLIT_SUFFIX = "ephemeral_", "_input_tokens"


def read_anthropic(usage: Mapping[str, Any]) -> Counted:
    """Disjoint buckets of one Anthropic usage object.

    With `iterations` (compaction and the like, which the headline does not count) the sum over those of the answering
    model holds. Iterations of another model cannot be priced as this one: they stay in the raw usage and make the
    result `inconsistent`, so that they are seen.
    """
    iterations = usage.get("iterations")
    if isinstance(iterations, list) and len(iterations) > 1:
        return _sum_iterations(usage, iterations)
    return _read_one(usage)


def _read_one(usage: Mapping[str, Any]) -> Counted:
    counters = Counters()
    read = counters.read
    tokens_in = read(usage, "input_tokens")
    tokens_out = read(usage, "output_tokens")
    buckets: dict[str, int] = {}
    mark = "ok"
    unknown: tuple[UnknownSide, ...] = ()
    cached = read(usage, "cache_read_input_tokens")
    written = read(usage, "cache_creation_input_tokens")
    if tokens_in is None:
        unknown = ("input",)
    elif tokens_in or not (cached or written):
        buckets["in_uncached"] = tokens_in
    put(buckets, "in_cache_read", cached)
    if written or usage.get("cache_creation"):
        mark = _put_writes(buckets, counters, written, counters.group(usage, "cache_creation"))

    if tokens_out is None:
        unknown += ("output",)
    else:
        thinking = (
            read(counters.group(usage, "output_tokens_details"), "thinking_tokens", "reasoning_tokens") or 0
        )
        if thinking > tokens_out:
            thinking, mark = tokens_out, "inconsistent"
        if tokens_out > thinking or not tokens_out:
            buckets["out_visible"] = tokens_out - thinking
        put(buckets, "out_reasoning", thinking)
    put(buckets, "web_search", read(counters.group(usage, "server_tool_use"), "web_search_requests"))
    return Counted(buckets, "inconsistent" if counters.flawed else mark, unknown)


def _put_writes(
    buckets: dict[str, int], counters: Counters, written: int | None, split: Mapping[str, Any]
) -> str:
    """Cache writes by time to live. The headline is the sum of the split, so the split is priced and never both."""
    counts = {
        key[len(_SPLIT_PREFIX) : -len(_SPLIT_SUFFIX)]: counters.read(split, key) or 0
        for key in split
        if key.startswith(_SPLIT_PREFIX) and key.endswith(_SPLIT_SUFFIX)
    }
    for ttl, count in counts.items():
        put(buckets, cache_write_bucket(ttl), count)
    known = sum(counts.values())
    if written is None or written == known:
        return "ok"
    if not counts:
        put(buckets, "in_cache_write_5m", written)  # the default, and the cheaper one
        return "repaired:cache_split_missing"
    put(buckets, UNKNOWN_TTL, max(0, written - known))
    return "inconsistent"


def _sum_iterations(usage: Mapping[str, Any], iterations: list[Any]) -> Counted:
    """Adds the iterations of the answering model up; each is a sampling of its own, billed by itself."""
    buckets: dict[str, int] = {}
    mark = "repaired:iterations"
    unknown: set[UnknownSide] = set()
    for item in iterations:
        if not isinstance(item, dict) or item.get("model"):
            mark = "inconsistent"
            continue
        part = _read_one(item)
        if part.consistency != "ok":
            mark = part.consistency if mark != "inconsistent" else mark
        unknown.update(part.unknown_sides)
        for bucket, count in part.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
    searches = Counters()
    put(buckets, "web_search", searches.read(searches.group(usage, "server_tool_use"), "web_search_requests"))
    sides = tuple(side for side in ("input", "output") if side in unknown)
    return Counted(buckets, "inconsistent" if searches.flawed else mark, sides)
