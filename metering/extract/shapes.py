"""Which shape a usage object has, told by its field names, and how each shape becomes disjoint buckets."""

from collections.abc import Callable, Mapping
from typing import Any

from metering.extract.counts import Counted, Counters, put
from metering.extract.shape_anthropic import read_anthropic
from metering.extract.shape_gemini import read_gemini
from metering.extract.shape_openai import read_openai

_ANTHROPIC_ONLY = frozenset(
    {
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "cache_creation",
        "server_tool_use",
        "iterations",
    }
)


def read_usage(usage: Mapping[str, Any], provider: str = "", model: str = "") -> Counted:
    """Disjoint buckets of a usage object of any known shape; see `read_openai` for what provider and model are for."""
    read = _reader(usage)
    return read_openai(usage, provider, model) if read is read_openai else read(usage)


def _reader(usage: Mapping[str, Any]) -> Callable[[Mapping[str, Any]], Counted]:
    if "prompt_tokens" in usage or "completion_tokens" in usage or "total_tokens" in usage:
        return read_openai
    if "input_tokens" in usage or "output_tokens" in usage:
        # Without cache and thinking both readers agree; with them only Anthropic counts the cache beside the input.
        return (
            read_openai
            if not _ANTHROPIC_ONLY.intersection(usage) and not _has_thinking(usage)
            else read_anthropic
        )
    if "promptTokenCount" in usage or "totalTokenCount" in usage or "candidatesTokenCount" in usage:
        return read_gemini
    if "inputTokens" in usage or "outputTokens" in usage:
        return _read_bedrock
    if "billed_units" in usage:
        return _read_cohere
    if "tokens_input" in usage or "tokens_output" in usage:
        return _read_own
    return read_openai


def _has_thinking(usage: Mapping[str, Any]) -> bool:
    details = usage.get("output_tokens_details")
    return isinstance(details, dict) and "thinking_tokens" in details


def _read_bedrock(usage: Mapping[str, Any]) -> Counted:
    """Bedrock Converse counts as Anthropic does, under other names and with the split as a list."""
    split = {}
    details = usage.get("cacheDetails")
    for item in details if isinstance(details, list) else ():
        if isinstance(item, dict) and isinstance(item.get("ttl"), str):
            split[f"ephemeral_{item['ttl']}_input_tokens"] = item.get("inputTokens")
    return read_anthropic(
        {
            "input_tokens": usage.get("inputTokens"),
            "output_tokens": usage.get("outputTokens"),
            "cache_read_input_tokens": usage.get("cacheReadInputTokens"),
            "cache_creation_input_tokens": usage.get("cacheWriteInputTokens"),
            "cache_creation": split or None,
        }
    )


def _read_cohere(usage: Mapping[str, Any]) -> Counted:
    """What Cohere bills differs from what it counts; `billed_units` is what it bills."""
    counters = Counters()
    billed = counters.group(usage, "billed_units")
    counted = read_openai({key: billed.get(key) for key in ("input_tokens", "output_tokens")})
    put(counted.buckets, "search_unit", counters.read(billed, "search_units"))
    if counters.flawed:
        counted.consistency = "inconsistent"
    return counted


def _read_own(usage: Mapping[str, Any]) -> Counted:
    return read_openai(
        {"prompt_tokens": usage.get("tokens_input"), "completion_tokens": usage.get("tokens_output")}
    )
