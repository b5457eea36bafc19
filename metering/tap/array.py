"""One JSON array whose elements are sent as they come (Gemini without `alt=sse`)."""

import re

from metering.tap.base import BODY_MAX
from metering.tap.frames import Frame

# Possessive, so that a string of megabytes is one step without memory of the way. Group 1 is the closing quote, absent
# where the string is cut; what is left then is a lone backslash.
_REST_OF_STRING = rb'[^"\\]*+(?:\\.[^"\\]*+)*+("?)'
_TOKEN = re.compile(rb'[{}\[\]]|"' + _REST_OF_STRING, re.DOTALL)
_OPEN_STRING = re.compile(_REST_OF_STRING, re.DOTALL)
_OPENING = b"{["


class ArrayFraming:
    """Each object (or array) in the outermost array is a frame; its closing bracket ends the stream.

    Elements are found by counting brackets outside strings. Numbers and texts between them are passed over: no provider
    sends any. An element beyond the bound is not kept, which is damage.
    """

    __slots__ = (
        "_depth",
        "_element_max",
        "_end",
        "_escaped",
        "_in_string",
        "_open_bytes",
        "_parts",
        "_skipping",
        "damage",
    )

    def __init__(self, *, element_max: int = BODY_MAX) -> None:
        self._element_max = element_max
        self._depth = 0  # 1 between elements, more inside one
        self._in_string = self._escaped = False
        self._parts: list[bytes] = []  # of the element that is still open
        self._open_bytes = 0
        self._skipping = False  # the open element is too long
        self._end = -1
        self.damage = ""

    def feed(self, chunk: bytes) -> list[Frame]:
        frames: list[Frame] = []
        if self._end >= 0 or not chunk:
            return frames
        position = self._leave_string(chunk) if self._in_string else 0
        start = 0
        for token in _TOKEN.finditer(chunk, position) if position >= 0 else ():
            at = token.start()
            if chunk[at] in _OPENING:
                if self._depth == 1:
                    start = at
                self._depth += 1
            elif token[1] is None:  # a closing bracket
                self._depth -= 1
                if self._depth == 1:
                    self._keep(chunk[start : at + 1])
                    frames.append(Frame(start, b"", self._take()))
                elif self._depth <= 0:
                    self._end = at
                    return frames
            elif not token[1]:
                self._in_string, self._escaped = True, token.end() < len(chunk)
                break
        if self._depth > 1:
            self._keep(chunk[start:])
        return frames

    def rest(self) -> list[Frame]:
        return []

    def unended(self) -> Frame | None:
        return None

    def ended_at(self) -> int:
        return self._end

    def _leave_string(self, chunk: bytes) -> int:
        """Where the string that was open ends in `chunk`; -1 when it does not."""
        found = _OPEN_STRING.match(chunk, 1 if self._escaped else 0)
        if found is None or not found[1]:
            self._escaped = found is not None and found.end() < len(chunk)
            return -1
        self._in_string = self._escaped = False
        return found.end()

    def _keep(self, piece: bytes) -> None:
        self._open_bytes += len(piece)
        if self._open_bytes > self._element_max:
            self._skipping, self._parts, self.damage = True, [], "frame_too_long"
        elif not self._skipping:
            self._parts.append(piece)

    def _take(self) -> bytes:
        element = b"".join(self._parts)
        self._parts, self._open_bytes, self._skipping = [], 0, False
        return element
