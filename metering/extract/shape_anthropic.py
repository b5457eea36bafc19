"""The Anthropic usage object: cache reads and writes stand beside `input_tokens`, thinking inside `output_tokens`."""

from collections.abc import Mapping
from typing import Any

from metering.extract.counts import (
    COUNT_MAX,
    UNKNOWN_TTL,
    Counted,
    Counters,
    cache_write_bucket,
    put,
    text_or_none,
)
from metering.extract.parts import counted_parts
from pricing.usage import UnknownSide, UsagePart

_SPLIT_PREFIX, _SPLIT_SUFFIX = "ephemeral_", "_input_tokens"
_HEADLINE = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
_ITERATIONS = frozenset({"message", "compaction", "advisor_message", "fallback_message"})
# Where an object has nothing but these, nothing else needs to be looked for.
_ORDINARY = frozenset(
    {*_HEADLINE, "cache_creation", "server_tool_use", "service_tier", "inference_geo", "speed"}
)
_WRITES = {"ephemeral_5m_input_tokens": "in_cache_write_5m", "ephemeral_1h_input_tokens": "in_cache_write_1h"}
_KIND_MAX = 64  # characters of an iteration's type that are kept


def read_anthropic(usage: Mapping[str, Any]) -> Counted:
    """Disjoint buckets of one Anthropic usage object.

    With `iterations` (an advisor, a fallback, compaction) each becomes a part at its own model, and the headline, which
    does not count them all, is left aside.
    """
    iterations = usage.get("iterations")
    if isinstance(iterations, list) and iterations and not _says_the_same(usage, iterations):
        return _read_iterations(usage, iterations)
    counters = Counters()
    buckets, unknown = _read_tokens(usage, counters)
    put(buckets, "web_search", _searches(usage, counters))
    return counters.counted(buckets, unknown)


def ordinary_buckets(usage: Mapping[str, Any]) -> dict[str, Any] | None:
    """The buckets that `read_anthropic` gives for nearly every answer, in a fraction of the time; None for all others.

    Ordinary is: both sides are there, cache writes are split by the known times to live and add up, no tool ran, no tokens
    are told to be thinking. So there is nothing to note, either.
    """
    if not usage.keys() <= _ORDINARY:
        return None
    get = usage.get
    tokens_in, tokens_out = get("input_tokens"), get("output_tokens")
    cached, written = get("cache_read_input_tokens", 0), get("cache_creation_input_tokens", 0)
    if not (type(tokens_in) is type(tokens_out) is type(cached) is type(written) is int):
        return None
    if tokens_in < 0 or tokens_out < 0 or cached < 0 or tokens_in + tokens_out + cached + written > COUNT_MAX:
        return None
    tools, split = get("server_tool_use"), get("cache_creation")
    if tools is not None and (type(tools) is not dict or not _is_zero(tools.get("web_search_requests", 0))):
        return None
    buckets: dict[str, Any] = {}
    if tokens_in or not (cached or written):
        buckets["in_uncached"] = tokens_in
    if cached:
        buckets["in_cache_read"] = cached
    if (written or split is not None) and not _put_plain_writes(buckets, written, split):
        return None
    buckets["out_visible"] = tokens_out
    return buckets


def _is_zero(count: Any) -> bool:
    """Whether it is a count, and says that there was nothing: an empty list, say, is no count."""
    return type(count) is int and count == 0


def _put_plain_writes(buckets: dict[str, Any], written: int, split: Any) -> bool:
    """Enters cache writes whose split holds known times to live and adds up; False where it does not."""
    if type(split) is not dict or not split.keys() <= _WRITES.keys():
        return False
    left = written
    for key, count in split.items():
        if type(count) is not int or count < 0:
            return False
        if count:
            buckets[_WRITES[key]] = count
            left -= count
    return left == 0


def _says_the_same(usage: Mapping[str, Any], iterations: list[Any]) -> bool:
    """Whether there was just one iteration, of the answering model, that the headline counts in full."""
    if len(iterations) > 1 or not isinstance(iterations[0], dict):
        return False
    only = iterations[0]
    return (
        only.get("type") == "message"
        and not only.get("model")
        and all((only.get(key) or 0) == (usage.get(key) or 0) for key in _HEADLINE)
    )


