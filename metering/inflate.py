"""Reads compressed bodies, bounded: what comes out is limited however little went in.

Only for our own reading beside the call. The bytes that the client gets are never touched.
"""

import zlib
from collections.abc import Iterator

READABLE_ENCODINGS = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})
INFLATED_MAX = 128 * 1024 * 1024  # bytes; beyond this a body is a bomb or not ours to read
_PIECE_MAX = 256 * 1024  # bytes that exist at once

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_RAW_DEFLATE = -zlib.MAX_WBITS


class Inflater:
    """One compressed body, piece by piece. After an error or beyond the limit it yields nothing more and is `broken`."""

    __slots__ = ("_decoder", "_head", "_left", "broken")

    def __init__(self, limit: int = INFLATED_MAX) -> None:
        self._decoder: zlib._Decompress | None = None
        self._head = b""
        self._left = limit
        self.broken = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain bytes that `data` completes, in pieces of bounded size."""
        if self._decoder is None:
            self._head += data
            if len(self._head) < 2:
                return
            data, self._head = self._head, b""
            self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB if _has_header(data) else _RAW_DEFLATE)
        while data and not self.broken:
            decoder = self._decoder
            try:
                piece = decoder.decompress(data, min(_PIECE_MAX, self._left + 1))
            except zlib.error:
                self.broken = True
                return
            self._left -= len(piece)
            if self._left < 0:
                self.broken = True
                return
            if piece:
                yield piece
            data = decoder.unconsumed_tail
            if decoder.eof:  # a gzip file may be several, one behind the other
                data = decoder.unused_data
                self._decoder = zlib.decompressobj(_GZIP_OR_ZLIB)


def inflate(body: bytes, limit: int = INFLATED_MAX) -> bytes | None:
    """The whole body, or None when it is damaged or larger than `limit` bytes."""
    inflater = Inflater(limit)
    plain = b"".join(inflater.feed(body))
    return None if inflater.broken else plain


def _has_header(data: bytes) -> bool:
    """gzip or zlib; some senders say "deflate" and send it bare."""
    return data[:2] == b"\x1f\x8b" or (data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0)
