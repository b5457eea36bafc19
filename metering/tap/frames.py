"""Streams whose frames are found one by one: a framing cuts the bytes, a tap hands the frames to the wire format's reader."""

from typing import NamedTuple, Protocol

from metering.extract.base import StreamReader
from metering.extract.delivered import Sample, is_error
from metering.extract.marks import with_doubt, with_metadata
from metering.tap.base import ReaderChoice
from pricing.usage import Usage

_EARLY_LOOKS_MAX = 8  # at one frame whose end has not been seen, so that its cost stays linear


class Frame(NamedTuple):
    """One whole frame. `start` is where it begins in the chunk that completed it, 0 when it began in an earlier one."""

    start: int
    event: bytes  # its name on the wire, where the framing has names
    data: bytes
    failed: bool = False  # an error that the provider sends in place of an event; nothing comes after it


class Framing(Protocol):
    """Cuts the chunks of one stream into frames, wherever the chunks were cut. Keeps no more than the open frame. Never raises."""

    damage: str  # why a part of the stream could not be read: a rule's name, "" where all could

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that this chunk completes."""

    def rest(self) -> list[Frame]:
        """The frame that only the end of the stream completes. Called once, after the last chunk."""

    def unended(self) -> Frame | None:
        """The open frame where its data may be whole already, its start as seen from the last chunk. Cheap when it is not."""

    def ended_at(self) -> int:
        """Where in the last chunk the stream ended by the framing's own rules, else -1."""


class FrameTap:
    """Counts the frames and decodes those that have a marker of the wire format; see `StreamReader`."""

    __slots__ = (
        "_choose",
        "_ended",
        "_first",
        "_frames",
        "_framing",
        "_last",
        "_looks",
        "_reader",
        "_sample",
        "failed",
    )

    def __init__(self, framing: Framing, reader: StreamReader, *, choose: ReaderChoice | None = None) -> None:
        self._framing, self._reader, self._choose = framing, reader, choose
        self._frames = 0
        self._looks = 0
        self._first = True  # until a frame has been read, which tells the model
        self._ended = False
        self._sample = Sample()
        self._last = Frame(0, b"", b"")
        self.failed = False

    def feed(self, chunk: bytes) -> int:
        if self._ended:
            return 0
        frames = self._framing.feed(chunk)
        for frame in frames:
            if self._read(frame):
                self._ended = True
                return frame.start
        if frames:
            self._looks = 0
        end = self._framing.ended_at()
        if end < 0:
            end = self._end_already()
        self._ended = end >= 0
        return end

    def finish(self, complete: bool) -> Usage:
        for frame in self._framing.rest():
            self._read(frame)
        last = self._last
        self.failed = last.failed or is_error(last.event, last.data)
        complete = complete and not last.failed
        usage = self._reader.usage(self._frames, complete)
        if usage.source in ("estimated", "reported_partial"):
            usage = self._reader.usage(self._sample.tokens(self._frames), complete)
        if last.failed:
            usage = with_metadata(usage, stream_error=last.event.decode("latin-1") or "error")
        return with_doubt(usage, self._framing.damage) if self._framing.damage else usage

    def _read(self, frame: Frame) -> bool:
        """Takes in one frame; True when it is the terminal one."""
        self._last = frame
        if frame.failed:
            return True
        if self._first and self._choose is not None:
            self._reader = self._choose(self._reader, frame.event, frame.data)
        if self._first or marked(self._reader, frame.data):
            self._first = False
            if self._reader.on_event(frame.event, frame.data):
                return True
        self._frames += 1
        if self._sample.room > 0:
            self._sample.add(frame.data)
        return False

    def _end_already(self) -> int:
        """Where the open frame begins if it is the terminal one, its data complete and only its end missing; else -1."""
        frame = self._framing.unended() if self._looks < _EARLY_LOOKS_MAX else None
        if frame is None:
            return -1
        self._looks += 1
        ends = marked(self._reader, frame.data) and self._reader.is_terminal(frame.event, frame.data)
        return frame.start if ends else -1


def marked(reader: StreamReader, data: bytes) -> bool:
    """Whether a frame has anything that the reader wants to see."""
    first, *others = reader.interesting
    for marker in others:
        if marker in data:
            return True
    return first in data and data.count(first) > sum([data.count(form) for form in reader.boring])
