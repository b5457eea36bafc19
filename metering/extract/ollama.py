"""Ollama's own API: counts among durations on the body, or on the last line of a stream, the one that is done."""

from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body
from metering.extract.counts import Counters, text_or_none
from metering.problem import Native
from pricing.usage import UnknownSide, Usage


class _Answer(msgspec.Struct):
    model: Any = None
    done: Any = None
    prompt_eval_count: Any = None
    eval_count: Any = None
    embeddings: Any = None
    error: Any = None


_decode = msgspec.json.Decoder(_Answer).decode


class Ollama:
    """Chat, generate and embed. A count may be left out, as that of a prompt that was cached; it is unknown then, not 0."""

    name = "ollama"
    version = 1
    extractor = "ollama/1"
    native_errors: Native | None = None
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        answer = decode_body(_decode, _Answer, body)
        return reading.nothing() if answer is None else _usage(reading, answer)

    def open_stream(self, facts: RequestFacts, provider: str) -> "OllamaStream":
        return OllamaStream(Reading(self.extractor, facts, provider))


def _usage(reading: Reading, answer: _Answer) -> Usage:
    raw = {
        name: value
        for name in ("prompt_eval_count", "eval_count")
        if (value := getattr(answer, name)) is not None
    }
    if not raw:
        return reading.nothing(answer.model)
    counters = Counters()
    tokens_in = counters.read(raw, "prompt_eval_count")
    tokens_out = counters.read(raw, "eval_count")
    if tokens_out is None and "eval_count" not in raw and answer.embeddings is not None:
        tokens_out = 0
    buckets: dict[str, int] = {}
    unknown: tuple[UnknownSide, ...] = ()
    if tokens_in is None:
        unknown = ("input",)
    else:
        buckets["in_uncached"] = tokens_in
    if tokens_out is None:
        unknown = (*unknown, "output")
    else:
        buckets["out_visible"] = tokens_out
    return reading.reported(counters.counted(buckets, unknown), raw, answer.model)


class OllamaStream:
    """One line per piece of text. The line that is done has the counts, an error line has none; either ends the stream."""

    interesting: tuple[bytes, ...] = (b'"done"', b'"error"')
    boring: tuple[bytes, ...] = (b'"done":false', b'"done": false')
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._last: _Answer | None = None
        self._model: str | None = None
        self._began = False  # an answer has been seen, not just an error or noise
        self._error = False

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            answer = _decode(data)
        except UNREADABLE:
            return False
        self._model = text_or_none(answer.model) or self._model
        self._began = self._began or answer.done is not None
        if answer.done is True:
            self._last = answer
        self._error = self._error or answer.error is not None
        return answer.done is True or answer.error is not None

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            answer = _decode(data)
        except UNREADABLE:
            return False
        return answer.done is True or answer.error is not None

    def usage(self, events_seen: int, complete: bool) -> Usage:
        if self._last is not None:
            usage = _usage(self._reading, self._last)
            if usage.source != "none":
                return usage
        more: dict[str, Any] = {"metadata": {"stream_error": "error"}} if self._error else {}
        return self._reading.estimated(self._model, events_seen if self._began else 0, more=more)
