"""Our own `/v1/execute`: usage of any known shape, in the body, on the last event of a stream, or in the X-Usage header."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, is_done, kind_of, merge_latest
from metering.extract.counts import text_or_none
from metering.extract.openai_chat import usage_of_fields
from metering.extract.openai_responses import Response, usage_of_response
from pricing.usage import Usage

_TERMINAL = frozenset(
    {
        "execution.completed",
        "execution.failed",
        "message_stop",
        "response.completed",
        "response.incomplete",
        "response.failed",
    }
)


class _Body(msgspec.Struct):
    type: Any = None
    execution_id: Any = None
    model: Any = None
    task_type: Any = None
    service_tier: Any = None
    usage: Any = None
    response: Any = None  # providers put their usage one level down in some events
    message: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class Execute:
    name = "execute"
    version = 1
    extractor = "execute/1"
    native_errors: Literal["openai", "anthropic"] | None = None
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Body, body)
        if fields is None:
            return reading.nothing()
        return usage_of_fields(
            reading, fields.usage, fields.model, fields.service_tier,
            text=body, execution_id=text_or_none(fields.execution_id), task_type=text_or_none(fields.task_type),
        )  # fmt: skip

    def open_stream(self, facts: RequestFacts, provider: str) -> "ExecuteStream":
        return ExecuteStream(Reading(self.extractor, facts, provider))


def read_header(value: str | bytes, facts: RequestFacts, provider: str) -> Usage:
    """The usage in an `X-Usage` header: a JSON object, either usage itself or one that holds `usage`. Never raises."""
    reading = Reading("x_usage/1", facts, provider)
    try:
        document = msgspec.json.decode(value)
    except UNREADABLE:
        return reading.nothing(consistency="inconsistent")
    if not isinstance(document, dict):
        return reading.nothing(raw=document, consistency="inconsistent")
    return usage_of_document(reading, document)


def usage_from_mapping(
    document: Mapping[str, Any], facts: RequestFacts | None = None, provider: str = ""
) -> Usage:
    """The usage in a provider's usage object of any known shape, or in an answer that holds one. Never raises."""
    return usage_of_document(Reading("mapping/1", facts or RequestFacts(), provider), document)


def usage_of_document(reading: Reading, document: Mapping[str, Any]) -> Usage:
    """Usage itself, or under `usage` or `usageMetadata` with model, tier and ids beside it."""
    inner = document.get("usage", document.get("usageMetadata"))
    usage = inner if isinstance(inner, Mapping) else document
    model, tier = document.get("model", document.get("modelVersion")), document.get("service_tier")
    ids: dict[str, Any] = {name: text_or_none(document.get(name)) for name in ("execution_id", "task_type")}
    if usage is inner and ("tool_usage" in document or isinstance(document.get("output"), list)):
        response = Response(model, tier, usage, document.get("tool_usage"))
        return usage_of_response(reading, response, _json_of(document), **ids)
    return usage_of_fields(reading, usage, model, tier, breakdown=document.get("usage_breakdown"), **ids)


def _json_of(document: Mapping[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(document)
    except (TypeError, ValueError, RecursionError, OverflowError):
        return b""  # objects of the application's own: what they hold besides the usage is not looked at


class ExecuteStream:
    """Any of the known streams; what matters is a usage object, at the top of an event or one level down."""

    interesting: tuple[bytes, ...] = (b'"usage"', b"execution.", b"message_stop")
    boring: tuple[bytes, ...] = (b'"usage":null', b'"usage": null')
    quiet: frozenset[bytes] = frozenset({b"event: execution.delta"})

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._usage: Mapping[str, Any] | None = None
        self._facts: dict[str, str | None] = {
            "model": None,
            "service_tier": None,
            "execution_id": None,
            "task_type": None,
        }
        self._began = False  # an answer has been seen, not just an error or noise
        self._ended = False

    def on_event(self, event: bytes, data: bytes) -> bool:
        if is_done(data):
            self._ended = True
            return True
        try:
            fields = _decode(data)
        except UNREADABLE:
            return False
        self._began = self._began or any((fields.execution_id, fields.model, fields.response, fields.message))
        self._note(fields.model, fields.service_tier, fields.execution_id, fields.task_type)
        usage = fields.usage
        for inner in (fields.response, fields.message):
            if isinstance(inner, dict):
                self._note(inner.get("model"), inner.get("service_tier"), None, None)
                usage = inner.get("usage") if usage is None else usage
        if isinstance(usage, dict):
            self._usage = merge_latest(self._usage, usage)
        ends = kind_of(event, fields.type) in _TERMINAL
        self._ended = self._ended or ends
        return ends

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return is_done(data) or kind_of(event, _decode(data).type) in _TERMINAL
        except UNREADABLE:
            return False

    def _note(self, *values: Any) -> None:
        for key, value in zip(self._facts, values, strict=True):
            self._facts[key] = text_or_none(value) or self._facts[key]

    def usage(self, events_seen: int, complete: bool) -> Usage:
        facts = self._facts
        ids: dict[str, Any] = {"execution_id": facts["execution_id"], "task_type": facts["task_type"]}
        model, tier = facts["model"], facts["service_tier"]
        if self._usage is None:
            return self._reading.estimated(
                model, events_seen if self._began else 0, more={"service_tier": tier, **ids}
            )
        final = self._ended or complete
        return usage_of_fields(self._reading, self._usage, model, tier, final=final, **ids)
