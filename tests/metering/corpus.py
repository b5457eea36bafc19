"""The corpus as the tests read it: a file is a `Case`, and `body_of` is what the provider would have sent, byte for byte.

Strict on purpose: a field that is misspelt is an error and not a case that checks less than it seems to.
"""

import base64
import json
import re
import struct
import zlib
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec

ROOT = Path(__file__).resolve().parent.parent / "corpus"
Framing = Literal["json", "sse", "ndjson", "json_array", "aws_event_stream", "websocket"]
Side = Literal["input", "output"]
_FILLER = re.compile(r"\{(\d+) (words|bytes)\}")


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """A part of a file."""


class Request(Strict):
    method: Literal["GET", "POST"]
    path: str
    model: str | None = None  # where the body does not name it
    body: dict[str, Any] = {}


class Response(Strict):
    """One of the last six says what was sent, whichever the framing needs; tests/corpus/README.md explains them."""

    status: int
    content_type: str = ""
    complete: bool = True  # False: the connection broke here
    line_end: Literal["\n", "\r\n"] = "\n"
    body: Any = msgspec.UNSET
    text: str | msgspec.UnsetType = msgspec.UNSET
    events: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    lines: list[Any] | msgspec.UnsetType = msgspec.UNSET
    items: list[Any] | msgspec.UnsetType = msgspec.UNSET
    frames: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    messages: list[Any] | msgspec.UnsetType = msgspec.UNSET


class When(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    service_tier: str = ""
    speed: str = ""
    region: str = ""
    batch: bool = False
    byok: bool = False
    input_above: int = 0


class Tariff(Strict):
    model: str
    prices: dict[str, str]
    provider: str = ""  # "": the case's
    when: When = When()


class Context(Strict):
    service_tier: str | None = None
    speed: str | None = None
    region: str | None = None
    batch: bool = False
    byok: bool = False


class Part(Strict):
    buckets: dict[str, int | str]
    model: str = ""  # "": the call's
    kind: str | None = None  # None: the provider has no word for it


class Expect(Strict):
    model: str
    usage_source: Literal["reported", "reported_partial", "estimated", "none"]
    consistency: str
    rules: list[str]
    context: Context
    tokens_input: int | None
    tokens_output: int | None
    buckets: dict[str, int | str]
    parts: list[Part] = []
    estimated: list[Side] = []
    reported_cost: str | None = None


class Line(Strict):
    bucket: str
    quantity: int | str
    price: str
    per: int
    amount: str
    model: str = ""


class Cost(Strict):
    lines: list[Line]
    total: str | None
    status: Literal["priced", "partial", "unpriced"] = "priced"


class Case(Strict):
    title: str
    shapes: list[int]
    source: str
    wire_format: str
    provider: str
    framing: Framing
    request: Request
    response: Response
    rates: list[Tariff]
    expect: Expect
    cost: Cost | None
    same_charge_as: str | None = None


def names() -> list[str]:
    """Every case as `family/name`."""
    return sorted(str(path.relative_to(ROOT).with_suffix("")) for path in ROOT.rglob("*.json"))


@cache
def load(name: str) -> Case:
    text = (ROOT / f"{name}.json").read_bytes()
    try:
        return msgspec.convert(json.loads(text), Case)  # the standard reader keeps numbers of any size
    except (msgspec.ValidationError, ValueError) as error:
        raise AssertionError(f"{name}: {error}") from None


def quantities(buckets: dict[str, int | str]) -> dict[str, int | Decimal]:
    """Counts, and fractions, which stand in quotes so that no reader makes floats of them."""
    return {
        bucket: Decimal(value) if isinstance(value, str) else value
        for bucket, value in buckets.items()
        if value
    }


def request_body(case: Case) -> bytes:
    """The body of the request, with words and bytes in place of `{7 words}` and `{7 bytes}`."""
    return _FILLER.sub(_filler, json.dumps(case.request.body, ensure_ascii=False)).encode()


def _filler(found: re.Match[str]) -> str:
    return {"words": "ant ", "bytes": "A"}[found[2]] * int(found[1])


def body_of(case: Case) -> bytes:
    """The bytes of the answer."""
    response = case.response
    if response.text is not msgspec.UNSET:
        return str(response.text).encode()
    match case.framing:
        case "json":
            return compact(response.body)
        case "sse":
            lines = response.lines or event_lines(response.events or [])
            return "".join(line + response.line_end for line in lines).encode()
        case "ndjson":
            return b"".join(compact(line) + response.line_end.encode() for line in response.lines or [])
        case "json_array":  # indented and with a comma on a line of its own, as Google sends it
            items = ",\r\n".join(
                json.dumps(item, ensure_ascii=False, indent=2) for item in response.items or []
            )
            return f"[{items}\n]\n".encode()
        case "aws_event_stream":
            return b"".join(aws_message(frame) for frame in response.frames or [])
    raise AssertionError(f"{case.framing} has no body")


def compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def event_lines(events: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Server-sent events: a name where there is one, the data on one line, an empty line."""
    for event in events:
        if "comment" in event:
            yield f": {event['comment']}"
        if "event" in event:
            yield f"event: {event['event']}"
        if "data" in event:
            data = event["data"]
            yield "data: " + (data if isinstance(data, str) else compact(data).decode())
        yield ""


def aws_message(frame: dict[str, Any]) -> bytes:
    """One message of `application/vnd.amazon.eventstream`: prelude, its CRC, headers, payload, CRC of all before it."""
    payload = compact(frame["payload"] if "payload" in frame else _wrapped(frame["bytes"]))
    headers = b"".join(
        bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value.encode())) + value.encode()
        for name, value in frame["headers"].items()
    )
    prelude = struct.pack(">II", 12 + len(headers) + len(payload) + 4, len(headers))
    message = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return message + struct.pack(">I", zlib.crc32(message))


def _wrapped(document: Any) -> dict[str, str]:
    """How InvokeModel puts the vendor's JSON into a frame."""
    return {"bytes": base64.b64encode(compact(document)).decode()}
