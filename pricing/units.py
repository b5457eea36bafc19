"""What can be billed: token buckets and units.

Providers count overlapping things (cached tokens are input tokens too). Here each token is in exactly one bucket, named
`<side>_<kind>` for text and `<side>_<kind>.<modality>` for anything else: `in_cache_read`, `in_uncached.audio`. What is
not a token is a unit with a plain name: `web_search`, `page`.
"""

from functools import cache
from typing import Literal

Side = Literal["input", "output", "other"]

IN_UNCACHED = "in_uncached"
OUT_VISIBLE = "out_visible"
REQUEST = "request"  # the call itself: one a call wherever it has a price
CACHE_WRITE = "in_cache_write_"  # + time to live, an open list: 5m, 30m, 1h, 12h … or "unknown"

TEXT_BUCKETS = (
    IN_UNCACHED,
    "in_cache_read",
    "in_cache_write_5m",
    "in_cache_write_30m",
    "in_cache_write_1h",
    "in_cache_write_12h",
    "in_cache_write_unknown",
    "in_tool_prompt",
    OUT_VISIBLE,
    "out_reasoning",
    "out_citation",
)
MODALITIES = ("audio", "image", "video", "document")  # besides text, which has no suffix
TOKEN_BUCKETS = TEXT_BUCKETS + tuple(f"{name}.{modality}" for name in TEXT_BUCKETS for modality in MODALITIES)
UNITS = (
    "web_search",
    "social_search",
    "file_search",
    "code_exec",
    "grounding_query",
    "map_query",
    "search_unit",
    "page",
    "page_annotated",
    "audio_second",
    "character",
    "image",
    "video_second",
    REQUEST,
    "guardrail_unit",
)

# A provider that has no text price for these modalities counts them as text. Audio costs a multiple of text wherever it
# is sold, so a missing audio price is unknown and not the price of text.
_PRICED_AS_TEXT = frozenset({"image", "video", "document"})


def is_input(bucket: str) -> bool:
    """Whether `bucket` counts tokens that the model read."""
    return bucket.startswith("in_")


def is_output(bucket: str) -> bool:
    """Whether `bucket` counts tokens that the model wrote."""
    return bucket.startswith("out_")


def is_token(bucket: str) -> bool:
    """Whether `bucket` counts tokens at all."""
    return bucket.startswith(("in_", "out_"))


def is_billable(name: str) -> bool:
    """Whether a rate can be written for `name`: a known unit, or a token bucket with any cache time to live."""
    kind, _, modality = name.partition(".")
    if modality and modality not in MODALITIES:
        return False
    if kind.startswith(CACHE_WRITE):
        return kind[len(CACHE_WRITE) :].isalnum()
    return kind in TEXT_BUCKETS or (not modality and name in UNITS)


def side_of(bucket: str) -> Side:
    """The side of the bill on which `bucket` stands."""
    if is_input(bucket):
        return "input"
    return "output" if is_output(bucket) else "other"


@cache
def _kinds(kind: str) -> tuple[str, ...]:
    """`kind` and the kinds whose rate applies, in this order, where a model has none for it."""
    chain: tuple[str, ...] = (kind,)
    if kind.startswith(CACHE_WRITE):
        chain = (kind, "in_cache_write_unknown", "in_cache_write_5m", IN_UNCACHED)
    elif is_input(kind):
        chain = (kind, IN_UNCACHED)
    elif is_output(kind):
        chain = (kind, OUT_VISIBLE)
    return tuple(dict.fromkeys(chain))


def rate_candidates(bucket: str) -> tuple[str, ...]:
    """The buckets whose rate may price `bucket`, the best first; the first is `bucket` itself.

    A rate for `in_cache_write_unknown` holds for every time to live that has no rate of its own; reasoning and citations
    are output; images, video and documents are priced as text where the model has no price of their own, audio never is.
    """
    kind, _, modality = bucket.partition(".")
    if not modality:
        return _kinds(kind)
    own = tuple(f"{name}.{modality}" for name in _kinds(kind))
    return own + _kinds(kind) if modality in _PRICED_AS_TEXT else own
