"""Gemini and Vertex generateContent: running totals on nearly every chunk; searches and maps are told outside the usage."""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, merge_latest
from metering.extract.counts import put, text_or_none
from metering.extract.shape_gemini import ordinary_buckets, read_gemini
from metering.problem import Native
from pricing.usage import Usage

_GROUNDING = b'"groundingMetadata"'
_FINISHED = b'"finishReason"'
_ORDINARY_TRAFFIC = frozenset({"ON_DEMAND", "TRAFFIC_TYPE_UNSPECIFIED"})


class _Body(msgspec.Struct, rename="camel"):
    model_version: Any = None
    usage_metadata: Any = None
    prompt_feedback: Any = None
    error: Any = None
    response: Any = None  # one line of a batch's results
    key: Any = None
    request: Any = None


class _Chunk(_Body, rename="camel"):
    candidates: Any = None


class _Candidate(msgspec.Struct, rename="camel"):
    grounding_metadata: None = None


class _Plain(msgspec.Struct, rename="camel"):
    """What nearly every body is, with nothing looked up; one that is not is read as a `_Body`."""

    model_version: str | None = None
    usage_metadata: dict[str, Any] | None = None
    candidates: list[_Candidate] | None = None


_decode_plain = msgspec.json.Decoder(_Plain).decode
_decode = msgspec.json.Decoder(_Body).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class GeminiGenerate:
    """A response, whole or streamed (as events or as one array), or one line of a batch's results."""

    name = "gemini_generate"
    version = 1
    extractor = "gemini_generate/1"
    native_errors: Native | None = "google"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        plain = _plainly(reading, body)
        if plain is not None:
            return plain
        fields = decode_body(_decode, _Body, body)
        if fields is None:
            return reading.nothing()
        grounding = Grounding()
        if isinstance(fields.response, dict) and fields.usage_metadata is None:
            inner = fields.response
            grounding.take(inner.get("candidates"))
            batch = fields.key is not None or fields.request is not None
            return usage_of_metadata(
                reading, inner.get("usageMetadata"), inner.get("modelVersion"), grounding, batch=batch
            )
        if _GROUNDING in body:
            whole = decode_body(_decode_chunk, _Chunk, body)
            grounding.take(whole.candidates if whole is not None else None)
        return usage_of_metadata(reading, fields.usage_metadata, fields.model_version, grounding)

    def open_stream(self, facts: RequestFacts, provider: str) -> "GenerateStream":
        return GenerateStream(Reading(self.extractor, facts, provider))


def _plainly(reading: Reading, body: bytes) -> Usage | None:
    """The usage of a body for which nothing was looked up and there is nothing to note; None for any other."""
    try:
        fields = _decode_plain(body)
    except UNREADABLE:
        return None
    usage = fields.usage_metadata
    buckets = ordinary_buckets(usage) if usage is not None else None
    if usage is None or buckets is None:
        return None
    return reading.plain(buckets, usage, model_of(fields.model_version), tier_of(usage))


class Grounding:
    """What was looked up for an answer. It is billed beside the tokens and told with the candidates, not with the usage."""

    __slots__ = ("_maps", "_retrieved", "_searched")

    def __init__(self) -> None:
        # Each query once: candidates and chunks repeat them.
        self._searched: dict[str, None] = {}
        self._retrieved: dict[str, None] = {}
        self._maps = False

    def take(self, candidates: Any) -> None:
        """Takes in the candidates of a body or of a chunk."""
        for candidate in candidates if isinstance(candidates, list) else ():
            found = candidate.get("groundingMetadata") if isinstance(candidate, dict) else None
            if isinstance(found, dict):
                for key in ("webSearchQueries", "imageSearchQueries"):
                    self._searched.update(dict.fromkeys(_texts(found.get(key))))
                self._retrieved.update(dict.fromkeys(_texts(found.get("retrievalQueries"))))
                chunks = found.get("groundingChunks")
                self._maps = self._maps or any(
                    isinstance(chunk, dict) and chunk.get("maps")
                    for chunk in (chunks if isinstance(chunks, list) else ())
                )

    def put_units(self, buckets: dict[str, int]) -> bool:
        """Enters the queries, and for places of the map one: those are billed per grounded prompt. False without any."""
        put(buckets, "grounding_query", len(self._searched))
        put(buckets, "file_search", len(self._retrieved))
        put(buckets, "map_query", int(self._maps))
        return bool(self._searched or self._retrieved or self._maps)

    def evidence(self) -> dict[str, Any]:
        """What was counted, in Google's own words."""
        return {
            "webSearchQueries": list(self._searched),
            "retrievalQueries": list(self._retrieved),
            "maps": self._maps,
        }


