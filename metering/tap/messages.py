"""The messages of one WebSocket (Realtime, Live), for whoever carries them: there is no HTTP answer to watch."""

from collections.abc import Iterable

from metering.estimate import RequestFacts
from metering.extract import WireFormat
from metering.tap.frames import marked
from pricing.usage import Usage


def usage_of_messages(
    fmt: WireFormat,
    messages: Iterable[str | bytes],
    *,
    facts: RequestFacts | None = None,
    provider: str = "",
    complete: bool = True,
) -> Usage:
    """What the provider's messages, in their order, say of usage over the whole connection. Never raises.

    Text or bytes, one JSON document each; what is none is passed over, as is audio. The wire format decides whether several
    reports are added up (one per response) or the last one holds (running totals).
    """
    reader = fmt.open_stream(facts or RequestFacts(), provider)
    seen = 0
    for message in messages:
        data = message.encode("utf-8", "replace") if isinstance(message, str) else message
        if not seen or marked(reader, data):
            reader.on_event(b"", data)
        seen += 1
    return reader.usage(seen, complete)
