"""The tap: watches the bytes of one answer go by and says at its end what the call used.

It changes nothing and keeps little: of a stream the event that is still open, of a JSON body the body up to a bound. Its
one word about time is the offset from which bytes must wait for the commit: the client must not hold the whole answer
before we have it in the books.
"""

import re
from collections import deque
from typing import Protocol

import msgspec

from metering.estimate import RequestFacts
from metering.extract import StreamReader, WireFormat
from metering.extract.base import Reading, is_done
from metering.extract.tail import usage_of_tail
from metering.inflate import READABLE_ENCODINGS, Inflater
from pricing.usage import Usage

BODY_MAX = 32 * 1024 * 1024  # bytes of a body, or of one event, that are kept
TAIL_BYTES = 1024 * 1024  # of a longer one, where usage is looked for at its end

_LF = 10
_EVENT_ENDS = (b"\n\n", b"\n\r\n")
_D, _BRACE = b"d}"  # no other field of an event begins with d
_BOUNDARY = re.compile(rb"\n\r?\n")
_DONE = b"[DONE]"
_BOM = b"\xef\xbb\xbf"
_SHORT_EVENT = 64  # bytes; looked at after every chunk, since `data: [DONE]` is as short
_EARLY_LOOKS_MAX = 8  # at a longer event that is not over yet, so that its cost stays linear


class Tap(Protocol):
    """Fed with each body chunk in order, then finished once."""

    def feed(self, chunk: bytes) -> int:
        """The offset in `chunk` from which bytes must wait for the commit, or -1 while the answer is not over.

        From the chunk on that completes the data of the terminal event, everything waits: the offset is where that event
        begins, 0 when it began in an earlier chunk. An incomplete event says nothing to the client, so it may pass.
        """

    def finish(self, complete: bool) -> Usage:
        """What the answer said of usage; `complete` is False when it broke off. Never raises."""


def open_tap(
    fmt: WireFormat,
    facts: RequestFacts,
    provider: str,
    content_type: str,
    content_encoding: str,
    *,
    body_max: int = BODY_MAX,
) -> Tap:
    """The tap for an answer with these headers. What it cannot read passes as well, with no usage and a note."""
    kind = content_type.partition(";")[0].strip().lower()
    tap: Tap
    if kind == "text/event-stream":
        tap = EventTap(fmt.open_stream(facts, provider), event_max=body_max)
    elif kind in ("", "application/json") or kind.endswith("+json"):
        tap = BodyTap(fmt, facts, provider, body_max=body_max)
    else:
        return BlindTap(fmt, facts, provider, f"content-type {kind} carries no usage")
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return tap
    if encoding in READABLE_ENCODINGS:
        return InflatingTap(tap)
    return BlindTap(fmt, facts, provider, f"content-encoding {encoding} is not read")


