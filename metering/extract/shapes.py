"""Which shape a usage object has, told by its field names, and how each shape becomes disjoint buckets."""

from collections.abc import Callable, Mapping
from typing import Any

from metering.extract.counts import Counted
from metering.extract.shape_anthropic import read_anthropic
from metering.extract.shape_bedrock import read_converse
from metering.extract.shape_cohere import read_cohere
from metering.extract.shape_gemini import read_gemini
from metering.extract.shape_interactions import read_interactions
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
    if "prompt_tokens" in usage or "completion_tokens" in usage:
        return read_openai
    if "total_input_tokens" in usage or "total_output_tokens" in usage:
        return read_interactions
    if "total_tokens" in usage:
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
        return read_converse
    if "billed_units" in usage:
        return read_cohere
    if "tokens_input" in usage or "tokens_output" in usage:
        return _read_own
    return read_openai


def _has_thinking(usage: Mapping[str, Any]) -> bool:
    details = usage.get("output_tokens_details")
    return isinstance(details, dict) and "thinking_tokens" in details


def _read_own(usage: Mapping[str, Any]) -> Counted:
    return read_openai(
        {"prompt_tokens": usage.get("tokens_input"), "completion_tokens": usage.get("tokens_output")}
    )
