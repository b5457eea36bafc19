"""An answer that is in another format than its route's: a gateway passed it on as it came, or the route is wrong.

The route's format goes first. Where it finds no usage, the content decides, and the usage says so.
"""

from metering.estimate import RequestFacts
from metering.extract import StreamReader, WireFormat, wire_format
from metering.extract.detect import detect_by_content
from metering.extract.document import top_of
from metering.extract.marks import with_rule
from pricing.usage import Usage

FORMAT_BY_CONTENT = "format_by_content"
# What no other format writes: where the route's own has it, nobody needs to look closer.
_OWN = {
    "openai_chat": b'"choices"',
    "openai_responses": b'"type":"response.',
    "anthropic_messages": b'"message_start"',
    "gemini_generate": b'"candidates"',
}


def read_by_content(
    body: bytes, nothing: Usage, route: WireFormat, facts: RequestFacts, provider: str
) -> Usage:
    """The usage of a whole body in which the route's format found `nothing`; `nothing` again where no other finds any."""
    other = format_of(body, route, provider)
    if other is None:
        return nothing
    usage = other.read_body(body, facts, provider)
    return with_rule(usage, FORMAT_BY_CONTENT) if usage.source != "none" else nothing


def reader_by_content(
    reader: StreamReader, route: WireFormat, facts: RequestFacts, provider: str, event: bytes, data: bytes
) -> StreamReader:
    """What reads a stream with this first event: the route's `reader`, alone or beside that of another format."""
    other = format_of(data, route, provider, event)
    return reader if other is None else EitherStream(reader, other.open_stream(facts, provider))


def format_of(data: bytes, route: WireFormat, provider: str, event: bytes = b"") -> WireFormat | None:
    """The format that a document is in, if that is another one than the route's."""
    own = _OWN.get(route.name)
    if own is not None and own in data:
        return None
    document = top_of(data)
    name = detect_by_content(document, provider, event) if document is not None else None
    return wire_format(name) if name is not None and name != route.name else None


class EitherStream:
    """Two readers of one stream. The first one's word holds, unless the second knows more."""

    def __init__(self, first: StreamReader, second: StreamReader) -> None:
        self._first, self._second = first, second
        self.interesting = tuple(dict.fromkeys((*first.interesting, *second.interesting)))
        self.boring = first.boring
        self.quiet = first.quiet & second.quiet

    def on_event(self, event: bytes, data: bytes) -> bool:
        first_ends = self._first.on_event(event, data)
        second_ends = self._second.on_event(event, data)
        return first_ends or (second_ends and not self._first_knows())

    def is_terminal(self, event: bytes, data: bytes) -> bool:
        return self._first.is_terminal(event, data) or (
            self._second.is_terminal(event, data) and not self._first_knows()
        )

    def usage(self, events_seen: int, complete: bool) -> Usage:
        first = self._first.usage(events_seen, complete)
        second = self._second.usage(events_seen, complete)
        return with_rule(second, FORMAT_BY_CONTENT) if _knowledge(second) > _knowledge(first) else first

    def _first_knows(self) -> bool:
        """Whether what the second takes for an end may be none, since the stream is the first one's after all."""
        return _knowledge(self._first.usage(1, complete=False)) >= _BOTH_SIDES


_ESTIMATE, _ONE_SIDE, _BOTH_SIDES, _FINAL = 1, 2, 3, 4


def _knowledge(usage: Usage) -> int:
    """How much a usage tells. Readers of another format may find one counter of many."""
    if usage.source == "none":
        return 0
    if usage.source == "estimated":
        return _ESTIMATE
    if usage.unknown_sides:
        return _ONE_SIDE
    return _FINAL if usage.source == "reported" else _BOTH_SIDES
