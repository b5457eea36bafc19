"""The OpenAI usage object and its many relatives: headline counters that hold their own details.

Chat (`prompt_tokens`), Responses (`input_tokens`), embeddings (no output) and what other providers and gateways made of
them: cached tokens beside the input instead of inside, reasoning beside the output, details at the top level. Which it is
`metering.extract.relation` decides; here each token then gets its one bucket.
"""

from collections.abc import Mapping
from typing import Any

from metering.extract.counts import (
    COUNT_MAX,
    UNKNOWN_TTL,
    Counted,
    Counters,
    cache_write_bucket,
    put,
    split_modalities,
)
from metering.extract.profiles import profile_of
from metering.extract.relation import INSIDE, Headline, relate
from metering.extract.tool_units import has_seconds, put_units
from pricing.usage import UnknownSide

CACHE_TAKEN_AS_TEXT = "cache_taken_as_text"  # the modality of cached tokens was not told
CACHE_COUNTERS_DIFFER = "cache_counters_differ"  # two counters of the same thing, one of them zero
MODALITY_EXCEEDS = "modality_exceeds_side"  # more tokens of one modality than tokens
CACHE_WRITES_EXCEED = "cache_writes_exceed_sum"  # the split by time to live is more than what it splits

# Where an object has nothing but these, nothing needs to be looked for in a second place.
_CHAT_NAMES = ("prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details")
_RESPONSES_NAMES = ("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")
_CHAT = frozenset({*_CHAT_NAMES, "total_tokens"})
_RESPONSES = frozenset({*_RESPONSES_NAMES, "total_tokens"})
_PLAIN = _CHAT | _RESPONSES | {"input_token_details", "output_token_details", "type"}
_IGNORED_IN = frozenset({"text_tokens"})
_IGNORED_OUT = frozenset({"text_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"})
_CACHED_AT_THE_TOP = (
    "prompt_cache_hit_tokens",
    "cache_read_input_tokens",
    "cached_tokens",
    "cached_prompt_text_tokens",
)
_INPUT_MODALITIES = {"audio_tokens": "audio", "image_tokens": "image", "video_tokens": "video"}
_OUTPUT_MODALITIES = {"audio_tokens": "audio", "image_tokens": "image", "video_tokens": "video"}
_CACHED_MODALITIES = {
    "audio_tokens": "audio",
    "image_tokens": "image",
    "cached_audio_tokens": "audio",
    "cached_image_tokens": "image",
}
_NO_PARTS: dict[str, int] = {}


def read_openai(
    usage: Mapping[str, Any], provider: str = "", model: str = "", *, written_as: str = ""
) -> Counted:
    """Disjoint buckets and units of one OpenAI-like usage object.

    `provider` and `model` name the profile that decides what the numbers leave open. `written_as` is the modality of
    output whose modality nobody told; "" is text.
    """
    buckets = None if written_as else ordinary_buckets(usage, provider, model)
    if buckets is not None:
        return Counted(buckets)
    return read_thoroughly(usage, provider, model, written_as=written_as)


def ordinary_buckets(usage: Mapping[str, Any], provider: str, model: str) -> dict[str, Any] | None:
    """The buckets that `read_thoroughly` gives for nearly every answer, in a fraction of the time; None for all others.

    Ordinary is: there is nothing but counters of tokens and their details, all of them are there, the total is their sum,
    and of the details only cached and reasoning tokens are more than zero. So there is nothing to note, either.
    """
    if "prompt_tokens" in usage:
        return _ordinary(usage, _CHAT_NAMES, provider, model) if usage.keys() <= _CHAT else None
    return _ordinary(usage, _RESPONSES_NAMES, provider, model) if usage.keys() <= _RESPONSES else None


