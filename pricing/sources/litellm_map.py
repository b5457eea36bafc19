"""A price map in the form that LiteLLM publishes (`model_prices_and_context_window.json`): a file or URL that the operator
names. Its figures are JSON numbers per single token; they are read as decimals from their text and never as floats."""

import json
import re
from collections.abc import Iterator
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

from pricing.sources import (
    MODEL_LENGTH_MAX,
    ImplausiblePrice,
    SourceCatalogue,
    SourcePrice,
    SourceUnreadable,
    collect,
)

NAME = "litellm"
BYTES_MAX = 32 * 1024 * 1024  # the map has 3 MB
FETCH_TIMEOUT_S = 30.0

# Its providers and our slugs. Only those are compared: what it keeps under other names is resold or a region of these.
PROVIDERS = {
    "openai": "openai", "text-completion-openai": "openai", "anthropic": "anthropic", "gemini": "google",
    "bedrock": "bedrock", "bedrock_converse": "bedrock", "azure": "azure", "mistral": "mistral", "deepseek": "deepseek",
    "groq": "groq", "xai": "xai", "cohere": "cohere", "cohere_chat": "cohere", "perplexity": "perplexity",
    "together_ai": "together", "fireworks_ai": "fireworks", "cerebras": "cerebras", "moonshot": "moonshotai",
    "openrouter": "openrouter", "voyage": "voyageai",
}  # fmt: skip
_BUCKETS = {
    "input_cost_per_token": "in_uncached",
    "output_cost_per_token": "out_visible",
    "cache_read_input_token_cost": "in_cache_read",
    "cache_creation_input_token_cost": "in_cache_write_unknown",
    "cache_creation_input_token_cost_above_1hr": "in_cache_write_1h",
    "input_cost_per_audio_token": "in_uncached.audio",
    "output_cost_per_audio_token": "out_visible.audio",
    "cache_read_input_audio_token_cost": "in_cache_read.audio",
    "input_cost_per_image_token": "in_uncached.image",
    "output_cost_per_image_token": "out_visible.image",
    "output_cost_per_reasoning_token": "out_reasoning",
    "citation_cost_per_token": "out_citation",
    "ocr_cost_per_page": "page",
    "annotation_cost_per_page": "page_annotated",
    "input_cost_per_character": "character",
    "input_cost_per_second": "audio_second",
    "input_cost_per_query": "search_unit",
    "input_cost_per_request": "request",
}
_THRESHOLD = re.compile(r"_above_(\d{1,5})k_tokens")
_ENDINGS: dict[str, dict[str, Any]] = {
    "_batches": {"batch": True},
    "_flex": {"service_tier": "flex"},
    "_priority": {"service_tier": "priority"},
}


def read_litellm_map(where: str) -> SourceCatalogue:
    """The map at `where`, a path or an https URL. Raises SourceUnreadable."""
    data = _fetch(where) if re.match(r"https?://", where) else _load(where)
    if len(data) > BYTES_MAX:
        raise SourceUnreadable(f"{where}: more than {BYTES_MAX:,} bytes")
    try:
        entries = json.loads(data, parse_float=Decimal, parse_constant=Decimal)
    except (ValueError, RecursionError, ArithmeticError) as error:
        raise SourceUnreadable(f"{where}: no JSON ({type(error).__name__})") from error
    if not isinstance(entries, dict) or not entries:
        raise SourceUnreadable(f"{where}: no object of models")
    models = frozenset(name for name in map(_name, entries, entries.values()) if name is not None)
    return collect(NAME, sha256(data).hexdigest()[:12], models, _prices(entries))


def _load(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise SourceUnreadable(f"{path}: {error}") from error


def _fetch(url: str) -> bytes:
    import httpx

    if not url.startswith("https://"):
        raise SourceUnreadable(f"{url}: prices are fetched by https only")
    data = bytearray()
    try:
        with httpx.stream("GET", url, timeout=FETCH_TIMEOUT_S, follow_redirects=False) as response:
            response.raise_for_status()
            for chunk in response.iter_bytes():
                data += chunk
                if len(data) > BYTES_MAX:
                    break
    except httpx.HTTPError as error:
        raise SourceUnreadable(f"{url}: {error}") from error
    return bytes(data)


def _name(key: str, entry: Any) -> tuple[str, str] | None:
    """Provider and model of an entry; None where it is none that we compare."""
    if not isinstance(entry, dict) or not isinstance(entry.get("litellm_provider"), str):
        return None
    theirs = entry["litellm_provider"]
    if theirs not in PROVIDERS:
        return None
    model = key.removeprefix(f"{theirs}/")
    # "azure/eu/gpt-4o", "1024-x-1024/dall-e": a region or a size before the name, which is another price
    if not model or len(model) > MODEL_LENGTH_MAX or not model.isprintable():
        return None
    if "/" in model and theirs not in ("openrouter", "together_ai", "fireworks_ai", "groq"):
        return None
    return PROVIDERS[theirs], model


def _prices(entries: dict[str, Any]) -> Iterator[SourcePrice | str]:
    for key, entry in entries.items():
        name = _name(key, entry)
        if name is None:
            continue
        for field, value in entry.items():
            found = _line(field)
            if found is None or value is None:
                continue
            bucket, conditions = found
            try:
                yield SourcePrice.of(*name, bucket, _number(value), 1, **conditions)
            except ImplausiblePrice as error:
                yield f"{name[0]}/{name[1]}: {field}: {error}"


def _line(field: str) -> tuple[str, dict[str, Any]] | None:
    """The bucket and the conditions that the name of a field stands for."""
    conditions: dict[str, Any] = {}
    for ending, condition in _ENDINGS.items():
        if field.endswith(ending):
            field, conditions = field.removesuffix(ending), dict(condition)
    if (found := _THRESHOLD.search(field)) is not None:
        conditions["input_above"] = int(found[1]) * 1_000
        field = field[: found.start()] + field[found.end() :]
    bucket = _BUCKETS.get(field)
    return None if bucket is None else (bucket, conditions)


def _number(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise ImplausiblePrice(f"{str(value)[:40]!r} is no number")
    if isinstance(value, int) and abs(value) > 10**18:
        raise ImplausiblePrice("a number of that size is no price")
    return Decimal(value)
