"""The data that the package genai-prices ships: never its updater, which would fetch new prices in the background."""

from collections.abc import Iterator
from datetime import UTC, datetime, time
from decimal import Decimal
from typing import Any

from pricing.sources import PER_TOKENS, ImplausiblePrice, SourceCatalogue, SourcePrice, collect

NAME = "genai-prices"

# Its keys and ours, with how many its price is for. Storage by the hour and the like are not billed by the call.
_PER_THOUSAND = 1_000
_KEYS: dict[str, tuple[str, int]] = {
    "input_mtok": ("in_uncached", PER_TOKENS),
    "output_mtok": ("out_visible", PER_TOKENS),
    "cache_read_mtok": ("in_cache_read", PER_TOKENS),
    "cache_write_mtok": ("in_cache_write_unknown", PER_TOKENS),
    "cache_write_1h_mtok": ("in_cache_write_1h", PER_TOKENS),
    "output_reasoning_mtok": ("out_reasoning", PER_TOKENS),
    "output_citation_mtok": ("out_citation", PER_TOKENS),
    "input_audio_mtok": ("in_uncached.audio", PER_TOKENS),
    "input_image_mtok": ("in_uncached.image", PER_TOKENS),
    "input_video_mtok": ("in_uncached.video", PER_TOKENS),
    "cache_audio_read_mtok": ("in_cache_read.audio", PER_TOKENS),
    "cache_image_read_mtok": ("in_cache_read.image", PER_TOKENS),
    "output_audio_mtok": ("out_visible.audio", PER_TOKENS),
    "output_image_mtok": ("out_visible.image", PER_TOKENS),
    "output_video_mtok": ("out_visible.video", PER_TOKENS),
    "web_searches_kcount": ("web_search", _PER_THOUSAND),
    "storage_searches_kcount": ("file_search", _PER_THOUSAND),
    "requests_kcount": ("request", _PER_THOUSAND),
    "input_document_kpages": ("page", _PER_THOUSAND),
    "input_annotated_document_kpages": ("page_annotated", _PER_THOUSAND),
    "input_mchars": ("character", 1_000_000),
    "audio_hours": ("audio_second", 3_600),
    "input_audio_hours": ("audio_second", 3_600),
}
# What it calls a provider, where we say otherwise.
PROVIDERS = {"aws": "bedrock", "x-ai": "xai"}
# Its request variants and our conditions; a variant that asks for anything else is left out.
_VARIANTS: dict[tuple[str, str], dict[str, Any]] = {
    ("processing", "batch"): {"batch": True},
    ("service_tier", "priority"): {"service_tier": "priority"},
    ("service_tier", "flex"): {"service_tier": "flex"},
    ("speed", "fast"): {"speed": "fast"},
}


def read_genai_catalogue(at: datetime) -> SourceCatalogue:
    """What it says of the prices in force at `at` (aware)."""
    import genai_prices  # heavy (pydantic and 40 MB), and only this act needs it
    from genai_prices import data

    models = frozenset(
        (PROVIDERS.get(provider.id, provider.id), model.id)
        for provider in data.providers
        for model in provider.models
    )
    return collect(NAME, genai_prices.__version__, models, _prices(data.providers, at))


def _prices(providers: Any, at: datetime) -> Iterator[SourcePrice | str]:
    for provider in providers:
        slug = PROVIDERS.get(provider.id, provider.id)
        for model in provider.models:
            for prices, conditions in _in_force(model, at):
                yield from _of_model(slug, model.id, prices, conditions)


def _in_force(model: Any, at: datetime) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The sets of prices that hold at `at`, each with the conditions under which it does: the ordinary one first."""
    if isinstance(model.prices, list):
        dated, windows = None, []
        for conditional in model.prices:
            constraint = conditional.constraint
            if hasattr(constraint, "start_time"):
                windows.append((conditional.prices, _window(constraint)))
            elif constraint is None or constraint.active(at):
                dated = conditional.prices
        if dated is not None:
            yield dated, {}
        yield from windows
    else:
        yield model.prices, {}
    taken: set[tuple[tuple[str, Any], ...]] = set()
    for variant in model.price_variants or ():
        active = variant.constraint is None or variant.constraint.active(at)
        conditions = _VARIANTS.get(next(iter(variant.when.items()))) if len(variant.when) == 1 else None
        key = tuple((conditions or {}).items())
        if (
            active and conditions is not None and key not in taken
        ):  # of several the first counts, as it does there
            taken.add(key)
            yield variant.prices, conditions


def _window(constraint: Any) -> dict[str, Any]:
    start, end = (_utc(getattr(constraint, name)) for name in ("start_time", "end_time"))
    return {"time_from": start, "time_to": end, "time_zone": "UTC"}


def _utc(value: time) -> time:
    if value.tzinfo is None:
        return value
    return datetime.combine(datetime(1970, 1, 1, tzinfo=UTC), value).astimezone(UTC).time()


def _of_model(
    provider: str, model: str, prices: Any, conditions: dict[str, Any]
) -> Iterator[SourcePrice | str]:
    for key, value in prices.__dict__.items():
        if value is None or key not in _KEYS:
            continue
        bucket, per = _KEYS[key]
        steps = [(0, value)] if isinstance(value, Decimal) else [(0, value.base)]
        if not isinstance(value, Decimal):
            steps += [(tier.start, tier.price) for tier in value.tiers]
        for above, price in steps:
            try:
                yield SourcePrice.of(provider, model, bucket, price, per, input_above=above, **conditions)
            except ImplausiblePrice as error:
                yield f"{provider}/{model}: {error}"
