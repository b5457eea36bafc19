"""What a record of the spool says, as JSON. Amounts and documents come back exactly as they went in."""

from collections.abc import Callable
from typing import Any, get_type_hints
from uuid import UUID

import msgspec

from metering.clean import DOCUMENTS
from metering.rows import EventRow, HoldRow

_encode = msgspec.json.Encoder(decimal_format="string").encode


class Record(msgspec.Struct, frozen=True):
    """A hold alone: a call went out. An event: it was settled; with its hold where that is not in the database. `dropped`:
    the call never went out after all."""

    hold: HoldRow | None = None
    event: EventRow | None = None
    writer: UUID | None = None  # under which the hold was sent to the database as well: it may be there
    dropped: bool = False

    @property
    def hold_id(self) -> UUID:
        if self.event is not None:
            return self.event.hold_id
        if self.hold is not None:
            return self.hold.id
        raise ValueError("a record is of a call")


def encode(record: Record) -> bytes:
    """The record as bytes. Raises ValueError or TypeError for what is not fit to be written anywhere."""
    return _encode(record)


def decode(payload: bytes) -> Record:
    """The record that `encode` made bytes of."""
    parts = _parts.decode(payload)
    return Record(
        _row(HoldRow, _HOLD, parts.hold), _row(EventRow, _EVENT, parts.event), parts.writer, parts.dropped
    )


class Gist(msgspec.Struct, frozen=True):
    """Of which call a record is, and whether it ends that."""

    hold_id: UUID
    ends: bool
    writer: UUID | None


def gist(payload: bytes) -> Gist:
    """The least of a record: reading the rest of it takes ten times as long."""
    found = _gist.decode(payload)
    if found.event is not None:
        return Gist(found.event.hold_id, True, found.writer)
    if found.hold is not None:
        return Gist(found.hold.id, found.dropped, found.writer)
    raise ValueError("a record is of a call")


class _Parts(msgspec.Struct):
    hold: dict[str, msgspec.Raw] | None
    event: dict[str, msgspec.Raw] | None
    writer: UUID | None
    dropped: bool


class _HoldId(msgspec.Struct):
    id: UUID


class _EventId(msgspec.Struct):
    hold_id: UUID


class _Gist(msgspec.Struct):
    hold: _HoldId | None
    event: _EventId | None
    writer: UUID | None
    dropped: bool


_parts, _gist = msgspec.json.Decoder(_Parts), msgspec.json.Decoder(_Gist)
_Decode = Callable[[msgspec.Raw], Any]


def _document(raw: msgspec.Raw) -> Any:
    """As it was written: a number with a point would come back as a binary fraction."""
    return None if bytes(raw) == b"null" else msgspec.Raw(bytes(raw))


def _decoders(kind: type[HoldRow | EventRow]) -> dict[str, _Decode]:
    hints = get_type_hints(kind)
    return {
        name: _document if name in DOCUMENTS else msgspec.json.Decoder(hints[name]).decode
        for name in kind.__struct_fields__
    }


_HOLD, _EVENT = _decoders(HoldRow), _decoders(EventRow)


def _row(kind: Any, decoders: dict[str, _Decode], fields: dict[str, msgspec.Raw] | None) -> Any:
    """A row; a field that a later version has and this one does not is left out."""
    if fields is None:
        return None
    return kind(**{name: decoders[name](raw) for name, raw in fields.items() if name in decoders})