def _read_tokens(
    usage: Mapping[str, Any], counters: Counters
) -> tuple[dict[str, int], tuple[UnknownSide, ...]]:
    """The token buckets of a headline or an iteration, and the sides it does not tell."""
    read = counters.read
    tokens_in = read(usage, "input_tokens")
    tokens_out = read(usage, "output_tokens")
    cached = read(usage, "cache_read_input_tokens")
    written = read(usage, "cache_creation_input_tokens")
    buckets: dict[str, int] = {}
    unknown: tuple[UnknownSide, ...] = ()
    if tokens_in is None:
        unknown = ("input",)
    elif tokens_in or not (cached or written):
        buckets["in_uncached"] = tokens_in
    put(buckets, "in_cache_read", cached)
    if written or usage.get("cache_creation"):
        put_writes(buckets, counters, written, _by_ttl(counters, usage))
    if tokens_out is None:
        return buckets, (*unknown, "output")
    details = counters.group(usage, "output_tokens_details")
    thinking = read(details, "thinking_tokens", "reasoning_tokens") or 0
    if thinking > tokens_out:
        thinking = tokens_out
        counters.flaw("reasoning_exceeds_output")
    if tokens_out > thinking or not tokens_out:
        buckets["out_visible"] = tokens_out - thinking
    put(buckets, "out_reasoning", thinking)
    return buckets, unknown


def _searches(usage: Mapping[str, Any], counters: Counters) -> int | None:
    """Web searches, which are billed by number. Fetches are counted there as well, and cost nothing but their tokens."""
    return counters.read(counters.group(usage, "server_tool_use"), "web_search_requests")


def _by_ttl(counters: Counters, usage: Mapping[str, Any]) -> dict[str, int]:
    """Cache writes by time to live."""
    split = counters.group(usage, "cache_creation")
    return {
        key[len(_SPLIT_PREFIX) : -len(_SPLIT_SUFFIX)]: counters.read(split, key) or 0
        for key in split
        if key.startswith(_SPLIT_PREFIX) and key.endswith(_SPLIT_SUFFIX)
    }


def put_writes(
    buckets: dict[str, int], counters: Counters, written: int | None, by_ttl: Mapping[str, int]
) -> None:
    """Enters cache writes. The headline is the sum of the split, so the split is priced and never both."""
    for ttl, count in by_ttl.items():
        put(buckets, cache_write_bucket(ttl), count)
    known = sum(by_ttl.values())
    if written is None or written == known:
        return
    if not by_ttl:
        put(buckets, "in_cache_write_5m", written)  # the default, and the cheaper one
        counters.repair("cache_split_missing")
        return
    put(buckets, UNKNOWN_TTL, max(0, written - known))
    counters.flaw("cache_split_mismatch")


def _read_iterations(usage: Mapping[str, Any], iterations: list[Any]) -> Counted:
    """Each iteration as a part: a sampling of its own, billed by itself at the model that did it.

    Who does not name a model is the answering one. That is a guess where a fallback answered: what was tried before it may
    have been the model asked for, or an earlier turn of the fallback.
    """
    counters = Counters()
    counters.repair("iterations")
    parts: list[UsagePart] = []
    unknown: set[UnknownSide] = set()
    fell_back = any(isinstance(item, dict) and item.get("type") == "fallback_message" for item in iterations)
    for item in iterations:
        if not isinstance(item, dict):
            counters.flaw("iteration_unreadable")
            continue
        kind, model = text_or_none(item.get("type")) or "", text_or_none(item.get("model")) or ""
        if kind not in _ITERATIONS:
            counters.flaw("iteration_unknown")
        if fell_back and not model:
            counters.repair("iteration_model_assumed")
        buckets, sides = _read_tokens(item, counters)
        parts.append(UsagePart(buckets, model=model, kind=kind[:_KIND_MAX]))
        unknown.update(sides)
    searches = _searches(usage, counters)
    if searches:
        parts.append(UsagePart({"web_search": searches}, kind="server_tool_use"))
    counted = counted_parts(counters, parts)
    counted.unknown_sides = tuple(side for side in ("input", "output") if side in unknown)
    return counted
