"""JSON documents of unknown shape, as far as it takes to tell what they are."""

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from metering.extract.base import UNREADABLE

_FIELD_MAX = 64 * 1024  # bytes of a field that are decoded; of a larger one it is only known that it is there

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_value = msgspec.json.Decoder().decode


def top_of(data: bytes) -> Mapping[str, Any] | None:
    """The object that `data` is, its large fields (texts, images, vectors) left out as None; None when it is no object."""
    try:
        return {
            name: _value(raw) if len(memoryview(raw)) <= _FIELD_MAX else None
            for name, raw in _fields(data).items()
        }
    except UNREADABLE:
        pass
    try:
        document = json.loads(data)
    except UNREADABLE:
        return None
    return document if isinstance(document, dict) else None


def are_lines(data: bytes) -> bool:
    """Whether `data` is no one document, but begins with one that a line holds."""
    text = data.lstrip()
    end = text.find(b"\n")
    return end > 0 and top_of(text[:end]) is not None and top_of(text) is None
