"""The Gemini usage object: cached tokens inside the prompt; thoughts beside the candidates, tool prompts beside the prompt."""

from collections.abc import Mapping
from typing import Any

from metering.extract.counts import COUNT_MAX, Counted, Counters, put, split_modalities
from pricing.usage import UnknownSide

# Where an object has nothing but these, nothing else needs to be looked for.
_DETAILS = ("promptTokensDetails", "cacheTokensDetails", "candidatesTokensDetails")
_ORDINARY = frozenset({
    "promptTokenCount", "cachedContentTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount",
    "trafficType", "serviceTier", *_DETAILS,
})  # fmt: skip
_OTHER_MODALITIES = frozenset({"audio", "image", "video", "document"})


def read_gemini(usage: Mapping[str, Any], counters: Counters | None = None) -> Counted:
    """Disjoint buckets of one `usageMetadata` object, of generateContent or of Live; `counters` may have read others."""
    counters = counters or Counters()
    read = counters.read
    prompt = read(usage, "promptTokenCount")
    candidates = read(usage, "candidatesTokenCount", "responseTokenCount")
    thoughts = read(usage, "thoughtsTokenCount")
    tool_prompt = read(usage, "toolUsePromptTokenCount") or 0
    total = read(usage, "totalTokenCount")
    prompt, candidates = _complete(counters, prompt, candidates, thoughts, tool_prompt, total)

    buckets: dict[str, int] = {}
    unknown: tuple[UnknownSide, ...] = ()
    if prompt is None:
        unknown = ("input",)
    else:
        _put_prompt(buckets, counters, usage, prompt)
        parts = modalities_of(counters, usage, tool_prompt, "toolUsePromptTokensDetails")
        split_modalities(buckets, "in_tool_prompt", tool_prompt, "", 0, parts)
    if candidates is None:
        unknown = (*unknown, "output")
    else:
        parts = modalities_of(counters, usage, candidates, "candidatesTokensDetails", "responseTokensDetails")
        split_modalities(buckets, "out_visible", candidates, "", 0, parts)
        put(buckets, "out_reasoning", thoughts)
        if not candidates and not thoughts:
            buckets["out_visible"] = 0
    return counters.counted(buckets, unknown)


def ordinary_buckets(usage: Mapping[str, Any]) -> dict[str, Any] | None:
    """The buckets that `read_gemini` gives for nearly every answer, in a fraction of the time; None for all others.

    Ordinary is: prompt and candidates are there, the total is the sum, all of it is text, and no tool read anything. So
    there is nothing to note, either.
    """
    if not usage.keys() <= _ORDINARY:
        return None
    get = usage.get
    prompt, shown, total = get("promptTokenCount"), get("candidatesTokenCount"), get("totalTokenCount")
    cached, thoughts = get("cachedContentTokenCount", 0), get("thoughtsTokenCount", 0)
    if not (type(prompt) is type(shown) is type(total) is type(cached) is type(thoughts) is int):
        return None
    if total != prompt + shown + thoughts or total > COUNT_MAX or shown < 0 or thoughts < 0:
        return None
    if not 0 <= cached <= prompt or not _is_all_text(usage):
        return None
    buckets: dict[str, Any] = {}
    if cached:
        buckets["in_cache_read"] = cached
    if prompt > cached or not prompt:
        buckets["in_uncached"] = prompt - cached
    if shown or not thoughts:
        buckets["out_visible"] = shown
    if thoughts:
        buckets["out_reasoning"] = thoughts
    return buckets


def _is_all_text(usage: Mapping[str, Any]) -> bool:
    """Whether no side is told to hold anything but text."""
    for key in _DETAILS:
        details = usage.get(key)
        if details is None:
            continue
        if type(details) is not list:
            return False
        for item in details:
            if type(item) is not dict or item.get("modality") != "TEXT":
                return False
    return True


def _complete(
    counters: Counters,
    prompt: int | None,
    candidates: int | None,
    thoughts: int | None,
    tool_prompt: int,
    total: int | None,
) -> tuple[int | None, int | None]:
    """Prompt and candidates as far as the total tells them; it is the sum of prompt, tool prompt, candidates and thoughts.

    A counter of zero is left out: the candidates of an answer that was blocked, or that is nothing but thoughts.
    """
    if total is None:
        return prompt, 0 if candidates is None and prompt is not None and thoughts is not None else candidates
    rest = total - tool_prompt - (thoughts or 0) - (prompt or 0) - (candidates or 0)
    if rest < 0 or (prompt is not None and candidates is not None and rest):
        counters.flaw("total_unexplained")
    elif candidates is None and prompt is not None:
        candidates = rest
        if rest:
            counters.repair("output_from_total")
    elif prompt is None and candidates is not None:
        prompt = rest
        counters.repair("input_from_total")
    return prompt, candidates


def _put_prompt(buckets: dict[str, int], counters: Counters, usage: Mapping[str, Any], prompt: int) -> None:
    """Splits the prompt into what came from the cache and what did not, each by modality.

    The cache says its own modalities; where it does not, its tokens are taken from text first.
    """
    cached = counters.read(usage, "cachedContentTokenCount") or 0
    if cached > prompt:
        counters.flaw("cache_exceeds_input")
        cached = prompt
    of_prompt = modalities_of(counters, usage, prompt, "promptTokensDetails")
    if not prompt:
        buckets["in_uncached"] = 0
    if not cached or not isinstance(usage.get("cacheTokensDetails"), list):
        if cached and of_prompt:
            counters.repair("cache_taken_as_text")
        split_modalities(buckets, "in_uncached", prompt, "in_cache_read", cached, of_prompt)
        return
    of_cache = modalities_of(counters, usage, cached, "cacheTokensDetails")
    fresh = {modality: count - of_cache.get(modality, 0) for modality, count in of_prompt.items()}
    if (
        of_cache.keys() - of_prompt.keys()
        or min(fresh.values(), default=0) < 0
        or sum(fresh.values()) > prompt - cached
    ):
        counters.flaw("modality_exceeds_side")
        fresh = of_cache = {}
    split_modalities(buckets, "in_cache_read", cached, "", 0, of_cache)
    split_modalities(buckets, "in_uncached", prompt - cached, "", 0, fresh)


def modalities_of(counters: Counters, usage: Mapping[str, Any], limit: int, *keys: str) -> dict[str, int]:
    """Tokens that are no text, by modality; nothing when they do not fit into their side, which is a flaw."""
    found: dict[str, int] = {}
    details = next((usage[key] for key in keys if isinstance(usage.get(key), list)), ())
    for item in details:
        if isinstance(item, dict) and isinstance(item.get("modality"), str):
            modality = item["modality"].lower()
            if modality in _OTHER_MODALITIES:
                put(found, modality, counters.read(item, "tokenCount"))
    if sum(found.values()) > limit:
        counters.flaw("modality_exceeds_side")
        return {}
    return found