class EventTap:
    """Server-sent events.

    Nearly every chunk is one event without usage: it is counted, and that is all. Events are put together and decoded
    only where they contain a marker of the wire format and their name is not one of those that never matter.
    """

    __slots__ = (
        "_boring", "_ended", "_event_max", "_events", "_first", "_looks", "_marker", "_markers", "_only_marker",
        "_open_bytes", "_parts",
        "_quiet", "_reader", "_tail",
    )  # fmt: skip

    def __init__(self, reader: StreamReader, *, event_max: int = BODY_MAX) -> None:
        self._reader = reader
        self._marker, *rest = reader.interesting
        self._markers = tuple(rest)
        self._only_marker = b"" if rest else self._marker
        self._boring = reader.boring
        self._quiet = reader.quiet
        self._event_max = event_max
        # Of the event that is still open. Not empty at first, so that the first chunk is read closely.
        self._parts: list[bytes] = [b""]
        self._tail = b""  # the last bytes of the open event, where half of its end may stand
        self._open_bytes = 0
        self._looks = 0
        self._events = 0  # data lines of whole events
        self._first = True  # until an event has been read, which tells the model
        self._ended = False

    def feed(self, chunk: bytes) -> int:
        # Ordered by cost: looking for one byte is ten times cheaper than looking for a word, a comparison cheaper than a call.
        if not self._parts and chunk:
            line_end = chunk.find(_LF)
            last_line_end = len(chunk) - 2
            if line_end == last_line_end and chunk[-1] == _LF:
                marker = self._only_marker
                if (
                    chunk[0] == _D and chunk[-3] == _BRACE and marker
                ):  # one line of `data: {…}`, therefore no `[DONE]`
                    at = chunk.find(marker)
                    if at < 0 or (
                        chunk.startswith(self._boring, at) and chunk.find(marker, at + len(marker)) < 0
                    ):
                        self._events += 1
                        return -1
            elif (
                chunk[:line_end] in self._quiet
                and chunk.endswith(b"\n\n")
                and chunk.find(_LF, line_end + 1) == last_line_end
                and chunk.startswith(b"data:", line_end + 1)
            ):
                self._events += 1
                return -1
        return self._feed_closely(chunk)

    def finish(self, complete: bool) -> Usage:
        rest = b"".join(self._parts)
        self._parts = []
        if rest:
            self._read_event(rest)
            self._events += 1 if self._ended else _data_lines(rest)
        return self._reader.usage(self._events, complete)

    def _marked(self, block: bytes) -> bool:
        """Whether `block` has anything that the reader wants to see."""
        if _DONE in block:
            return True
        for marker in self._markers:
            if marker in block:
                return True
        if self._marker not in block:
            return False
        return block.count(self._marker) > sum([block.count(form) for form in self._boring])

    def _feed_closely(self, chunk: bytes) -> int:
        """A chunk that is not just whole events: find where they end, read them, keep the rest."""
        if self._ended:
            return 0
        if not self._parts and chunk.endswith(_EVENT_ENDS) and not self._marked(chunk):
            self._events += _data_lines(chunk)
            return -1
        end = _end_of_last_event(self._tail + chunk)
        if not end:
            return self._keep(chunk, began_at=0)
        end -= len(self._tail)
        before = self._open_bytes
        self._parts.append(chunk[:end])
        block = b"".join(self._parts)
        self._parts, self._tail, self._open_bytes, self._looks = [], b"", 0, 0
        start = self._read_block(block)
        if start >= 0:
            self._ended = True
            self._parts = [b""]  # keeps feed() away from its short cut
            return max(0, start - before)
        if self._first:  # nothing but comments so far
            self._parts = [b""]
        return self._keep(chunk[end:], began_at=end) if end < len(chunk) else -1

    def _keep(self, piece: bytes, *, began_at: int) -> int:
        """Remember a piece of an event that is not over; where the event began when it is the terminal one all the same."""
        self._parts.append(piece)
        self._tail = piece[-2:] if len(piece) > 1 else (self._tail + piece)[-2:]
        self._open_bytes += len(piece)
        if self._open_bytes > self._event_max:  # not ours to keep; what remains of it will not decode
            self._parts, self._open_bytes = [piece[-2:]], len(piece[-2:])
        if not self._is_terminal_already(piece):
            return -1
        self._ended = True
        return began_at

    def _is_terminal_already(self, piece: bytes) -> bool:
        """Whether the open event is the terminal one, its data complete and only the empty line missing."""
        if self._open_bytes > _SHORT_EVENT:
            if b"\n" not in piece or self._looks >= _EARLY_LOOKS_MAX:
                return False
            self._looks += 1
        text = b"".join(self._parts)
        if not self._marked(text):
            return False
        event, lines = _fields_of(text, whole=False)
        return bool(lines) and self._reader.is_terminal(event, lines[0])

    def _read_block(self, block: bytes) -> int:
        """Reads whole events; where in `block` the terminal one begins, or -1."""
        if self._first or self._marked(block):
            start = 0
            for boundary in _BOUNDARY.finditer(block):
                if self._read_event(block[start : boundary.end()]):
                    self._events += _data_lines(block[:start]) + 1
                    return start
                start = boundary.end()
        self._events += _data_lines(block)
        return -1

    def _read_event(self, text: bytes) -> bool:
        """Takes in one event; True when it is the terminal one."""
        text = text.lstrip(b"\r\n")
        if not self._first and (text[: text.find(_LF)] in self._quiet or not self._marked(text)):
            return False
        event, lines = _fields_of(text)
        if not lines:
            return False
        self._first = False
        if len(lines) > 1 and self._reader.is_terminal(event, lines[0]):
            del lines[1:]  # judged by its first line, as it is where that line comes alone
        return self._reader.on_event(event, b"\n".join(lines))


