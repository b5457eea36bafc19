"""Bodies that would hold up the process if they were read whole: of very many small values, not of much text.

To make objects of eight megabytes of empty lists takes seconds, in one call into C during which no other thread runs. What
decides how much a call may write is small and stands at the top of the body, so only that is decoded; what is large there
stays unread.
"""

import msgspec

Json = dict[str, object]
WEIGHED_FROM = 131_072  # bytes; shorter bodies cannot hold up anybody
WEIGHT_MAX = 400_000  # some tens of milliseconds
SMALL = 65_536  # bytes of one field that is decoded all the same


def is_heavy(body: bytes) -> bool:
    """Whether the body holds more values than it may: each opening and each name weighs eight times a comma or an escape.
    Characters within texts count as well, so a large text full of code may be taken for heavy."""
    if len(body) <= WEIGHED_FROM:
        return False
    opened = body.count(b"{") + body.count(b"[") + body.count(b":")
    return 8 * opened + body.count(b",") + body.count(b"\\") > WEIGHT_MAX


def heads(body: bytes, names: "frozenset[str]") -> tuple[Json, frozenset[str]] | None:
    """The fields of these names at the top of the body, and the names of those that are too large to be decoded; None where
    the body is no JSON object. Other fields are passed over without being made into anything."""
    try:
        top = _decoder(names).decode(body)
        raw = {name: getattr(top, name) for name in names}
        given = {name: bytes(value) for name, value in raw.items() if value is not msgspec.UNSET}
        small = {name: msgspec.json.decode(value) for name, value in given.items() if len(value) <= SMALL}
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    return small, frozenset(given.keys() - small.keys())


_decoders: "dict[frozenset[str], msgspec.json.Decoder[msgspec.Struct]]" = {}


def _decoder(names: "frozenset[str]") -> "msgspec.json.Decoder[msgspec.Struct]":
    """One for each set of names, of which there is one."""
    if names not in _decoders:
        fields = [(name, msgspec.Raw | msgspec.UnsetType, msgspec.UNSET) for name in sorted(names)]
        _decoders[names] = msgspec.json.Decoder(msgspec.defstruct("Heads", fields))
    return _decoders[names]
