"""Cloudflare Workers AI, `/ai/run/<model>`: the answer in `result`, and usage in it. Streams may say none.

The model stands in the path only, so it is the requested one.
"""

from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import Reading, decode_body
from metering.extract.openai_chat import ChatStream, usage_of_fields
from pricing.usage import Usage


class _Result(msgspec.Struct):
    model: Any = None
    usage: Any = None


class _Body(msgspec.Struct):
    model: Any = None
    usage: Any = None  # where a gateway took the wrapping off


class _Wrapped(msgspec.Struct):
    result: _Result


_decode = msgspec.json.Decoder(_Body).decode
_decode_wrapped = msgspec.json.Decoder(_Wrapped).decode


class CloudflareRun:
    name = "cloudflare_run"
    version = 1
    extractor = "cloudflare_run/1"
    native_errors: Literal["openai", "anthropic"] | None = None
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        wrapped = decode_body(_decode_wrapped, _Wrapped, body)
        if wrapped is not None and wrapped.result.usage is not None:
            return usage_of_fields(reading, wrapped.result.usage, wrapped.result.model, None, text=body)
        fields = decode_body(_decode, _Body, body)
        if fields is None:
            return reading.nothing()
        return usage_of_fields(reading, fields.usage, fields.model, None, text=body)

    def open_stream(self, facts: RequestFacts, provider: str) -> "RunStream":
        return RunStream(Reading(self.extractor, facts, provider))


class RunStream(ChatStream):
    """Events `{"response": "text"}`, and usage where there is some."""

    def on_event(self, event: bytes, data: bytes) -> bool:
        done = super().on_event(event, data)
        self._began = self._began or b'"response"' in data
        return done