def _ordinary(
    usage: Mapping[str, Any], names: tuple[str, str, str, str], provider: str, model: str
) -> dict[str, Any] | None:
    get = usage.get
    name_in, name_out, name_details, name_details_out = names
    tokens_in, tokens_out, total = get(name_in), get(name_out), get("total_tokens")
    if tokens_out is None and total == tokens_in:  # embeddings
        tokens_out = 0
    if not (type(tokens_in) is type(tokens_out) is type(total) is int) or total != tokens_in + tokens_out:
        return None
    details, details_out = get(name_details), get(name_details_out)
    cached = _only(details, "cached_tokens", _IGNORED_IN) if details is not None else 0
    reasoning = _only(details_out, "reasoning_tokens", _IGNORED_OUT) if details_out is not None else 0
    if not (0 <= cached <= tokens_in <= COUNT_MAX and 0 <= reasoning <= tokens_out and total <= COUNT_MAX):
        return None
    if reasoning and profile_of(provider, model, names is _RESPONSES_NAMES).total_is_headline:
        return None
    buckets: dict[str, Any] = {}
    if tokens_in > cached or not tokens_in:
        buckets["in_uncached"] = tokens_in - cached
    if cached:
        buckets["in_cache_read"] = cached
    if tokens_out > reasoning or not tokens_out:
        buckets["out_visible"] = tokens_out - reasoning
    if reasoning:
        buckets["out_reasoning"] = reasoning
    return buckets


def _only(details: Any, wanted: str, ignored: frozenset[str]) -> int:
    """The count of `wanted` where nothing else is more than zero but what is `ignored`; -1 where that is not so."""
    if type(details) is not dict:
        return -1
    found = 0
    for key, value in details.items():
        if type(value) is int:
            if not value or key in ignored:
                continue
            if key != wanted:
                return -1
            found = value
        elif value is not None and key not in ignored:
            return -1
    return found


def read_thoroughly(
    usage: Mapping[str, Any], provider: str = "", model: str = "", *, written_as: str = ""
) -> Counted:
    """`read_openai` without its short cut."""
    counters = Counters()
    read = counters.read
    plain = usage.keys() <= _PLAIN
    tokens_in = read(usage, "prompt_tokens", "input_tokens")
    tokens_out = read(usage, "completion_tokens", "output_tokens")
    total = read(usage, "total_tokens")
    unknown: tuple[UnknownSide, ...] = ()
    if tokens_in is None or tokens_out is None:
        tokens_in, tokens_out, total, unknown = _complete(counters, usage, tokens_in, tokens_out, total)

    details = counters.group(usage, "prompt_tokens_details", "input_tokens_details", "input_token_details")
    cached = read(details, "cached_tokens", "cache_read_input_tokens") or 0 if details else 0
    written = (
        read(details, "cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens") or 0
        if details
        else 0
    )
    details_out = counters.group(
        usage, "completion_tokens_details", "output_tokens_details", "output_token_details"
    )
    reasoning = read(details_out, "reasoning_tokens") or 0 if details_out else 0
    citation = 0
    if not plain:
        cached = _cached(counters, usage, cached)
        written = written or read(usage, "cache_creation_input_tokens", "cache_write_tokens") or 0
        reasoning = reasoning or read(usage, "reasoning_tokens") or 0
        citation = read(usage, "citation_tokens") or 0

    buckets: dict[str, Any] = {}
    relation, cache, hidden = INSIDE, cached + written, reasoning + citation
    ordinary = (
        total is not None and tokens_in is not None and tokens_out is not None and total == tokens_in + tokens_out
        and cache <= tokens_in and hidden <= tokens_out
    )  # fmt: skip
    if hidden or not ordinary:
        profile = profile_of(provider, model, "input_tokens" in usage)
        if not ordinary or profile.total_is_headline:
            head = Headline(tokens_in, tokens_out, total, cache, hidden, not plain and has_seconds(usage))
            relation = relate(counters, head, profile)
    if tokens_in is not None:
        whole = tokens_in + cache if relation.cache_beside else tokens_in
        _put_input(buckets, counters, whole, cached, written, details, usage)
    if tokens_out is not None:
        whole = tokens_out + relation.rest + (hidden if relation.hidden_beside else 0)
        _put_output(buckets, counters, whole, reasoning + relation.rest, citation, details_out, written_as)
    if not plain:
        seconds = put_units(buckets, counters, usage)
        if len(unknown) == 2 and seconds is not None and not counters.flawed:
            buckets["audio_second"], unknown = (
                seconds,
                (),
            )  # billed by the second alone: there are no tokens to be known
    return counters.counted(buckets, unknown)


