"""The OpenAI usage object and its many relatives: headline counters that hold their own details.

Chat (`prompt_tokens`), Responses (`input_tokens`), embeddings (no output) and what other providers and gateways made of
them: cached tokens beside the input instead of inside, reasoning beside the output. The total decides which it is.
"""

from collections.abc import Mapping
from typing import Any

from metering.extract.counts import UNKNOWN_TTL, Counted, Counters, cache_write_bucket, put, split_modalities
from pricing.usage import UnknownSide

_INPUT_MODALITIES = {"audio_tokens": "audio", "image_tokens": "image", "video_tokens": "video"}
_OUTPUT_MODALITIES = {"audio_tokens": "audio", "image_tokens": "image"}
_NO_PARTS: dict[str, int] = {}


def read_openai(usage: Mapping[str, Any]) -> Counted:
    """Disjoint buckets of one OpenAI-like usage object."""
    counters = Counters()
    read = counters.read
    tokens_in = read(usage, "prompt_tokens", "input_tokens")
    tokens_out = read(usage, "completion_tokens", "output_tokens")
    total = read(usage, "total_tokens")
    unknown: tuple[UnknownSide, ...] = ()
    derived = None
    if tokens_in is None or tokens_out is None:
        tokens_in, tokens_out, derived, unknown = _complete(tokens_in, tokens_out, total)

    details = counters.group(usage, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    cached = read(details, "cached_tokens")
    if cached is None:
        cached = read(usage, "prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens") or 0
    written = read(details, "cache_write_tokens", "cache_creation_tokens")
    if written is None:
        written = read(usage, "cache_creation_input_tokens") or 0
    details_out = counters.group(
        usage, "completion_tokens_details", "output_tokens_details", "output_token_details"
    )
    reasoning = read(details_out, "reasoning_tokens")
    if reasoning is None:
        reasoning = read(usage, "reasoning_tokens") or 0

    cache_beside, reasoning_beside, consistency = _relation(
        tokens_in, tokens_out, total, cached + written, reasoning
    )
    buckets: dict[str, int] = {}
    if tokens_in is not None:
        whole = tokens_in + cached + written if cache_beside else tokens_in
        consistency = _put_input(buckets, counters, whole, cached, written, details) or consistency
    if tokens_out is not None:
        whole = tokens_out + reasoning if reasoning_beside else tokens_out
        consistency = _put_output(buckets, counters, whole, reasoning, details_out) or consistency
    if counters.flawed:
        consistency = "inconsistent"
    return Counted(buckets, derived if derived and consistency == "ok" else consistency, unknown)


def _complete(
    tokens_in: int | None, tokens_out: int | None, total: int | None
) -> tuple[int | None, int | None, str | None, tuple[UnknownSide, ...]]:
    """Both sides as far as the total tells them, the rule that was used, and the sides that stay unknown.

    Embeddings have no output counter and a total equal to the input: that is an output of nothing, not an unknown one.
    """
    if tokens_in is None and tokens_out is None:
        return None, None, None, ("input", "output")
    if tokens_out is None:
        if total is None or tokens_in is None or total < tokens_in:
            return tokens_in, None, "inconsistent", ("output",)
        return tokens_in, total - tokens_in, "repaired:output_from_total" if total > tokens_in else None, ()
    if total is None or total < tokens_out:
        return None, tokens_out, "inconsistent", ("input",)
    return total - tokens_out, tokens_out, "repaired:input_from_total", ()


def _relation(
    tokens_in: int | None, tokens_out: int | None, total: int | None, cache: int, reasoning: int
) -> tuple[bool, bool, str]:
    """Whether the cache stands beside the input, whether reasoning stands beside the output, and how sure that is.

    Tried in this order: everything inside; reasoning beside; cache beside. Without a total everything is inside.
    """
    if tokens_in is None or tokens_out is None:
        return False, False, "ok"
    cache_fits = cache <= tokens_in
    if total is None or total == tokens_in + tokens_out:
        return False, False, "ok" if cache_fits and reasoning <= tokens_out else "inconsistent"
    if total == tokens_in + tokens_out + reasoning:
        return False, True, "repaired:reasoning_additive" if cache_fits else "inconsistent"
    if not cache_fits and total == tokens_in + tokens_out + cache:
        return True, False, "repaired:cache_additive" if reasoning <= tokens_out else "inconsistent"
    return False, False, "inconsistent"


def _put_input(
    buckets: dict[str, int],
    counters: Counters,
    whole: int,
    cached: int,
    written: int,
    details: Mapping[str, Any],
) -> str | None:
    """Splits the input. The headline holds: a cache that exceeds it is cut to fit, and `_relation` has said so."""
    cached = min(cached, whole)
    written = min(written, whole - cached)
    mark = _put_writes(buckets, counters, written, details) if written else None
    rest = whole - written
    parts = _modalities(counters, details, _INPUT_MODALITIES, rest)
    if parts is None:
        mark, parts = "inconsistent", _NO_PARTS
    if parts:
        split_modalities(buckets, "in_uncached", rest, "in_cache_read", cached, parts)
        if cached:
            mark = mark or "repaired:cache_taken_as_text"
        return mark
    if rest > cached or not whole:
        buckets["in_uncached"] = rest - cached
    if cached:
        buckets["in_cache_read"] = cached
    return mark


def _put_writes(
    buckets: dict[str, int], counters: Counters, written: int, details: Mapping[str, Any]
) -> str | None:
    """Cache writes by time to live (`ttl_30m_tokens`), as far as they are split; the rest has an unknown one."""
    left = written
    for key in counters.group(details, "cache_write_tokens_details"):
        if key.startswith("ttl_") and key.endswith("_tokens"):
            count = counters.read(details["cache_write_tokens_details"], key) or 0
            if count > left:
                put(buckets, UNKNOWN_TTL, left)
                return "inconsistent"
            put(buckets, cache_write_bucket(key[4:-7]), count)
            left -= count
    put(buckets, UNKNOWN_TTL, left)
    return None


def _put_output(
    buckets: dict[str, int], counters: Counters, whole: int, reasoning: int, details: Mapping[str, Any]
) -> str | None:
    """Splits the output; rejected prediction tokens are paid like visible ones and stay among them."""
    reasoning = min(reasoning, whole)
    parts = _modalities(counters, details, _OUTPUT_MODALITIES, whole - reasoning)
    mark = None
    if parts is None:
        mark, parts = "inconsistent", _NO_PARTS
    visible = whole - reasoning - sum(parts.values())
    if visible or not whole:
        buckets["out_visible"] = visible
    if reasoning:
        buckets["out_reasoning"] = reasoning
    for modality, count in parts.items():
        put(buckets, f"out_visible.{modality}", count)
    return mark


def _modalities(
    counters: Counters, details: Mapping[str, Any], names: Mapping[str, str], limit: int
) -> Mapping[str, int] | None:
    """Tokens that are no text, by modality; None when they do not fit into the side they belong to."""
    if not details:
        return _NO_PARTS
    parts: dict[str, int] | None = None
    for key, modality in names.items():
        if details.get(key):
            count = counters.read(details, key)
            if count:
                parts = parts or {}
                parts[modality] = count
    if parts is None:
        return _NO_PARTS
    return parts if sum(parts.values()) <= limit else None
