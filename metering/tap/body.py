"""Answers that are read as a whole, and those that cannot be read."""

from collections import deque

from metering.estimate import RequestFacts
from metering.extract.base import Reading, WireFormat
from metering.extract.by_content import read_by_content
from metering.extract.delivered import estimated_from_text, is_error
from metering.extract.tail import usage_of_tail
from metering.tap.base import BODY_MAX, TAIL_BYTES
from pricing.usage import Usage


class BodyTap:
    """A JSON body: kept up to a bound and read at the end; of a longer one the tail is kept and searched."""

    __slots__ = ("_body_max", "_bytes", "_chunks", "_facts", "_fmt", "_good", "_provider", "_whole", "failed")

    def __init__(
        self,
        fmt: WireFormat,
        facts: RequestFacts,
        provider: str,
        *,
        good: bool = True,
        body_max: int = BODY_MAX,
    ) -> None:
        self._fmt, self._facts, self._provider, self._body_max = fmt, facts, provider, body_max
        self._chunks: deque[bytes] = deque()
        self._bytes = 0
        self._whole = True
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
        if self._whole:
            usage = self._fmt.read_body(body, self._facts, self._provider)
            if usage.source == "none" and body:
                usage = read_by_content(body, usage, self._fmt, self._facts, self._provider)
            if usage.source == "none" and complete and self._good:
                self.failed = is_error(b"", body)
                return usage if self.failed else estimated_from_text(usage, body, self._facts)
            return usage
        return usage_of_tail(self._fmt, self._facts, self._provider, body[-TAIL_BYTES:])


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
