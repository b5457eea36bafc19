"""What every tap is, and the few words that all of them share."""

from collections.abc import Callable
from typing import Protocol

from metering.extract import StreamReader
from pricing.usage import Usage

BODY_MAX = 32 * 1024 * 1024  # bytes of a body, or of one frame of a stream, that are kept
TAIL_BYTES = 1024 * 1024  # of a longer body, where usage is looked for at its end
BOM = b"\xef\xbb\xbf"
BLANK = b" \t\r\n" + BOM  # what may stand before an answer

# From the reader of the route's format, the name and the data of a stream's first event: the reader to go on with.
ReaderChoice = Callable[[StreamReader, bytes, bytes], StreamReader]


class Tap(Protocol):
    """Fed with each body chunk in order, then finished once."""

    def feed(self, chunk: bytes) -> int:
        """The offset in `chunk` from which bytes must wait for the commit, or -1 while the answer is not over.

        From the chunk on that completes the data of the terminal event, everything waits: the offset is where that event
        begins, 0 when it began in an earlier chunk. An incomplete event says nothing to the client, so it may pass.
        """

    def finish(self, complete: bool) -> Usage:
        """What the answer said of usage; `complete` is False when it broke off. Never raises."""

    @property
    def failed(self) -> bool:
        """Whether the answer said at its end that it failed, whatever its status was. Known once it is finished."""
