"""One JSON document per line (NDJSON, JSON Lines)."""

from metering.tap.base import BODY_MAX, BOM
from metering.tap.frames import Frame


class LineFraming:
    """Each line that is not blank is a frame. A line beyond the bound is not kept, which is damage."""

    __slots__ = ("_line_max", "_open_bytes", "_parts", "_skipping", "_start", "damage")

    def __init__(self, *, line_max: int = BODY_MAX) -> None:
        self._line_max = line_max
        self._parts: list[bytes] = []  # of the line that is still open
        self._open_bytes = 0
        self._start = 0  # where in the last chunk the open line begins
        self._skipping = False  # the open line is too long
        self.damage = ""

    def feed(self, chunk: bytes) -> list[Frame]:
        frames = []
        self._start = 0
        while (end := chunk.find(b"\n", self._start)) >= 0:
            self._keep(chunk[self._start : end])
            frames += self._take(self._start)
            self._start = end + 1
        if self._start < len(chunk):
            self._keep(chunk[self._start :])
        return frames

    def rest(self) -> list[Frame]:
        return self._take(0)

    def unended(self) -> Frame | None:
        if not self._parts or not self._parts[-1].endswith((b"}", b"}\r")):
            return None
        return Frame(self._start, b"", self._line())

    def ended_at(self) -> int:
        return -1

    def _keep(self, piece: bytes) -> None:
        self._open_bytes += len(piece)
        if self._open_bytes > self._line_max:
            self._skipping, self._parts, self.damage = True, [], "frame_too_long"
        elif piece:
            self._parts.append(piece)

    def _take(self, start: int) -> list[Frame]:
        """The line that is over now, if it says anything."""
        line, skipped = self._line(), self._skipping
        self._parts, self._open_bytes, self._skipping = [], 0, False
        return [Frame(start, b"", line)] if line or skipped else []

    def _line(self) -> bytes:
        return b"".join(self._parts).strip().removeprefix(BOM)
