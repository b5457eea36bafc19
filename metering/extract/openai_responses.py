"""OpenAI Responses: usage on the body; in a stream inside the response object of the terminal event.

Tools are billed beside the tokens, and stand outside of `usage`: `metering.extract.response_tools` reads them. A
compaction (`response.compaction`) is a billable call of its own and has the same shape without a model.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, kind_of
from metering.extract.counts import text_or_none
from metering.extract.openai_chat import plain_usage, usage_of_counted
from metering.extract.response_tools import Output, have_run_in, have_tools_run, with_tools
from metering.extract.shape_openai import read_openai
from metering.extract.shapes import read_usage
from pricing.usage import Usage

_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})


class Response(msgspec.Struct):
    model: Any = None
    service_tier: Any = None
    usage: Any = None
    tool_usage: Any = None


class _Body(Response):
    """What nearly every body is; one that is not is read as a `Response`, and its text searched for tools."""

    output: list[Output] | None = None
    response: None = None


class _Event(msgspec.Struct):
    type: Any = None
    response: Response | None = None


_decode = msgspec.json.Decoder(Response).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_event = msgspec.json.Decoder(_Event).decode


class OpenAIResponses:
    name = "openai_responses"
    version = 2
    extractor = "openai_responses/2"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        plain = _plainly(reading, body)
        if plain is not None:
            return plain
        response = decode_body(_decode, Response, body)
        return reading.nothing() if response is None else usage_of_response(reading, response, body)

    def open_stream(self, facts: RequestFacts, provider: str) -> "ResponsesStream":
        return ResponsesStream(Reading(self.extractor, facts, provider))


def _plainly(reading: Reading, body: bytes) -> Usage | None:
    """The usage of a body in which no tool ran and there is nothing to note; None for any other."""
    try:
        fields = _decode_body(body)
    except UNREADABLE:
        return None
    if type(fields.usage) is not dict or have_run_in(fields.tool_usage, fields.output or []):
        return None
    return plain_usage(reading, fields.usage, fields.model, fields.service_tier)


def usage_of_response(reading: Reading, response: Response, text: bytes, **more: Any) -> Usage:
    """The usage of a response object; `text` is the JSON that held it, where the tools that ran are looked for."""
    usage, model = response.usage, response.model
    if type(usage) is not dict and not isinstance(usage, Mapping):
        return reading.nothing(
            model,
            raw=usage,
            consistency="ok" if usage is None else "inconsistent",
            service_tier=response.service_tier,
            **more,
        )
    read = read_openai if "total_tokens" in usage else read_usage
    counted = read(usage, reading.provider, text_or_none(model) or reading.facts.model or "")
    raw: Mapping[str, Any] = usage
    if have_tools_run(response.tool_usage, text):
        counted, raw = with_tools(counted, usage, response.tool_usage, text)
    return usage_of_counted(reading, counted, usage, raw, model, response.service_tier, text=text, **more)


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
        self._text = b""  # of the event that holds it
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
            self._text = data if response.usage is not None else b""
        return kind_of(event, decoded.type) in _TERMINAL

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return kind_of(event, _decode_event(data).type) in _TERMINAL
        except UNREADABLE:
            return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        response = self._response
        if response.usage is None:
            more = {"service_tier": response.service_tier}
            return self._reading.estimated(response.model, events_seen if self._began else 0, more=more)
        return usage_of_response(self._reading, response, self._text)
