"""The Gemini usage object: cached tokens inside the prompt; thoughts beside the candidates, tool prompts beside the prompt."""

from collections.abc import Mapping
from typing import Any

from metering.extract.counts import Counted, Counters, put, split_modalities
from pricing.usage import UnknownSide

_OTHER_MODALITIES = frozenset({"audio", "image", "video", "document"})


def read_gemini(usage: Mapping[str, Any]) -> Counted:
    """Disjoint buckets of one `usageMetadata` object."""
    counters = Counters()
    read = counters.read
    prompt = read(usage, "promptTokenCount")
    cached = read(usage, "cachedContentTokenCount") or 0
    candidates = read(usage, "candidatesTokenCount", "responseTokenCount")
    thoughts = read(usage, "thoughtsTokenCount")
    tool_prompt = read(usage, "toolUsePromptTokenCount")
    total = read(usage, "totalTokenCount")
    if (
        candidates is None
        and prompt is not None
        and (thoughts is not None or total == prompt + (tool_prompt or 0))
    ):
        candidates = 0  # blocked, or nothing but thoughts: the field is left out then

    buckets: dict[str, int] = {}
    mark = "ok"
    unknown: tuple[UnknownSide, ...] = ()
    if prompt is None:
        unknown = ("input",)
    else:
        mark = _put_prompt(buckets, counters, usage, prompt, cached)
        put(buckets, "in_tool_prompt", tool_prompt)
    if candidates is None:
        unknown += ("output",)
    else:
        parts = _modalities(counters, usage, "candidatesTokensDetails", candidates)
        split_modalities(buckets, "out_visible", candidates, "", 0, parts)
        put(buckets, "out_reasoning", thoughts)
        if not candidates and not thoughts:
            buckets["out_visible"] = 0
    if (
        total is not None
        and not unknown
        and total != (prompt or 0) + (tool_prompt or 0) + (candidates or 0) + (thoughts or 0)
    ):
        mark = "inconsistent"
    return Counted(buckets, "inconsistent" if counters.flawed else mark, unknown)


def _put_prompt(
    buckets: dict[str, int], counters: Counters, usage: Mapping[str, Any], prompt: int, cached: int
) -> str:
    """Here the cache does say its modalities, so each is taken from its own."""
    mark = "ok" if cached <= prompt else "inconsistent"
    cached = min(cached, prompt)
    of_prompt = _modalities(counters, usage, "promptTokensDetails", prompt)
    of_cache = _modalities(counters, usage, "cacheTokensDetails", cached)
    if any(count > of_prompt.get(modality, 0) for modality, count in of_cache.items()):
        mark, of_cache = "inconsistent", {}
    split_modalities(buckets, "in_cache_read", cached, "", 0, of_cache)
    fresh = {modality: count - of_cache.get(modality, 0) for modality, count in of_prompt.items()}
    left = prompt - cached
    if sum(fresh.values()) > left:  # more cached text than there was text
        mark, fresh = "inconsistent", {}
    split_modalities(buckets, "in_uncached", left, "", 0, fresh)
    if not prompt:
        buckets["in_uncached"] = 0
    return mark


def _modalities(counters: Counters, usage: Mapping[str, Any], key: str, limit: int) -> dict[str, int]:
    """Tokens that are no text, by modality; nothing when they do not fit into their side, which is flawed."""
    found: dict[str, int] = {}
    details = usage.get(key)
    for item in details if isinstance(details, list) else ():
        if isinstance(item, dict) and isinstance(item.get("modality"), str):
            modality = item["modality"].lower()
            if modality in _OTHER_MODALITIES:
                put(found, modality, counters.read(item, "tokenCount"))
    if sum(found.values()) > limit:
        counters.flawed = True
        return {}
    return found