class BodyTap:
    """A JSON body: kept up to a bound and read at the end; of a longer one the tail is kept and searched."""

    __slots__ = ("_body_max", "_bytes", "_chunks", "_facts", "_fmt", "_provider", "_whole")

    def __init__(
        self, fmt: WireFormat, facts: RequestFacts, provider: str, *, body_max: int = BODY_MAX
    ) -> None:
        self._fmt, self._facts, self._provider, self._body_max = fmt, facts, provider, body_max
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._whole = True

    def feed(self, chunk: bytes) -> int:
        self._chunks.append(chunk)
        self._bytes += len(chunk)
        if self._bytes > self._body_max:
            self._whole = False
        if not self._whole:
            while self._bytes - len(self._chunks[0]) >= TAIL_BYTES:
                self._bytes -= len(self._chunks.popleft())
        return -1

    def finish(self, complete: bool) -> Usage:
        body = b"".join(self._chunks)
        self._chunks.clear()
        if self._whole:
            return self._fmt.read_body(body, self._facts, self._provider)
        return usage_of_tail(self._fmt, self._facts, self._provider, body[-TAIL_BYTES:])


class InflatingTap:
    """A compressed answer, inflated for our own reading only."""

    __slots__ = ("_ended", "_inflater", "_inner")

    def __init__(self, inner: Tap) -> None:
        self._inner = inner
        self._inflater = Inflater()
        self._ended = False

    def feed(self, chunk: bytes) -> int:
        """Where in a compressed chunk an event begins cannot be said, so all of the chunk waits or none of it."""
        if not self._ended:
            for piece in self._inflater.feed(chunk):
                if self._inner.feed(piece) >= 0:
                    self._ended = True
                    break
        return 0 if self._ended else -1

    def finish(self, complete: bool) -> Usage:
        usage = self._inner.finish(complete and not self._inflater.broken)
        if self._inflater.broken and usage.source == "none":
            note = {"usage_note": "the compressed body is damaged or too large"}
            return msgspec.structs.replace(usage, metadata={**(usage.metadata or {}), **note})
        return usage


class BlindTap:
    """An answer that cannot be read. It passes, and its usage is unknown."""

    __slots__ = ("_facts", "_fmt", "_note", "_provider")

    def __init__(self, fmt: WireFormat, facts: RequestFacts, provider: str, note: str) -> None:
        self._fmt, self._facts, self._provider, self._note = fmt, facts, provider, note

    def feed(self, chunk: bytes) -> int:
        return -1

    def finish(self, complete: bool) -> Usage:
        reading = Reading(self._fmt.extractor, self._facts, self._provider)
        return reading.nothing(metadata={"usage_note": self._note})


def _end_of_last_event(data: bytes) -> int:
    """Where the last whole event in `data` ends; 0 when none does."""
    plain, crlf = data.rfind(b"\n\n"), data.rfind(b"\n\r\n")
    return max(plain + 2 if plain >= 0 else 0, crlf + 3 if crlf >= 0 else 0)


def _data_lines(text: bytes) -> int:
    return text.count(b"\ndata:") + text.startswith(b"data:")


def _fields_of(text: bytes, *, whole: bool = True) -> tuple[bytes, list[bytes]]:
    """Name and data lines of an event; the name is the one given before the data.

    Of an event that is not `whole`, the line that is not over is left out, but for a `[DONE]`: there are clients that do
    not wait for its line to end.
    """
    event = b""
    data: list[bytes] = []
    lines = text.removeprefix(_BOM).split(b"\n")
    if not whole:
        last = lines.pop()
        if last.startswith(b"data:") and is_done(last[5:]):
            lines.append(last)
    for line in lines:
        line = line.removesuffix(b"\r")
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:") and not data:
            event = line[6:].strip()
    return event, data
