"""Gemini Live over a WebSocket: usage per turn, each turn billed for all that it read, what was said before included."""

from collections.abc import Mapping
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, merge_latest
from metering.extract.counts import Counted, Counters
from metering.extract.gemini_generate import tier_of
from metering.extract.shape_gemini import read_gemini
from metering.problem import Native
from pricing.usage import UnknownSide, Usage


class _Message(msgspec.Struct, rename="camel"):
    server_content: Any = None
    tool_call: Any = None
    usage_metadata: Any = None


_decode = msgspec.json.Decoder(_Message).decode


class GeminiLive:
    """The server's messages of one connection. None of them names the model: the client's setup did."""

    name = "gemini_live"
    version = 1
    extractor = "gemini_live/1"
    native_errors: Native | None = "google"
    has_output = True

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        """The usage of a single message."""
        stream = self.open_stream(facts, provider)
        stream.on_event(b"", body)
        return stream.usage(0, complete=True)

    def open_stream(self, facts: RequestFacts, provider: str) -> "LiveStream":
        return LiveStream(Reading(self.extractor, facts, provider))


class LiveStream:
    """Within a turn totals grow, and the latest value of each field holds; turns are added up.

    Usage that comes after the end of a turn, before anything new, still is that turn's.
    """

    interesting: tuple[bytes, ...] = (b'"usageMetadata"', b'"serverContent"', b'"toolCall"')
    boring: tuple[bytes, ...] = ()
    quiet: frozenset[bytes] = frozenset()

    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._turns: list[Mapping[str, Any]] = []  # the usage of each, the open one last
        self._over = True  # the last turn has ended, the next thing said begins another
        self._began = False

    def on_event(self, event: bytes, data: bytes) -> bool:
        try:
            message = _decode(data)
        except UNREADABLE:
            return False
        content, usage = message.server_content, message.usage_metadata
        ends = isinstance(content, dict) and content.get("turnComplete") is True
        says = message.tool_call is not None or (isinstance(content, dict) and bool(content))
        self._began = self._began or says
        if self._over and (says or not self._turns):
            self._turns.append({})
            self._over = False
        if isinstance(usage, dict):
            self._turns[-1] = merge_latest(self._turns[-1], usage)
        self._over = self._over or ends
        return False

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        return False

    def usage(self, events_seen: int, complete: bool) -> Usage:
        told = [turn for turn in self._turns if turn]
        if not told:
            return self._reading.estimated(None, events_seen if self._began else 0)
        raw = told[0] if len(told) == 1 else {"turns": told}
        final = complete or self._over
        return self._reading.reported(
            _sum(told), raw, None, source="reported" if final else "reported_partial", service_tier=tier_of(told[-1])
        )  # fmt: skip


def _sum(turns: list[Mapping[str, Any]]) -> Counted:
    counters = Counters()
    buckets: dict[str, int] = {}
    unknown: set[UnknownSide] = set()
    for turn in turns:
        counted = read_gemini(turn, counters)
        unknown.update(counted.unknown_sides)
        for bucket, count in counted.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
    return counters.counted(buckets, tuple(side for side in ("input", "output") if side in unknown))
