"""The text that an answer delivered: what its output is estimated by where nobody said what it was.

Four bytes of UTF-8 a token, rounded up, for a whole answer as for the same one streamed. What counts is what a model writes:
text, thoughts that are shown, refusals, arguments of tool calls. Media in base64 is no text.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from metering.estimate import BYTES_PER_TOKEN, RequestFacts
from pricing.usage import UnknownSide, Usage

SAMPLE_BYTES = 16 * 1024
_DEPTH_MAX = 12
_BASE64 = re.compile(rb"[A-Za-z0-9+/_=-]{257,}\Z")  # longer than any word

# Where an answer of a known shape holds what the model wrote, and under which names.
_ROOTS = ("choices", "output", "outputs", "content", "candidates", "message", "generations")
_PLAIN_ROOTS = ("output", "response", "text", "completion")
_SAME = ("reasoning", "reasoning_content")  # some servers say it under both names
_TEXTS = frozenset({"content", "text", "thinking", "refusal", "arguments", "completion"})
_DOCUMENTS = frozenset({"input", "args"})  # arguments that are no text
_ASIDE = frozenset(
    {"logprobs", "annotations", "citations", "groundingMetadata", "citationMetadata", "audio", "inlineData", "metadata"}
)  # fmt: skip


def _string_of(key: str) -> re.Pattern[bytes]:
    return re.compile(rb'"%b"\s*:\s*"([^"\\]*(?:\\.[^"\\]*)*)"' % key.encode())


_CHAT = ("content", "refusal", "arguments", *_SAME)
_BLOCKS = ("text", "thinking", "partial_json")
_STRINGS = {key: (b'"%b"' % key.encode(), _string_of(key)) for key in ("delta", *_CHAT, *_BLOCKS, "response")}


class Sample:
    """The first events of a stream, kept unread: they are read only where nobody said what the stream used. From the text in
    them, and the number of all events, follows what was delivered; exactly so for a stream that is no longer than they are.
    """

    __slots__ = ("_events", "_kept", "room")

    def __init__(self) -> None:
        self._kept: list[bytes] = []
        self._events = 0
        self.room = SAMPLE_BYTES  # what is over when there is none is not kept; the event that fills it is

    def add(self, block: bytes, events: int = 1) -> bool:
        """Keep whole events. Whether more are wanted."""
        self._kept.append(block)
        self._events += events
        self.room -= len(block)
        return self.room > 0

    def tokens(self, events: int) -> int:
        """The tokens delivered in so many events, by estimate; one for each where there was no text of a known shape."""
        size = text_size(b"\n".join(self._kept))
        if not size or not self._events:
            return events
        return -(-size * events // (BYTES_PER_TOKEN * self._events))


def text_size(block: bytes) -> int:
    """The bytes of text that the events in `block` deliver. Each says a piece of it under one of a few names."""
    of = {}
    for key, (name, pattern) in _STRINGS.items():
        of[key] = sum(map(_bytes_of, pattern.findall(block))) if name in block else 0
    if of["delta"]:  # such streams say everything once more in the events that end a part
        return of["delta"]
    chat = sum(of[key] for key in _CHAT) - min(of[key] for key in _SAME)
    return max(chat, sum(of[key] for key in _BLOCKS), of["response"] + of["thinking"])


def estimated_from_text(usage: Usage, body: bytes, facts: RequestFacts) -> Usage:
    """The usage of a whole answer that does not say any, by the text in it and by the request. `usage` as it is where there
    is no text of a known shape, and where no model is known that could have written it. Never raises."""
    if not usage.model:
        return usage
    try:
        document = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return usage
    size = _text_bytes(document) if isinstance(document, dict) else 0
    if not size:
        return usage
    buckets = {"out_visible": -(-size // BYTES_PER_TOKEN)}
    unknown: tuple[UnknownSide, ...] = ("input",)
    if facts.readable:
        buckets, unknown = {"in_uncached": facts.tokens_input_estimate, **buckets}, ()
    return msgspec.structs.replace(usage, buckets=buckets, source="estimated", unknown_sides=unknown)


def is_error(event: bytes, data: bytes) -> bool:
    """Whether an event, or a body, says that the answer failed."""
    if event == b"error":
        return True
    if b'"error"' not in data and b"failed" not in data:
        return False
    try:
        document = msgspec.json.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return False
    if not isinstance(document, dict):
        return False
    return bool(document.get("error")) or document.get("type") in (
        "error",
        "response.failed",
        "execution.failed",
    )


def _text_bytes(document: Mapping[str, Any]) -> int:
    plain = sum(_size_of(document.get(name)) for name in _PLAIN_ROOTS)
    return plain + sum(_walk(document.get(name), 0) for name in _ROOTS)


def _walk(value: Any, depth: int) -> int:
    if depth > _DEPTH_MAX:
        return 0
    if isinstance(value, list):
        return sum(_walk(item, depth + 1) for item in value)
    if not isinstance(value, dict):
        return 0
    same = [_size_of(value.get(name)) for name in _SAME]
    return max(same) + sum(_sizes(value, depth))


def _sizes(value: Mapping[str, Any], depth: int) -> Iterator[int]:
    for name, item in value.items():
        if name in _ASIDE or name in _SAME:
            continue
        if name in _DOCUMENTS and isinstance(item, (dict, list)):
            yield len(msgspec.json.encode(item)) if item else 0
        elif isinstance(item, str):
            yield _size_of(item) if name in _TEXTS else 0
        else:
            yield _walk(item, depth + 1)


def _size_of(text: Any) -> int:
    if not isinstance(text, str):
        return 0
    encoded = text.encode("utf-8", "surrogatepass")
    return 0 if _BASE64.match(encoded) else len(encoded)


def _bytes_of(escaped: bytes) -> int:
    """The bytes of UTF-8 that a string in JSON stands for."""
    if b"\\" in escaped:
        try:
            return _size_of(msgspec.json.decode(b'"' + escaped + b'"'))
        except (
            msgspec.MsgspecError,
            ValueError,
        ):  # half of a surrogate pair: the other half is in the next event
            return len(escaped) // 2
    return 0 if _BASE64.match(escaped) else len(escaped)
