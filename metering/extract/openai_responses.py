"""OpenAI Responses: usage on the body; in a stream inside the response object of the terminal event."""

from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, kind_of
from metering.extract.counts import Counters, put, text_or_none
from metering.extract.openai_chat import usage_of_fields
from pricing.usage import Usage

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})


class Response(msgspec.Struct):
    model: Any = None
    service_tier: Any = None
    usage: Any = None
    tool_usage: Any = None


class _Event(msgspec.Struct):
    type: Any = None
    response: Response | None = None


_decode = msgspec.json.Decoder(Response).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class OpenAIResponses:
    name = "openai_responses"
    version = 1
    extractor = "openai_responses/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        response = decode_body(_decode, Response, body)
        return reading.nothing() if response is None else _usage(reading, response)

    def open_stream(self, facts: RequestFacts, provider: str) -> "ResponsesStream":
        return ResponsesStream(Reading(self.extractor, facts, provider))


def _usage(reading: Reading, response: Response) -> Usage:
    """Tools are billed beside the tokens: searches by number, generated images by tokens of a model of their own.

    The latter cannot be priced as this model's; they stay in the raw usage and make the result `inconsistent`.
    """
    usage = usage_of_fields(reading, response.usage, response.model, response.service_tier)
    tools = response.tool_usage
    if not isinstance(tools, dict) or usage.source == "none":
        return usage
    counters = Counters()
    buckets = dict(usage.buckets)
    put(buckets, "web_search", counters.read(counters.group(tools, "web_search"), "num_requests"))
    image_tokens = counters.read(counters.group(tools, "image_gen"), "total_tokens")
    if buckets == usage.buckets and not image_tokens and not counters.flawed:
        return usage
    return msgspec.structs.replace(
        usage,
        buckets=buckets,
        raw={**response.usage, "tool_usage": tools},
        consistency="inconsistent" if image_tokens or counters.flawed else usage.consistency,
    )


class ResponsesStream:
    """Only events that carry the response object matter; the last of them is the terminal one and repeats everything."""

    interesting: tuple[bytes, ...] = (b'"response"', b'"error"')
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset(
        b"event: response." + name
        for name in (
            b"output_text.delta", b"refusal.delta", b"function_call_arguments.delta", b"custom_tool_call_input.delta",
            b"reasoning_text.delta", b"reasoning_summary_text.delta", b"code_interpreter_call_code.delta",
            b"mcp_call_arguments.delta", b"audio.delta", b"audio.transcript.delta",
        )
    )  # fmt: skip

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._response = Response()
        self._began = False  # an answer has been seen, not just an error or noise

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            decoded = _decode_event(data)
        except UNREADABLE:
            return False
        response = decoded.response
        self._began = self._began or response is not None
        if response is not None and (response.usage is not None or self._response.usage is None):
            self._response = response
        return kind_of(event, decoded.type) in _TERMINAL

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return kind_of(event, _decode_event(data).type) in _TERMINAL
        except UNREADABLE:
            return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        response = self._response
        if response.usage is None:
            more = {"service_tier": text_or_none(response.service_tier)}
            return self._reading.estimated(response.model, events_seen if self._began else 0, more=more)
        return _usage(self._reading, response)
