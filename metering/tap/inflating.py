"""Compressed answers, inflated for our own reading only."""

from metering.extract.marks import with_metadata
from metering.inflate import Inflater
from metering.tap.base import Tap
from pricing.usage import Usage


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

    @property
    def failed(self) -> bool:
        return self._inner.failed

    def finish(self, complete: bool) -> Usage:
        usage = self._inner.finish(complete and not self._inflater.broken)
        if self._inflater.broken and usage.source == "none":
            return with_metadata(usage, usage_note="the compressed body is damaged or too large")
        return usage
