"""OpenAI Chat Completions: usage on the body; in a stream on the last chunk before `[DONE]`, when it was asked for."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, is_done, merge_latest
from metering.extract.counts import text_or_none
from metering.extract.shape_openai import read_openai
from metering.extract.shapes import read_usage, reported_cost
from pricing.usage import Usage


class Body(msgspec.Struct):
    model: Any = None
    service_tier: Any = None
    usage: Any = None


class _Chunk(msgspec.Struct):
    model: Any = None
    service_tier: Any = None
    usage: Any = None
    choices: Any = None
    x_groq: Any = None


_decode = msgspec.json.Decoder(Body).decode
_decode_chunk = msgspec.json.Decoder(_Chunk).decode


class OpenAIChat:
    name = "openai_chat"
    version = 1
    extractor = "openai_chat/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        return usage_of_body(Reading(self.extractor, facts, provider), body)

    def open_stream(self, facts: RequestFacts, provider: str) -> "ChatStream":
        return ChatStream(Reading(self.extractor, facts, provider))


def usage_of_body(reading: Reading, body: bytes) -> Usage:
    """The usage of a body that carries `model`, `service_tier` and `usage` at its top."""
    fields = decode_body(_decode, Body, body)
    if fields is None:
        return reading.nothing()
    return usage_of_fields(reading, fields.usage, fields.model, fields.service_tier)


def usage_of_fields(
    reading: Reading, usage: Any, model: Any, service_tier: Any, *, final: bool = True, **more: Any
) -> Usage:
    """The usage that an object says, with the tier that was really used (which the answer says, not the request)."""
    if type(usage) is not dict and not isinstance(
        usage, Mapping
    ):  # the abstract check alone takes a third of a µs
        return reading.nothing(
            model, raw=usage, consistency="ok" if usage is None else "inconsistent", **more
        )
    counted = read_openai(usage) if "prompt_tokens" in usage else read_usage(usage)
    return reading.reported(
        counted,
        usage,
        model,
        source="reported" if final else "reported_partial",
        service_tier=text_or_none(service_tier) or text_or_none(usage.get("service_tier")),
        reported_cost=reported_cost(usage),
        **more,
    )


class ChatStream:
    """Some servers send running totals on every chunk, some only at the end: the latest value of each field holds."""

    interesting: tuple[bytes, ...] = (b'"usage"',)
    boring: tuple[bytes, ...] = (b'"usage":null', b'"usage": null')
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._usage: Mapping[str, Any] | None = None
        self._model: str | None = None
        self._service_tier: str | None = None
        self._began = False  # an answer has been seen, not just an error or noise
        self._final = False

    def on_event(self, event: bytes, data: bytes) -> bool:
        if is_done(data):
            self._final = True
            return True
        try:
            chunk = _decode_chunk(data)
        except UNREADABLE:
            return False
        self._began = self._began or isinstance(chunk.choices, list)
        self._model = text_or_none(chunk.model) or self._model
        self._service_tier = text_or_none(chunk.service_tier) or self._service_tier
        usage = chunk.usage
        if usage is None and isinstance(chunk.x_groq, dict):
            usage = chunk.x_groq.get("usage")
        if isinstance(usage, dict):
            self._usage = merge_latest(self._usage, usage)
            self._final = self._final or chunk.choices == []
        return False

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        return is_done(data)

    def usage(self, events_seen: int, complete: bool) -> Usage:
        if self._usage is None:
            seen = events_seen if self._began else 0
            return self._reading.estimated(self._model, seen, more={"service_tier": self._service_tier})
        final = self._final or complete
        return usage_of_fields(self._reading, self._usage, self._model, self._service_tier, final=final)
