"""Cohere's billed units: floats, and other figures than the tokens that it counts. What it bills is what is billed."""

from collections.abc import Mapping
from typing import Any

from metering.extract.counts import Counted, Counters, put
from metering.extract.tool_units import TOOL_NOT_KNOWN
from pricing.usage import UnknownSide

_UNITS = {"search_units": "search_unit", "images": "image", "pages": "page"}
_NOT_BILLED = frozenset({"classifications"})


def read_cohere(usage: Mapping[str, Any], *, only_what_is_named: bool = False) -> Counted:
    """Disjoint buckets of an object with `billed_units`, and `tokens` where those are missing.

    `only_what_is_named`: a side that is not there was not used (embeddings write nothing, a reranker is paid by the
    search); elsewhere it is unknown.
    """
    counters = Counters()
    billed = counters.group(usage, "billed_units")
    if not billed and isinstance(usage.get("tokens"), dict):
        billed = counters.group(usage, "tokens")
        counters.repair("billed_units_missing")
    buckets: dict[str, int] = {}
    for name, unit in _UNITS.items():
        put(buckets, unit, counters.read(billed, name))
    if any(counters.read(billed, name) for name in _NOT_BILLED):
        counters.repair(TOOL_NOT_KNOWN)
    images = counters.read(billed, "image_tokens")
    absent = 0 if only_what_is_named and billed else None
    tokens_in = _count(counters, billed, "input_tokens", 0 if images is not None else absent)
    tokens_out = _count(counters, billed, "output_tokens", absent)
    unknown: tuple[UnknownSide, ...] = ()
    if tokens_in is None:
        unknown = ("input",)
    elif tokens_in or not images:
        buckets["in_uncached"] = tokens_in
    if not unknown:
        put(buckets, "in_uncached.image", images)
    if tokens_out is None:
        unknown = (*unknown, "output")
    else:
        buckets["out_visible"] = tokens_out
    return counters.counted(buckets, unknown)


def _count(counters: Counters, billed: Mapping[str, Any], key: str, absent: int | None) -> int | None:
    return counters.read(billed, key) if billed.get(key) is not None else absent
