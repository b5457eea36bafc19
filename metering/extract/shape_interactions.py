"""The usage object of Google's Interactions API: Gemini's counters under other names, and its tools by number."""

from collections.abc import Mapping
from typing import Any

from metering.extract.counts import Counted, Counters, put
from metering.extract.shape_gemini import read_gemini
from metering.extract.tool_units import TOOL_NOT_KNOWN

_COUNTERS = {
    "total_input_tokens": "promptTokenCount",
    "total_cached_tokens": "cachedContentTokenCount",
    "total_output_tokens": "candidatesTokenCount",
    "total_thought_tokens": "thoughtsTokenCount",
    "total_tool_use_tokens": "toolUsePromptTokenCount",
    "total_tokens": "totalTokenCount",
}
_DETAILS = {
    "input_tokens_by_modality": "promptTokensDetails",
    "cached_tokens_by_modality": "cacheTokensDetails",
    "output_tokens_by_modality": "candidatesTokensDetails",
    "tool_use_tokens_by_modality": "toolUsePromptTokensDetails",
}
_UNIT_OF_TOOL = {"google_search": "grounding_query", "google_maps": "map_query", "retrieval": "file_search"}


def read_interactions(usage: Mapping[str, Any]) -> Counted:
    """Disjoint buckets of one usage object of the Interactions API."""
    counters = Counters()
    counted = read_gemini(
        {
            **{name: usage.get(key) for key, name in _COUNTERS.items()},
            **{name: _details(usage.get(key)) for key, name in _DETAILS.items()},
        },
        counters,
    )
    tools = usage.get("grounding_tool_count")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict):
            count, unit = counters.read(tool, "count"), _UNIT_OF_TOOL.get(str(tool.get("type")))
            if unit:
                put(counted.buckets, unit, count)
            elif count:
                counters.repair(TOOL_NOT_KNOWN)
    return counters.counted(counted.buckets, counted.unknown_sides)


def _details(items: Any) -> Any:
    """A list of modalities, with the counter under Gemini's name."""
    if not isinstance(items, list):
        return None
    return [
        {"modality": item.get("modality"), "tokenCount": item.get("tokens")}
        for item in items
        if isinstance(item, dict)
    ]
