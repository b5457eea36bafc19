"""Which tap reads an answer: told by its content type, and by its first bytes where the type says too little or lies."""

from collections.abc import Callable
from functools import partial

from metering.estimate import RequestFacts
from metering.extract import StreamReader, WireFormat
from metering.extract.by_content import reader_by_content
from metering.extract.document import top_of
from metering.inflate import READABLE_ENCODINGS
from metering.tap.array import ArrayFraming
from metering.tap.aws import AwsFraming
from metering.tap.base import BLANK, BODY_MAX, Tap
from metering.tap.body import BlindTap, BodyTap
from metering.tap.events import EventTap
from metering.tap.frames import FrameTap, Framing
from metering.tap.inflating import InflatingTap
from metering.tap.lines import LineFraming
from pricing.usage import Usage

EVENT_TYPE = "text/event-stream"
AWS_TYPE = "application/vnd.amazon.eventstream"
LINE_TYPES = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/jsonlines",
        "application/stream+json",
    }
)
# Wire formats whose streams are no server-sent events: frameworks and proxies like to lose the type of what is left.
_STREAMS_OF = {
    "ollama": "lines",
    "gemini_generate": "array",
    "bedrock_converse": "aws",
    "bedrock_invoke": "aws",
}
EVENT_FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")
_HEAD_MAX = 64 * 1024  # bytes in which the first line has to end, if the answer is made of lines


def open_tap(
    fmt: WireFormat,
    facts: RequestFacts,
    provider: str,
    content_type: str,
    content_encoding: str,
    *,
    good: bool = True,
    body_max: int = BODY_MAX,
) -> Tap:
    """The tap for an answer with these headers. What it cannot read passes as well, with no usage and a note. `good`: its
    status says that it is an answer and no error, so that text in it was written by a model."""
    encoding = content_encoding.strip().lower()
    if encoding not in READABLE_ENCODINGS:
        return BlindTap(fmt, facts, provider, f"content-encoding {encoding} is not read")
    kind = content_type.partition(";")[0].strip().lower()
    taps = Taps(fmt, facts, provider, body_max, good=good)
    tap: Tap
    if kind == EVENT_TYPE:
        tap = taps.events()
    elif kind in LINE_TYPES:
        tap = taps.frames(LineFraming(line_max=body_max))
    elif kind == AWS_TYPE:
        tap = taps.frames(AwsFraming(message_max=body_max))
    elif kind in ("", "application/json") or kind.endswith("+json"):
        tap = FirstBytesTap(taps, otherwise=taps.body)
    elif fmt.name in _STREAMS_OF:
        tap = FirstBytesTap(taps, otherwise=partial(taps.blind, kind))
    else:
        return taps.blind(kind)
    return tap if encoding in ("", "identity") else InflatingTap(tap)


class Taps:
    """Makes the taps for one answer."""

    __slots__ = ("_body_max", "_facts", "_good", "_provider", "fmt")

    def __init__(
        self, fmt: WireFormat, facts: RequestFacts, provider: str, body_max: int, *, good: bool
    ) -> None:
        self.fmt, self._facts, self._provider, self._body_max = fmt, facts, provider, body_max
        self._good = good

    def events(self) -> Tap:
        reader = self.fmt.open_stream(self._facts, self._provider)
        return EventTap(reader, choose=self._choose, reread=self._reread, event_max=self._body_max)

    def frames(self, framing: Framing) -> Tap:
        return FrameTap(framing, self.fmt.open_stream(self._facts, self._provider), choose=self._choose)

    def _choose(self, reader: StreamReader, event: bytes, data: bytes) -> StreamReader:
        return reader_by_content(reader, self.fmt, self._facts, self._provider, event, data)

    def _reread(self, body: bytes) -> Tap:
        tap = FirstBytesTap(self, otherwise=self.body)
        tap.feed(body)
        return tap

    def _reread_lines(self, body: bytes) -> Tap:
        tap = self.lines()
        tap.feed(body)
        return tap

    def array(self) -> Tap:
        return self.frames(ArrayFraming(element_max=self._body_max))

    def lines(self) -> Tap:
        return self.frames(LineFraming(line_max=self._body_max))

    def aws(self) -> Tap:
        return self.frames(AwsFraming(message_max=self._body_max))

    def body(self) -> Tap:
        return BodyTap(
            self.fmt, self._facts, self._provider, reread=self._reread_lines, good=self._good, body_max=self._body_max
        )  # fmt: skip

    def blind(self, kind: str) -> Tap:
        return BlindTap(self.fmt, self._facts, self._provider, f"content-type {kind} carries no usage")

    def by_first_bytes(self, head: bytes, otherwise: Callable[[], Tap]) -> Tap | None:
        """The tap for an answer that begins with `head`; None while that is too short to say."""
        streams = _STREAMS_OF.get(self.fmt.name)
        if streams == "aws" and head.startswith(b"\0"):  # no message has 16 MB
            return self.aws()
        text = head if head[:1] == b"{" else head.lstrip(BLANK)
        if text.startswith(b"["):
            return self.array()
        if text.startswith(b"{"):
            return self._lines_or_body(text) if streams == "lines" else self.body()
        if text.startswith(EVENT_FIELDS):
            return self.events()
        if not text or any(field.startswith(text) for field in EVENT_FIELDS):
            return None
        return otherwise()

    def _lines_or_body(self, text: bytes) -> Tap | None:
        """Lines, if the first one is a document of its own."""
        line, end, _ = text.partition(b"\n")
        if end:
            return self.lines() if top_of(line) is not None else self.body()
        return None if len(text) < _HEAD_MAX else self.body()


class FirstBytesTap:
    """Waits for as many bytes as it takes to choose a tap, and is that tap from then on."""

    __slots__ = ("_chosen", "_head", "_otherwise", "_taps")

    def __init__(self, taps: Taps, *, otherwise: Callable[[], Tap]) -> None:
        self._taps, self._otherwise = taps, otherwise
        self._head = b""
        self._chosen: Tap | None = None

    def feed(self, chunk: bytes) -> int:
        if self._chosen is not None:
            return self._chosen.feed(chunk)
        before = len(self._head)
        head = self._head = self._head + chunk
        self._chosen = self._taps.by_first_bytes(head, self._otherwise)
        if self._chosen is None:
            return -1
        self._head = b""
        waits_from = self._chosen.feed(head)
        return waits_from if waits_from < 0 else max(0, waits_from - before)

    def finish(self, complete: bool) -> Usage:
        if self._chosen is None:
            self._chosen = self._otherwise()
            self._chosen.feed(self._head)
        return self._chosen.finish(complete)

    @property
    def failed(self) -> bool:
        return self._chosen is not None and self._chosen.failed
