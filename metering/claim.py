"""The idempotency key of a call: what it stands for, as hashes.

A client that sends one call several times marks it with one `Idempotency-Key`; each attempt is made, and the customer pays
once (`metering.store.claims`). A repeat is the same key with the same payload: method, path, query, content type and body.
Keys of calls and of ingested events are apart, so that one request id may serve both.

The boundary of a form is drawn anew for every attempt and left out of the payload. The client chooses it, so it is left out
only where it can be nothing but a boundary: two forms that hash alike differ in it alone.
"""

import hashlib
import re
from collections.abc import Sequence

from metering.rows import Claim, EventRow

HEADER = b"idempotency-key"
_HASH_BYTES = 16
_DELIMITERS_MAX = 1_000  # of a form; more are no form that a client of an AI API sends, and would take long
_FORM = re.compile(  # what RFC 2046 lets a boundary be, in quotes, or bare if it is a token
    rb"(multipart/[^;,]+;(?:[^\"]*;)?[ \t]*boundary=)"
    rb"(?:\"([\w'()+,./:=? -]{0,69}[\w'()+,./:=?-])\"|([\w'+.-]{1,70}))"
    rb"([ \t]*(?:;.*)?)",
    re.IGNORECASE,
)


def claim_of(
    key: bytes, *, method: str, path: str, query: bytes, content_type: bytes, body: bytes | None
) -> Claim | None:
    """The claim of a call; None without a key, and for a body that was too long to be read: what cannot be compared is no
    repeat of anything."""
    if not key or body is None:
        return None
    target = (method.encode(), path.encode("utf-8", "surrogateescape"), query)
    form = _form_without_boundary(content_type, body)
    if form is None:
        return Claim(_hash(b"call\0" + key), _hash_of(b"as sent", *target, content_type, body))
    return Claim(_hash(b"call\0" + key), _hash_of(b"form", *target, *form))


def _form_without_boundary(content_type: bytes, body: bytes) -> Sequence[bytes] | None:
    """A form in pieces: its content type before and after the boundary, then the body between its delimiters. None if it
    is no form, or if its boundary occurs anywhere else, for then it is content as well."""
    match = _FORM.fullmatch(content_type)
    if match is None:
        return None
    before, quoted, bare, after = match.groups()
    boundary = quoted or bare
    delimiter = b"--" + boundary
    if (before + after).lower().count(b"boundary") != 1:  # readers differ in which of two they take
        return None
    if not body.startswith(delimiter):
        return None
    pieces = body[len(delimiter) :].split(b"\r\n" + delimiter, _DELIMITERS_MAX)
    if len(pieces) > _DELIMITERS_MAX:
        return None
    if any(not piece.startswith((b"\r\n", b"--")) or boundary in piece for piece in pieces):
        return None
    return before, after, *pieces


def is_complete(row: EventRow) -> bool:
    """Whether an attempt delivered its whole answer, or would have to a client that had stayed, and is known to have."""
    if row.status == "ok":
        return row.usage_source != "none"
    return row.status == "client_disconnected" and row.usage_source == "reported"


def _hash(value: bytes) -> str:
    return hashlib.sha256(value).digest()[:_HASH_BYTES].hex()


def _hash_of(*pieces: bytes) -> str:
    """One hash of several pieces, each behind its length: no two sequences of pieces are hashed alike by being joined."""
    found = hashlib.sha256()
    for piece in pieces:
        found.update(len(piece).to_bytes(8, "big"))
        found.update(piece)
    return found.digest()[:_HASH_BYTES].hex()
