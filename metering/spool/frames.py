"""The file format: a header, then one frame after the other: its length, its CRC-32, and that many bytes.

A file is made longer ahead of what is written to it, so that a full disk is noticed before a call goes out: what follows the
last frame is zeros. A process may be killed in the middle of a write; what it had begun to write is cut off.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

MAGIC = b"TGSPOOL1"
_HEADER = struct.Struct("<8sQ")
_FRAME = struct.Struct("<II")
HEADER_BYTES, FRAME_BYTES = _HEADER.size, _FRAME.size
PAYLOAD_MAX = 16 * 2**20


class Bytes(Protocol):
    """Bytes, or a file that is mapped into memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> bytes: ...


def header(created_ms: int) -> bytes:
    """What a file begins with: when it was made, in milliseconds since 1970."""
    return _HEADER.pack(MAGIC, created_ms)


def created_ms(start: bytes) -> int | None:
    """When the file was made that begins so; None where it is none of ours, or was cut before its header was whole."""
    if len(start) < HEADER_BYTES:
        return None
    magic, made = _HEADER.unpack(start[:HEADER_BYTES])
    return int(made) if magic == MAGIC else None


def frame(payload: bytes) -> bytes:
    """One record as it is written."""
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


class Reader:
    """Reads the payloads of a file. Afterwards `end` says where the last good frame ends, `torn` how many bytes follow it that
    are not zeros, and `is_damaged` whether there is more behind the frame that is broken, which no kill leaves behind."""

    def __init__(self, data: Bytes) -> None:
        self._data = data
        self.end = HEADER_BYTES
        self.torn = 0
        self.is_damaged = False

    def __iter__(self) -> Iterator[bytes]:
        data = self._data
        if created_ms(data[:HEADER_BYTES]) is None:
            self.end = 0
            self._judge(claimed=HEADER_BYTES)
            return
        while True:
            start = data[self.end : self.end + FRAME_BYTES]
            if len(start) < FRAME_BYTES:
                return self._judge(claimed=FRAME_BYTES)
            length, crc = _FRAME.unpack(start)
            if not 0 < length <= PAYLOAD_MAX:
                return self._judge(claimed=FRAME_BYTES)
            begin = self.end + FRAME_BYTES
            payload = bytes(data[begin : begin + length])
            if len(payload) < length or zlib.crc32(payload) != crc:
                return self._judge(claimed=FRAME_BYTES + length)
            self.end = begin + length
            yield payload

    def _judge(self, claimed: int) -> None:
        """What there is behind the last good frame; `claimed`: how long the next one says it is."""
        rest = bytes(self._data[self.end : len(self._data)]).rstrip(b"\0")
        self.torn = len(rest)
        self.is_damaged = len(rest) > claimed
