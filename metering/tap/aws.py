"""The AWS event stream (`application/vnd.amazon.eventstream`): binary messages with two checksums each.

    total length (4) · length of the headers (4) · CRC-32 of these eight bytes (4) · headers · payload · CRC-32 of all before (4)

Numbers are big-endian. The headers say what the message is: `:message-type` event, exception or error, and its name.
"""

from struct import Struct
from zlib import crc32

from metering.tap.base import BODY_MAX
from metering.tap.frames import Frame

_PRELUDE = Struct(">III")
_CHECKSUM = Struct(">I")
_PRELUDE_BYTES, _CHECKSUM_BYTES = 12, 4
_OVERHEAD_BYTES = _PRELUDE_BYTES + _CHECKSUM_BYTES
_BYTES_OF_TYPE = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}  # header values of a fixed size
_BYTES_TYPE, _TEXT_TYPE = 6, 7  # header values that say their length in two bytes
_NAMES = (b":event-type", b":exception-type", b":error-code")


class AwsFraming:
    """Each message is a frame. One that fails its checksum is left out, which is damage.

    Once a prelude is damaged nobody can say where the next message begins: the rest of the stream is not read.
    """

    __slots__ = ("_has", "_lost", "_message_max", "_needs", "_parts", "_skips", "damage")

    def __init__(self, *, message_max: int = BODY_MAX) -> None:
        self._message_max = message_max
        self._parts: list[bytes] = []  # of the message that is still open
        self._has = 0  # bytes of it
        self._needs = _PRELUDE_BYTES  # bytes until there is more to say
        self._skips = 0  # bytes of a message that is too long to be kept
        self._lost = False
        self.damage = ""

    def feed(self, chunk: bytes) -> list[Frame]:
        frames: list[Frame] = []
        start = position = 0
        while position < len(chunk) and not self._lost:
            if self._skips:
                skipped = min(self._skips, len(chunk) - position)
                self._skips -= skipped
                position = start = position + skipped
                continue
            piece = chunk[position : position + self._needs - self._has]
            self._parts.append(piece)
            self._has += len(piece)
            position += len(piece)
            if self._has < self._needs:
                break
            if self._needs == _PRELUDE_BYTES:
                self._measure()
            if self._has == self._needs:
                frames += self._take(start)
            start = position if not self._has else start
        return frames

    def rest(self) -> list[Frame]:
        if self._has or self._skips:
            self.damage = self.damage or "damaged_frame"
        return []

    def unended(self) -> Frame | None:
        return None  # a reader waits for the checksum

    def ended_at(self) -> int:
        return -1

    def _measure(self) -> None:
        """The prelude is there: learn the length of its message."""
        prelude = b"".join(self._parts)
        total, headers, checksum = _PRELUDE.unpack(prelude)
        if crc32(prelude[:-_CHECKSUM_BYTES]) != checksum or total < headers + _OVERHEAD_BYTES:
            self._lost, self.damage = True, "damaged_frame"
            self._begin()
        elif total > self._message_max:
            self._skips, self.damage = total - _PRELUDE_BYTES, "frame_too_long"
            self._begin()
        else:
            self._needs = total

    def _begin(self) -> None:
        self._parts, self._has, self._needs = [], 0, _PRELUDE_BYTES

    def _take(self, start: int) -> list[Frame]:
        message = b"".join(self._parts)
        self._begin()
        end = len(message) - _CHECKSUM_BYTES
        payload_at = _PRELUDE_BYTES + _PRELUDE.unpack_from(message)[1]
        headers = _headers_of(message[_PRELUDE_BYTES:payload_at])
        if crc32(message[:end]) != _CHECKSUM.unpack_from(message, end)[0] or headers is None:
            self.damage = "damaged_frame"
            return []
        name = next((headers[key] for key in _NAMES if key in headers), b"")
        failed = headers.get(b":message-type", b"event") != b"event"
        return [Frame(start, name, message[payload_at:end], failed)]


def has_prelude(data: bytes) -> bool:
    """Whether `data` begins as a message does, by its checksum."""
    return len(data) >= _PRELUDE_BYTES and crc32(data[:8]) == _PRELUDE.unpack_from(data)[2]


def _headers_of(block: bytes) -> dict[bytes, bytes] | None:
    """The headers that are text; None when the block is not made of headers."""
    headers: dict[bytes, bytes] = {}
    at = 0
    while at < len(block):
        name_end = at + 1 + block[at]
        if name_end >= len(block):
            return None
        kind, value_at = block[name_end], name_end + 1
        if kind in (_BYTES_TYPE, _TEXT_TYPE):
            size, value_at = int.from_bytes(block[value_at : value_at + 2], "big"), value_at + 2
        elif kind in _BYTES_OF_TYPE:
            size = _BYTES_OF_TYPE[kind]
        else:
            return None
        if value_at + size > len(block):
            return None
        if kind == _TEXT_TYPE:
            headers[block[at + 1 : name_end]] = block[value_at : value_at + size]
        at = value_at + size
    return headers
