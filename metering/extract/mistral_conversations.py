"""Mistral Conversations and agents: usage on the body; in a stream on `conversation.response.done`.

Connectors (web search, code, images) are billed by the call, and what they fetched by tokens: those are input that no
caller wrote.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, decode_body, kind_of, merge_latest
from metering.extract.counts import Counted, Counters, put, text_or_none
from metering.extract.openai_chat import usage_of_counted
from metering.extract.shape_openai import read_openai
from pricing.usage import Usage

CONNECTOR_TOKENS_INSIDE = "connector_tokens_inside"  # the prompt counts them as well, says the total

_TERMINAL = frozenset({"conversation.response.done", "conversation.response.error"})


class _Entry(msgspec.Struct):
    model: Any = None


class _Body(msgspec.Struct):
    type: Any = None
    model: Any = None
    outputs: list[_Entry] | None = None
    usage: Any = None


class _Bare(msgspec.Struct):
    """The same where the outputs are of another shape."""

    type: Any = None
    model: Any = None
    usage: Any = None


_decode = msgspec.json.Decoder(_Body).decode
_decode_bare = msgspec.json.Decoder(_Bare).decode


class MistralConversations:
    name = "mistral_conversations"
    version = 1
    extractor = "mistral_conversations/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Body, body)
        if fields is None:
            bare = decode_body(_decode_bare, _Bare, body)
            return reading.nothing() if bare is None else _usage(reading, bare.usage, bare.model)
        named = (text_or_none(entry.model) for entry in fields.outputs or ())
        return _usage(reading, fields.usage, fields.model or next(filter(None, named), None))

    def open_stream(self, facts: RequestFacts, provider: str) -> "ConversationStream":
        return ConversationStream(Reading(self.extractor, facts, provider))


def _usage(reading: Reading, usage: Any, model: Any, *, final: bool = True) -> Usage:
    if not isinstance(usage, Mapping):
        return reading.nothing(model, raw=usage, consistency="ok" if usage is None else "inconsistent")
    counted = read_conversation(usage, reading.provider, text_or_none(model) or reading.facts.model or "")
    return usage_of_counted(reading, counted, usage, usage, model, None, final=final)


def read_conversation(usage: Mapping[str, Any], provider: str = "", model: str = "") -> Counted:
    """Buckets of one usage object. The total tells whether the connectors' tokens are in the prompt or beside it."""
    counters = Counters()
    tokens = counters.read(usage, "connector_tokens") or 0
    prompt, completion, total = (
        counters.read(usage, name) for name in ("prompt_tokens", "completion_tokens", "total_tokens")
    )
    if not tokens or prompt is None:
        return read_openai(usage, provider, model)
    inside = tokens <= prompt and total is not None and total == prompt + (completion or 0)
    if inside:
        counters.repair(CONNECTOR_TOKENS_INSIDE)
        plain = {**usage, "prompt_tokens": prompt - tokens, "total_tokens": total - tokens if total else None}
    else:
        plain = {**usage, "total_tokens": total - tokens if total is not None and total >= tokens else total}
    counted = read_openai(plain, provider, model)
    counters.take(counted)
    buckets = dict(counted.buckets)
    put(buckets, "in_tool_prompt", tokens)
    return counters.counted(buckets, counted.unknown_sides)


class ConversationStream:
    """The last event has the usage; the model stands on the pieces of the message, since an agent's request names none."""

    interesting: tuple[bytes, ...] = (b'"model"', b'"usage"', b"conversation.response.")
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._usage: Mapping[str, Any] | None = None
        self._model: str | None = None
        self._began = False
        self._final = False

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            fields = _decode_bare(data)
        except UNREADABLE:
            return False
        kind = kind_of(event, fields.type)
        self._began = self._began or kind.startswith(("conversation.", "message.", "tool.", "agent."))
        self._model = text_or_none(fields.model) or self._model
        if isinstance(fields.usage, dict):
            self._usage = merge_latest(self._usage, fields.usage)
        self._final = self._final or kind in _TERMINAL
        return kind in _TERMINAL

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        try:
            return kind_of(event, _decode_bare(data).type) in _TERMINAL
        except UNREADABLE:
            return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        if self._usage is None:
            return self._reading.estimated(self._model, events_seen if self._began else 0)
        return _usage(self._reading, self._usage, self._model, final=self._final or complete)