def _complete(
    counters: Counters,
    usage: Mapping[str, Any],
    tokens_in: int | None,
    tokens_out: int | None,
    total: int | None,
) -> tuple[int | None, int | None, int | None, tuple[UnknownSide, ...]]:
    """Both sides as far as other counters tell them, the total if it is still of use, and the sides that stay unknown.

    Embeddings have no output counter and a total equal to the input: that is an output of nothing, not an unknown one.
    """
    if tokens_in is None:
        hit, miss = (counters.read(usage, f"prompt_cache_{kind}_tokens") for kind in ("hit", "miss"))
        if hit is not None and miss is not None:
            counters.repair("input_from_hit_and_miss")
            tokens_in = hit + miss
    if tokens_in is None and tokens_out is None:
        return None, None, None, ("input", "output")
    if tokens_out is None:
        if total is None or tokens_in is None or total < tokens_in:
            counters.flaw("output_unknown")
            return tokens_in, None, None, ("output",)
        if total > tokens_in:
            counters.repair("output_from_total")
        return tokens_in, total - tokens_in, None, ()
    if tokens_in is not None:
        return tokens_in, tokens_out, total, ()
    if total is None or total < tokens_out:
        counters.flaw("input_unknown")
        return None, tokens_out, None, ("input",)
    counters.repair("input_from_total")
    return total - tokens_out, tokens_out, None, ()


def _cached(counters: Counters, usage: Mapping[str, Any], in_details: int) -> int:
    """Tokens read from the cache, which some say at the top level, alone or a second time."""
    found = in_details
    for key in _CACHED_AT_THE_TOP:
        count = counters.read(usage, key)
        if not count:
            continue
        if found and count != found:
            counters.flaw(CACHE_COUNTERS_DIFFER)
        found = found or count
    return found


def _put_input(
    buckets: dict[str, Any], counters: Counters, whole: int, cached: int, written: int, details: Mapping[str, Any],
    usage: Mapping[str, Any],
) -> None:  # fmt: skip
    """Splits the input. The headline holds: a cache that exceeds it is cut to fit, and `relate` has said so."""
    cached = min(cached, whole)
    written = min(written, whole - cached)
    if written:
        _put_writes(buckets, counters, written, details, usage)
    rest = whole - written
    parts = _modalities(counters, details, _INPUT_MODALITIES, whole) if details else _NO_PARTS
    if parts:
        parts = _without_writes(counters, parts, rest)
        text = rest - sum(parts.values())
        of_cache = _cached_modalities(counters, details, usage, cached, parts, text) if cached else _NO_PARTS
        if of_cache is None:
            split_modalities(buckets, "in_uncached", rest, "in_cache_read", cached, parts)
            counters.repair(CACHE_TAKEN_AS_TEXT)
            return
        split_modalities(buckets, "in_cache_read", cached, "", 0, of_cache)
        fresh = {modality: count - of_cache.get(modality, 0) for modality, count in parts.items()}
        split_modalities(buckets, "in_uncached", rest - cached, "", 0, fresh)
        return
    if rest > cached or not whole:
        buckets["in_uncached"] = rest - cached
    if cached:
        buckets["in_cache_read"] = cached


