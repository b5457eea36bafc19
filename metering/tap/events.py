"""Server-sent events, read at the cost of one look at each chunk."""

import re
from collections.abc import Callable

from metering.extract.base import StreamReader, is_done
from metering.extract.delivered import Sample, is_error
from metering.tap.base import BLANK, BODY_MAX, BOM, ReaderChoice, Tap
from pricing.usage import Usage

_LF = 10
_EVENT_ENDS = (b"\n\n", b"\n\r\n")
_D, _BRACE = b"d}"  # no other field of an event begins with d
_BOUNDARY = re.compile(rb"\n\r?\n")
_DONE = b"[DONE]"
_SHORT_EVENT = 64  # bytes; looked at after every chunk, since `data: [DONE]` is as short
_EARLY_LOOKS_MAX = 8  # at a longer event that is not over yet, so that its cost stays linear


class EventTap:
    """Server-sent events.

    Nearly every chunk is one event without usage: it is counted, and that is all. Events are put together and decoded
    only where they contain a marker of the wire format and their name is not one of those that never matter.
    """

    __slots__ = (
        "_boring", "_choose", "_ended", "_event_max", "_events", "_first", "_last", "_looks", "_marker", "_markers",
        "_only_marker", "_open_bytes", "_parts", "_quiet", "_reader", "_reread", "_sample", "_sampling", "_tail", "failed",
    )  # fmt: skip

    def __init__(
        self,
        reader: StreamReader,
        *,
        choose: ReaderChoice | None = None,
        reread: Callable[[bytes], Tap] | None = None,
        event_max: int = BODY_MAX,
    ) -> None:
        self._use(reader)
        self._choose = choose
        self._reread = reread  # the tap of what turns out to be no events but a JSON document
        self._event_max = event_max
        # Of the event that is still open. Not empty at first, so that the first chunk is read closely.
        self._parts: list[bytes] = [b""]
        self._tail = b""  # the last bytes of the open event, where half of its end may stand
        self._open_bytes = 0
        self._looks = 0
        self._events = 0  # data lines of whole events
        self._sample, self._sampling = Sample(), True
        self._last = b""  # the last events, which say whether the answer failed
        self.failed = False
        self._first = True  # until an event has been read, which tells the model
        self._ended = False

    def _use(self, reader: StreamReader) -> None:
        self._reader = reader
        self._marker, *rest = reader.interesting
        self._markers = tuple(rest)
        self._only_marker = b"" if rest else self._marker
        self._boring = reader.boring
        self._quiet = reader.quiet

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
                        self._last = chunk
                        if self._sampling:
                            self._sampling = self._sample.add(chunk)
                        return -1
            elif (
                chunk[:line_end] in self._quiet
                and chunk.endswith(b"\n\n")
                and chunk.find(_LF, line_end + 1) == last_line_end
                and chunk.startswith(b"data:", line_end + 1)
            ):
                self._events += 1
                self._last = chunk
                if self._sampling:
                    self._sampling = self._sample.add(chunk)
                return -1
        return self._feed_closely(chunk)

    def finish(self, complete: bool) -> Usage:
        rest = b"".join(self._parts)
        self._parts = []
        if self._first and self._reread is not None and rest.lstrip(BLANK).startswith((b"{", b"[")):
            tap = self._reread(rest)
            usage = tap.finish(complete)
            self.failed = tap.failed
            return usage
        if rest:
            self._read_event(rest)
            if self._ended:
                self._end_with(rest)
            else:
                self._see(rest)
        self.failed = _failed(self._last)
        usage = self._reader.usage(self._events, complete)
        if usage.source in ("estimated", "reported_partial"):
            return self._reader.usage(self._sample.tokens(self._events), complete)
        return usage

    def _see(self, block: bytes) -> int:
        """Take note of whole events. Nothing of them has to wait for the commit: -1."""
        events = _data_lines(block)
        self._events += events
        if events:
            self._last = block
        if self._sampling:
            filled = (
                _BOUNDARY.search(block, self._sample.room - 1) if len(block) > self._sample.room else None
            )
            kept = block[: filled.end()] if filled is not None else block
            self._sampling = self._sample.add(kept, _data_lines(kept))
        return -1

    def _end_with(self, event: bytes) -> None:
        """The terminal event. One that says nothing leaves it to the last before it to tell how the answer ended."""
        if _DONE not in event:
            self._last = event

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
            return self._see(chunk)
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
                    self._see(block[:start])
                    self._end_with(block[start : boundary.end()])
                    return start
                start = boundary.end()
        return self._see(block)

    def _read_event(self, text: bytes) -> bool:
        """Takes in one event; True when it is the terminal one."""
        text = text.lstrip(b"\r\n")
        if not self._first and (text[: text.find(_LF)] in self._quiet or not self._marked(text)):
            return False
        event, lines = _fields_of(text)
        if not lines:
            return False
        if self._first and self._choose is not None:
            self._use(self._choose(self._reader, event, b"\n".join(lines)))
        self._first = False
        if len(lines) > 1 and self._reader.is_terminal(event, lines[0]):
            del lines[1:]  # judged by its first line, as it is where that line comes alone
        return self._reader.on_event(event, b"\n".join(lines))


def _end_of_last_event(data: bytes) -> int:
    """Where the last whole event in `data` ends; 0 when none does."""
    plain, crlf = data.rfind(b"\n\n"), data.rfind(b"\n\r\n")
    return max(plain + 2 if plain >= 0 else 0, crlf + 3 if crlf >= 0 else 0)


def _failed(events: bytes) -> bool:
    """Whether the last of these events says that the answer failed."""
    if b"error" not in events and b"failed" not in events:
        return False
    data = events.rfind(b"\ndata:") + 1  # of an event that says something; a comment may follow it
    start = max(events.rfind(b"\n\n", 0, data), events.rfind(b"\n\r\n", 0, data)) + 1
    event, lines = _fields_of(events[start:].lstrip(b"\r\n"))
    return bool(lines) and is_error(event, b"\n".join(lines))


def _data_lines(text: bytes) -> int:
    return text.count(b"\ndata:") + text.startswith(b"data:")


def _fields_of(text: bytes, *, whole: bool = True) -> tuple[bytes, list[bytes]]:
    """Name and data lines of an event; the name is the one given before the data.

    Of an event that is not `whole`, the line that is not over is left out, but for a `[DONE]`: there are clients that do
    not wait for its line to end.
    """
    event = b""
    data: list[bytes] = []
    lines = text.removeprefix(BOM).split(b"\n")
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
