"""OpenAI Batch, and the batches of those who copied it: the batch object, and its results, one JSON document a line.

Both say the same usage, the object as a sum and the lines one by one, so only one of them may be metered. Whatever tier a
line names, it was a batch.
"""

from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body
from metering.extract.counts import Counted, text_or_none
from metering.extract.openai_chat import usage_of_body, usage_of_fields
from metering.extract.openai_responses import OpenAIResponses
from metering.extract.tally import Tally
from pricing.units import REQUEST
from pricing.usage import Usage, UsagePart


class _Result(msgspec.Struct):
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Line(msgspec.Struct):
    """A line of results, or the batch object: that has no `response`."""

    id: Any = None
    object: Any = None
    model: Any = None
    usage: Any = None
    request_counts: Any = None
    response: _Result | None = None


class _Answer(msgspec.Struct):
    object: Any = None


_REQUESTS_MAX = 10_000_000  # in one batch; what is more is no count
_decode = msgspec.json.Decoder(_Line).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode


class OpenAIBatch:
    name = "openai_batch"
    version = 1
    extractor = "openai_batch/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        """The usage of a batch object, of a line, or of all lines together."""
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Line, body)
        if fields is None:
            stream = BatchStream(reading)
            for line in body.splitlines():
                stream.on_event(b"", line)
            return stream.usage(0, complete=True)
        if fields.response is not None:
            return _usage_of_result(reading, fields.response)
        usage = usage_of_fields(reading, fields.usage, fields.model, None, text=body)
        done = _requests_done(fields.request_counts)
        buckets = {**usage.buckets, REQUEST: done} if usage.buckets and done else usage.buckets
        return msgspec.structs.replace(usage, buckets=buckets, batch=True)

    def open_stream(self, facts: RequestFacts, provider: str) -> "BatchStream":
        return BatchStream(Reading(self.extractor, facts, provider))


def usage_of_line(line: bytes, facts: RequestFacts, provider: str) -> Usage:
    """What one line of results used, so that each line can be settled by itself. Never raises.

    Source `none` where the line is no result, or the result of a request that failed.
    """
    return OpenAIBatch().read_body(line, facts, provider)


def _requests_done(counts: Any) -> int:
    """How many calls a sum is of: no price of long calls holds because many short ones add up. 0: nobody said."""
    done = counts.get("completed") if type(counts) is dict else None
    return done if type(done) is int and 0 < done <= _REQUESTS_MAX else 0


def _usage_of_result(reading: Reading, result: _Result) -> Usage:
    body = bytes(result.body)
    try:
        kind = text_or_none(_decode_answer(body).object) or ""
    except UNREADABLE:
        kind = ""
    if kind.startswith("response"):
        usage = OpenAIResponses().read_body(body, reading.facts, reading.provider)
    else:
        usage = usage_of_body(reading, body)
    return msgspec.structs.replace(usage, batch=True, extractor=reading.extractor)


class BatchStream:
    """Each line is a call of its own; they are added up, by model where there are several."""

    interesting: tuple[bytes, ...] = (b'"response"',)
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._tally = Tally()
        self._models: dict[str, None] = {}

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            line = _decode(data)
        except UNREADABLE:
            return False
        if line.response is not None:
            self._add(_usage_of_result(self._reading, line.response), text_or_none(line.id) or "")
        return False

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        if self._tally.empty:
            return self._reading.nothing(batch=True)
        counted = self._tally.counted()
        model = None
        if len(self._models) == 1:
            (model,) = self._models
            counted.parts = ()
        return self._reading.reported(
            counted,
            {"reports": self._tally.reports},
            model,
            source="reported" if complete else "reported_partial",
            batch=True,
        )

    def _add(self, usage: Usage, key: str) -> None:
        if usage.source == "none":
            return
        for place, part in enumerate(usage.parts or (UsagePart(usage.buckets),)):
            model = part.model or usage.model
            self._models[model] = None
            buckets = dict(part.buckets) if place else {**part.buckets, REQUEST: 1}
            counted = Counted(buckets, usage.consistency, usage.unknown_sides, usage.rules)
            own_key = key and f"{key}/{part.kind}/{part.model}"
            self._tally.add(counted, model, "line", key=own_key, raw=usage.raw)