def _put_writes(
    buckets: dict[str, Any], counters: Counters, written: int, details: Mapping[str, Any], usage: Mapping[str, Any]
) -> None:  # fmt: skip
    """Cache writes by time to live, as far as they are split; the rest has an unknown one."""
    left = written
    split = counters.group(details, "cache_write_tokens_details", "cache_creation_token_details")
    split = split or counters.group(usage, "cache_creation")
    for key in split:
        ttl = _ttl_of(key)
        if ttl:
            count = counters.read(split, key) or 0
            if count > left:
                counters.flaw(CACHE_WRITES_EXCEED)
                break
            put(buckets, cache_write_bucket(ttl), count)
            left -= count
    put(buckets, UNKNOWN_TTL, left)


def _ttl_of(key: str) -> str:
    """`30m` in `ttl_30m_tokens`, `1h` in `ephemeral_1h_input_tokens`."""
    if key.startswith("ttl_") and key.endswith("_tokens"):
        return key[4:-7]
    if key.startswith("ephemeral_") and key.endswith("_input_tokens"):
        return key[10:-13]
    return ""


def _put_output(
    buckets: dict[str, Any], counters: Counters, whole: int, reasoning: int, citation: int, details: Mapping[str, Any],
    written_as: str,
) -> None:  # fmt: skip
    """Splits the output; rejected prediction tokens are paid like visible ones and stay among them."""
    reasoning = min(reasoning, whole)
    citation = min(citation, whole - reasoning)
    shown = whole - reasoning - citation
    parts = _modalities(counters, details, _OUTPUT_MODALITIES, shown) if details else _NO_PARTS
    if written_as and shown and not parts and not (details and details.get("text_tokens")):
        buckets[f"out_visible.{written_as}"] = shown
        shown = 0
    visible = shown - sum(parts.values()) if parts else shown
    if visible or not whole:
        buckets["out_visible"] = visible
    if reasoning:
        buckets["out_reasoning"] = reasoning
    if citation:
        buckets["out_citation"] = citation
    for modality, count in parts.items():
        put(buckets, f"out_visible.{modality}", count)


def _modalities(
    counters: Counters, details: Mapping[str, Any], names: Mapping[str, str], limit: int
) -> Mapping[str, int]:
    """Tokens that are no text, by modality; none where they do not fit into the side they belong to, which is flawed."""
    parts: dict[str, int] | None = None
    for key, modality in names.items():
        if details.get(key):
            count = counters.read(details, key)
            if count:
                parts = parts or {}
                parts[modality] = parts.get(modality, 0) + count
    if parts is None:
        return _NO_PARTS
    if sum(parts.values()) > limit:
        counters.flaw(MODALITY_EXCEEDS)
        return _NO_PARTS
    return parts


def _without_writes(counters: Counters, parts: Mapping[str, int], limit: int) -> Mapping[str, int]:
    """Nobody says which modality cache writes had: they are text as far as there is any, and then take from the others."""
    over = sum(parts.values()) - limit
    if over <= 0:
        return parts
    counters.repair(CACHE_TAKEN_AS_TEXT)
    left: dict[str, int] = {}
    for modality, count in parts.items():
        taken = min(over, count)
        over -= taken
        left[modality] = count - taken
    return left


def _cached_modalities(
    counters: Counters, details: Mapping[str, Any], usage: Mapping[str, Any], cached: int, parts: Mapping[str, int],
    text: int,
) -> Mapping[str, int] | None:  # fmt: skip
    """The modalities of the cached tokens, where they were told and fit (`text`: tokens that are none of them); else None."""
    split = counters.group(details, "cached_tokens_details") or counters.group(usage, "cached_tokens_details")
    if not split:
        return None
    of_cache = _modalities(counters, split, _CACHED_MODALITIES, cached)
    exceeds = any(count > parts.get(modality, 0) for modality, count in of_cache.items())
    if exceeds or cached - sum(of_cache.values()) > text:
        counters.flaw(MODALITY_EXCEEDS)
        return None
    return of_cache
