"""Bedrock InvokeModel: the vendor's own body, whichever that is; streamed in frames of base64 with metrics in the last one."""

from binascii import Error as Base64Error, a2b_base64
from collections.abc import Mapping
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.anthropic_messages import MessagesStream, usage_of_message
from metering.extract.base import UNREADABLE, Reading, decode_body, merge_latest
from metering.extract.counts import Counted, Counters
from metering.extract.openai_chat import usage_of_fields
from metering.extract.shape_bedrock import model_and_region, read_converse, tier_of
from metering.problem import Native
from pricing.usage import Usage, tokens_of

_METRICS = "amazon-bedrock-invocationMetrics"
_MARKERS = (b"usage", b"token_count", b"TokenCount", b'"message_', b'"error"')


class _Body(msgspec.Struct):
    """The counters of every vendor whose body we know; `usage` is Anthropic's, Nova's, Mistral's or OpenAI's."""

    type: Any = None
    model: Any = None
    usage: Any = None
    metadata: Any = None  # Nova's, in a stream
    metrics: Any = msgspec.field(name=_METRICS, default=None)
    prompt_token_count: Any = None  # Llama
    generation_token_count: Any = None
    titan_input: Any = msgspec.field(name="inputTextTokenCount", default=None)
    titan_output: Any = msgspec.field(name="totalOutputTextTokenCount", default=None)
    results: Any = None  # Titan
    embedding: Any = None


class _Frame(msgspec.Struct):
    bytes: str | None = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_frame = msgspec.json.Decoder(_Frame).decode


class BedrockInvoke:
    name = "bedrock_invoke"
    version = 1
    extractor = "bedrock_invoke/1"
    native_errors: Native | None = None
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Body, body)
        if fields is None:
            return reading.nothing()
        return _at_bedrock(_usage(reading, _counters_of(fields), fields.metrics, fields.model), facts)

    def open_stream(self, facts: RequestFacts, provider: str) -> "InvokeStream":
        return InvokeStream(Reading(self.extractor, facts, provider))


def _counters_of(fields: _Body) -> Mapping[str, Any] | None:
    """The vendor's usage object; of those that have none, one made of the counters that lie about."""
    inner = fields.metadata.get("usage") if isinstance(fields.metadata, dict) else None
    for usage in (fields.usage, inner):
        if isinstance(usage, dict):
            return usage
    if fields.prompt_token_count is not None or fields.generation_token_count is not None:
        return {"inputTokens": fields.prompt_token_count, "outputTokens": fields.generation_token_count}
    if fields.titan_input is None and fields.titan_output is None:
        return None
    output = fields.titan_output
    if isinstance(fields.results, list):
        counts = [Counters().read(item, "tokenCount") for item in fields.results if isinstance(item, dict)]
        output = None if None in counts else sum(count for count in counts if count is not None)
    elif fields.embedding is not None:
        output = 0
    return {"inputTokens": fields.titan_input, "outputTokens": output}


def _usage(
    reading: Reading, usage: Mapping[str, Any] | None, metrics: Any, model: Any, *, final: bool = True
) -> Usage:
    """What the vendor counts, which tells more, checked against what Bedrock counts; either of them alone will do."""
    measured = metrics if isinstance(metrics, dict) else None
    if usage is None:
        if measured is None:
            return reading.nothing(model)
        return reading.reported(read_converse(measured), measured, model)
    if "inputTokens" in usage or "outputTokens" in usage:
        source: Any = "reported" if final else "reported_partial"
        said = reading.reported(read_converse(usage), usage, model, source=source)
    elif "input_tokens" in usage:
        said = usage_of_message(reading, usage, model, final=final)
    else:
        said = usage_of_fields(reading, usage, model, None, final=final)
    return said if measured is None else _checked(reading, said, read_converse(measured), measured)


def _checked(reading: Reading, said: Usage, counted: Counted, measured: Mapping[str, Any]) -> Usage:
    """What is billed is what Bedrock counted; the vendor's counters hold as long as they say the same."""
    if not counted.known or counted.unknown_sides:
        return said
    both = {"vendor": said.raw, _METRICS: measured}
    if said.source != "reported":  # nothing, an estimate or totals that were not the last
        return reading.reported(counted, both, said.model_served)
    if said.parts or (said.tokens_input, said.tokens_output) == tokens_of(counted.buckets):
        return msgspec.structs.replace(said, raw=both, source="reported")
    differs = Counted(counted.buckets, "inconsistent", rules=(*counted.rules, "metrics_differ"))
    return reading.reported(differs, both, said.model_served, service_tier=said.service_tier)


def _at_bedrock(usage: Usage, facts: RequestFacts) -> Usage:
    """Billed is the model by Bedrock's name, which the path has; the vendor calls it otherwise."""
    model, region = model_and_region(facts.model)
    tier = usage.service_tier or tier_of(model, None)
    return msgspec.structs.replace(
        usage, model_served=model or usage.model_served, region=region or usage.region, service_tier=tier
    )


class InvokeStream:
    """The vendor's events, unwrapped. Bedrock's metrics come with the last one and end the stream."""

    interesting: tuple[bytes, ...] = (b'"bytes"', *_MARKERS)
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._messages = MessagesStream(reading)
        self._usage: Mapping[str, Any] | None = None
        self._metrics: Any = None
        self._model: Any = None
        self._began = self._is_anthropic = False

    def on_event(self, event: bytes, data: bytes) -> bool:
        inner = _unwrapped(data)
        if self._began and not any(marker in inner for marker in _MARKERS):
            return False
        try:
            fields = _decode(inner)
        except UNREADABLE:
            return False
        self._began = True
        self._model = fields.model or self._model
        if isinstance(fields.type, str):
            self._is_anthropic = self._is_anthropic or fields.type == "message_start"
            self._messages.on_event(b"", inner)
        counters = _counters_of(fields)
        if counters is not None:
            self._usage = merge_latest(self._usage, counters)
        self._metrics = fields.metrics or self._metrics
        return fields.metrics is not None

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return _decode(_unwrapped(data)).metrics is not None
        except UNREADABLE:
            return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        reading, facts = self._reading, self._reading.facts
        final = complete or self._metrics is not None
        if self._is_anthropic:
            said = self._messages.usage(events_seen, complete)
            if isinstance(self._metrics, dict):
                said = _checked(reading, said, read_converse(self._metrics), self._metrics)
            return _at_bedrock(said, facts)
        if self._usage is None and self._metrics is None:
            return _at_bedrock(reading.estimated(None, events_seen if self._began else 0), facts)
        return _at_bedrock(_usage(reading, self._usage, self._metrics, self._model, final=final), facts)


def _unwrapped(data: bytes) -> bytes:
    """The vendor's event in a frame; one that is not wrapped is it already."""
    try:
        wrapped = _decode_frame(data).bytes
        return data if wrapped is None else a2b_base64(wrapped)
    except (*UNREADABLE, Base64Error):
        return data
