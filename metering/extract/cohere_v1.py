"""Cohere v1 chat, embed and rerank: billed units in `meta`; streamed as lines, the last of which holds the response."""

from collections.abc import Mapping
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, kind_of
from metering.extract.shape_cohere import read_cohere
from metering.problem import Native
from pricing.usage import Usage

_END = "stream-end"


class _Body(msgspec.Struct):
    meta: Any = None


class _Event(msgspec.Struct):
    event_type: Any = None
    response: Any = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class CohereV1:
    name = "cohere_v1"
    version = 1
    extractor = "cohere_v1/1"
    native_errors: Native | None = None
    has_output = True  # of the chat; embeddings and reranking ignore a limit

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Body, body)
        return reading.nothing() if fields is None else _usage(reading, fields.meta)

    def open_stream(self, facts: RequestFacts, provider: str) -> "V1Stream":
        return V1Stream(Reading(self.extractor, facts, provider))


def _usage(reading: Reading, meta: Any) -> Usage:
    if not isinstance(meta, Mapping):
        return reading.nothing(raw=meta, consistency="ok" if meta is None else "inconsistent")
    counts = {key: meta[key] for key in ("billed_units", "tokens", "cached_tokens") if key in meta}
    return reading.reported(read_cohere(counts, only_what_is_named=True), counts or None, None)


class V1Stream:
    """`stream-start`, then text, then `stream-end` with the whole response."""

    interesting: tuple[bytes, ...] = (b'"stream-', b'"meta"')
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._meta: Any = None
        self._began = False  # an answer has been seen, not just an error or noise

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            decoded = _decode_event(data)
        except UNREADABLE:
            return False
        kind = kind_of(event, decoded.event_type)
        self._began = self._began or bool(kind)
        if isinstance(decoded.response, dict):
            self._meta = decoded.response.get("meta") or self._meta
        return kind == _END

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return kind_of(event, _decode_event(data).event_type) == _END
        except UNREADABLE:
            return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        if self._meta is None:
            return self._reading.estimated(None, events_seen if self._began else 0)
        return _usage(self._reading, self._meta)
