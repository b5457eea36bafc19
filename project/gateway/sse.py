"""Server-sent events as bytes: cut a stream into its events, and take out the one that the caller did not ask for."""

import re
from collections.abc import Callable
from typing import Any

import msgspec

Json = dict[str, Any]

# The empty line that ends an event. A carriage return at the very end may be half of a CRLF, so it waits for what follows.
_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?![\n]|\Z)){2}")
_END_LENGTH_MAX = 4
_USAGE_NOT_NULL = re.compile(rb'"usage"\s*:\s*[^\sn]')
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventSplitter:
    """Cuts chunks that end anywhere into whole events, each with the empty line that ends it; joined they are the stream."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events that `chunk` completes. Work is linear in what is fed, however small the chunks."""
        searched = max(0, len(self._rest) - _END_LENGTH_MAX)
        self._rest += chunk
        ends = [found.end() for found in _EVENT_END.finditer(self._rest, searched)]
        if not ends:
            return []
        events = [bytes(self._rest[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
        del self._rest[: ends[-1]]
        return events

    def rest(self) -> bytes:
        """What is left at the end of the stream: an event that was never ended, or nothing."""
        left, self._rest = bytes(self._rest), bytearray()
        return left


def data_of(event: bytes) -> bytes:
    """The data of one event: its `data:` lines, joined by line feeds as the standard says."""
    lines = (line for line in _LINE_END.split(event) if line.startswith(b"data"))
    return b"\n".join(line[5:].removeprefix(b" ") for line in lines if line[4:5] == b":")


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] | None = None
    usage: Json | None = None
    model: str | None = None
    service_tier: str | None = None


class UsageStripper:
    """Takes the usage chunk out of an OpenAI chat stream whose caller had not asked for it; all other bytes pass.

    The chunk is the one with usage and with no choices: a chunk with neither (Azure's prompt filter) passes, and so does
    one with both (servers that report running totals). `report` gets what is taken out (`usage`, `model`, `service_tier`)
    before any byte that follows it goes out.
    """

    def __init__(self, report: Callable[[Json], object]) -> None:
        self._report, self._splitter = report, EventSplitter()

    def feed(self, chunk: bytes) -> bytes:
        """What of the events that `chunk` completes goes to the caller."""
        return b"".join(event for event in self._splitter.feed(chunk) if self._passes(event))

    def finish(self) -> bytes:
        """What goes out after the last chunk."""
        left = self._splitter.rest()
        return left if self._passes(left) else b""

    def _passes(self, event: bytes) -> bool:
        if not _USAGE_NOT_NULL.search(event):
            return True
        try:
            chunk = _CHUNK.decode(data_of(event))
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return True  # not what we look for; the caller gets it as it is
        if chunk.usage is None or chunk.choices != []:
            return True
        self._report({"usage": chunk.usage, "model": chunk.model, "service_tier": chunk.service_tier})
        return False


_CHUNK = msgspec.json.Decoder(_Chunk)
