"""Gemini and Vertex embeddings: input only, counted in one of three ways; older models are billed by the character."""

from collections.abc import Iterator
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import Reading, decode_body
from metering.extract.counts import Counted, Counters, put
from metering.extract.gemini_generate import GenerateStream, tier_of
from metering.extract.shape_gemini import modalities_of
from metering.problem import Native
from pricing.usage import Usage

_COUNTED_ANYHOW = "gemini-"  # models whose characters are counted as well, and cost nothing


class _Body(msgspec.Struct):
    usage_metadata: Any = msgspec.field(name="usageMetadata", default=None)
    predictions: Any = None
    embeddings: Any = None
    embedding: Any = None
    metadata: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class GeminiEmbeddings:
    """`usageMetadata`, or statistics per item, or the billable characters of the request. No body names the model."""

    name = "gemini_embeddings"
    version = 1
    extractor = "gemini_embeddings/1"
    native_errors: Native | None = "google"
    has_output = False

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Body, body)
        if fields is None:
            return reading.nothing()
        usage = fields.usage_metadata if isinstance(fields.usage_metadata, dict) else {}
        raw = dict(usage)
        items = list(_statistics(fields))
        if items:
            raw["statistics"] = items
        metadata = fields.metadata if isinstance(fields.metadata, dict) else {}
        for key in ("billableCharacterCount", "billable_character_count"):
            if key in metadata:
                raw[key] = metadata[key]
        if not raw:
            wrong = fields.usage_metadata is not None and not isinstance(fields.usage_metadata, dict)
            return reading.nothing(raw=fields.usage_metadata, consistency="inconsistent" if wrong else "ok")
        return reading.reported(_read(raw, facts.model or ""), raw, None, service_tier=tier_of(usage))

    def open_stream(self, facts: RequestFacts, provider: str) -> GenerateStream:
        return GenerateStream(Reading(self.extractor, facts, provider))


def _statistics(fields: _Body) -> Iterator[Any]:
    """What is said of each item, without its vector."""
    for prediction in fields.predictions if isinstance(fields.predictions, list) else ():
        if isinstance(prediction, dict):
            embeddings = prediction.get("embeddings")
            if isinstance(embeddings, dict) and "statistics" in embeddings:
                yield embeddings["statistics"]
    several = fields.embeddings if isinstance(fields.embeddings, list) else [fields.embedding]
    for embedding in several:
        if isinstance(embedding, dict) and "statistics" in embedding:
            yield embedding["statistics"]


def _read(raw: dict[str, Any], model: str) -> Counted:
    """Tokens as they are counted, and characters where these are billed. Either of them alone is the whole input."""
    counters = Counters()
    buckets: dict[str, int] = {}
    tokens = counters.read(raw, "promptTokenCount", "totalTokenCount")
    if tokens is not None:
        modalities = modalities_of(counters, raw, tokens, "promptTokensDetails")
    else:
        tokens, modalities = _of_items(counters, raw.get("statistics", []))
    characters = counters.read(raw, "billableCharacterCount", "billable_character_count")
    if tokens is not None:
        for modality, count in modalities.items():
            put(buckets, f"in_uncached.{modality}", count)
        rest = tokens - sum(modalities.values())
        if rest or not tokens:
            buckets["in_uncached"] = rest
    if characters is not None and not (tokens is not None and model.startswith(_COUNTED_ANYHOW)):
        buckets["character"] = characters
    if tokens is None and characters is None:
        return counters.counted({}, ("input", "output"))
    buckets["out_visible"] = 0
    return counters.counted(buckets)


def _of_items(counters: Counters, items: list[Any]) -> tuple[int | None, dict[str, int]]:
    """The sum over the items; None where none of them is counted, or one is not."""
    total = 0
    modalities: dict[str, int] = {}
    for item in items:
        statistics = item if isinstance(item, dict) else {}
        tokens = counters.read(statistics, "token_count", "tokenCount")
        if tokens is None:
            counters.flaw("item_without_count")
            return None, {}
        total += tokens
        for modality, count in modalities_of(
            counters, statistics, tokens, "tokensDetails", "tokens_details"
        ).items():
            put(modalities, modality, count)
    return (total, modalities) if items else (None, {})
