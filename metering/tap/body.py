"""Answers that are read as a whole, and those that cannot be read."""

from collections import deque
from collections.abc import Callable

from metering.estimate import RequestFacts
from metering.extract.base import Reading, WireFormat
from metering.extract.by_content import read_by_content
from metering.extract.delivered import estimated_from_text, is_error
from metering.extract.document import are_lines
from metering.extract.tail import usage_of_tail
from metering.tap.base import BODY_MAX, TAIL_BYTES, Tap
from pricing.usage import Usage


class BodyTap:
    """A JSON body: kept up to a bound and read at the end; of a longer one the tail is kept and searched."""

    __slots__ = (
        "_body_max", "_bytes", "_chunks", "_facts", "_fmt", "_good", "_provider", "_reread", "_whole",
        "failed",
    )  # fmt: skip

    def __init__(
        self,
        fmt: WireFormat,
        facts: RequestFacts,
        provider: str,
        *,
        reread: Callable[[bytes], Tap] | None = None,
        good: bool = True,
        body_max: int = BODY_MAX,
    ) -> None:
        self._fmt, self._facts, self._provider, self._body_max = fmt, facts, provider, body_max
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._whole = True
        self._reread = reread  # the tap of what turns out to be no document but one per line
        self._good = good
        self.failed = False

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
        if not self._whole:
            return usage_of_tail(self._fmt, self._facts, self._provider, body[-TAIL_BYTES:])
        usage = self._fmt.read_body(body, self._facts, self._provider)
        if usage.source != "none" or not body:
            return usage
        if self._reread is not None and are_lines(body):
            tap = self._reread(body)
            usage = tap.finish(complete)
            self.failed = tap.failed
            return usage
        usage = read_by_content(body, usage, self._fmt, self._facts, self._provider)
        if usage.source != "none" or not (complete and self._good):
            return usage
        self.failed = is_error(b"", body)
        return usage if self.failed else estimated_from_text(usage, body, self._facts)


class BlindTap:
    """An answer that cannot be read. It passes, and its usage is unknown."""

    __slots__ = ("_facts", "_fmt", "_note", "_provider")
    failed = False

    def __init__(self, fmt: WireFormat, facts: RequestFacts, provider: str, note: str) -> None:
        self._fmt, self._facts, self._provider, self._note = fmt, facts, provider, note

    def feed(self, chunk: bytes) -> int:
        return -1

    def finish(self, complete: bool) -> Usage:
        reading = Reading(self._fmt.extractor, self._facts, self._provider)
        return reading.nothing(metadata={"usage_note": self._note})