def _texts(values: Any) -> Iterator[str]:
    """Queries that are something; an empty one is not billed."""
    return (
        value
        for value in (values if isinstance(values, list) else ())
        if isinstance(value, str) and value.strip()
    )


def usage_of_metadata(
    reading: Reading,
    usage: Any,
    version: Any,
    grounding: Grounding | None = None,
    *,
    final: bool = True,
    batch: bool = False,
    **more: Any,
) -> Usage:
    """The usage that a `usageMetadata` object says, with what was looked up beside it."""
    model = model_of(version)
    if not isinstance(usage, Mapping):
        return reading.nothing(
            model, raw=usage, consistency="ok" if usage is None else "inconsistent", **more
        )
    counted = read_gemini(usage)
    raw = usage
    if grounding is not None and counted.known and grounding.put_units(counted.buckets):
        raw = {**usage, "groundingMetadata": grounding.evidence()}
    return reading.reported(
        counted,
        raw,
        model,
        source="reported" if final else "reported_partial",
        service_tier=tier_of(usage),
        batch=batch,
        **more,
    )


def tier_of(usage: Mapping[str, Any]) -> Any:
    """Vertex says the tier as kind of traffic, the Gemini API as tier."""
    traffic = text_or_none(usage.get("trafficType"))
    return usage.get("serviceTier") if traffic is None or traffic in _ORDINARY_TRAFFIC else traffic


def model_of(version: Any) -> str | None:
    """The model without the path that stands before it: `models/…`, `publishers/google/models/…`."""
    name = text_or_none(version)
    return name.rpartition("/")[2] or None if name and "/" in name else name


class GenerateStream:
    """Each chunk repeats the totals so far; any field may be told last. No event ends the stream but an error."""

    interesting: tuple[bytes, ...] = (b'"usageMetadata"', _GROUNDING, _FINISHED, b'"error"')
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._usage: Mapping[str, Any] | None = None
        self._model: Any = None
        self._grounding = Grounding()
        self._began = False  # an answer has been seen, not just an error or noise
        self._finished = False
        self._error: str | None = None

    def on_event(self, event: bytes, data: bytes) -> bool:
        looks_closer = _GROUNDING in data or _FINISHED in data
        try:
            chunk = _decode_chunk(data) if looks_closer else _decode(data)
        except UNREADABLE:
            return False
        self._began = self._began or b'"candidates"' in data or chunk.prompt_feedback is not None
        self._model = chunk.model_version or self._model
        if isinstance(chunk.usage_metadata, dict):
            self._usage = merge_latest(self._usage, chunk.usage_metadata)
        if isinstance(chunk, _Chunk):
            self._grounding.take(chunk.candidates)
            self._finished = self._finished or _has_finished(chunk.candidates)
        if chunk.error is not None:
            self._error = _name_of(chunk.error)
        return chunk.error is not None

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return _decode(data).error is not None
        except UNREADABLE:
            return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        more: dict[str, Any] = {"metadata": {"stream_error": self._error}} if self._error else {}
        if self._usage is None:
            return self._reading.estimated(
                model_of(self._model), events_seen if self._began else 0, more=more
            )
        final = self._finished or (complete and not self._error)
        return usage_of_metadata(
            self._reading, self._usage, self._model, self._grounding, final=final, **more
        )


def _has_finished(candidates: Any) -> bool:
    return isinstance(candidates, list) and any(
        isinstance(candidate, dict) and candidate.get("finishReason") for candidate in candidates
    )


def _name_of(error: Any) -> str:
    return text_or_none(error.get("status") if isinstance(error, dict) else None) or "error"
