"""Streams as they go through a tap: how they are cut, what passes before the commit, and how each framing looks."""

import json
import struct
import zlib
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec

from metering.estimate import RequestFacts
from metering.extract import wire_format
from metering.tap import Tap, open_tap
from pricing.usage import Usage

FACTS = RequestFacts(model="asked-for", tokens_input_estimate=11, readable=True)
SSE, JSON = "text/event-stream; charset=utf-8", "application/json"
NDJSON, AWS = "application/x-ndjson", "application/vnd.amazon.eventstream"


def tap_for(
    fmt: str,
    content_type: str,
    encoding: str = "",
    *,
    provider: str = "openai",
    model: str | None = None,
    **options: Any,
) -> Tap:
    facts = msgspec.structs.replace(FACTS, model=model) if model else FACTS
    return open_tap(wire_format(fmt), facts, provider, content_type, encoding, **options)


def watch(tap: Tap, chunks: Iterable[bytes], *, complete: bool = True) -> tuple[bytes, Usage]:
    """What the client had before the commit, and the usage: feeds as the middleware does, up to the hold."""
    passed = b""
    for chunk in chunks:
        waits_from = tap.feed(chunk)
        assert -1 <= waits_from <= len(chunk)
        if waits_from >= 0:
            return passed + chunk[:waits_from], tap.finish(complete=True)
        passed += chunk
    return passed, tap.finish(complete)


def cut(text: bytes, places: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(places), len(text)]
    return [text[start:end] for start, end in pairwise(edges) if start < end]


def lines(*documents: Any, line_end: bytes = b"\n") -> bytes:
    """One document per line."""
    return b"".join(json.dumps(document, ensure_ascii=False).encode() + line_end for document in documents)


def array(*documents: Any) -> bytes:
    """One array, laid out as Gemini does."""
    return b"[" + b",\r\n".join(json.dumps(document, indent=2).encode() for document in documents) + b"\n]\n"


def aws_message(event: str, payload: Any, *, kind: str = "event") -> bytes:
    """One message of an AWS event stream."""
    name = ":event-type" if kind == "event" else ":exception-type"
    headers = b"".join(
        struct.pack(">B", len(key)) + key.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for key, value in ((name, event), (":content-type", "application/json"), (":message-type", kind))
    )
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    prelude = struct.pack(">II", len(headers) + len(body) + 16, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + body
    return message + struct.pack(">I", zlib.crc32(message))
