"""The idempotency key of a call: what it stands for, as hashes.

A client that sends one call several times marks it with one `Idempotency-Key`; each attempt is made, and the customer pays
once (`metering.store.claims`). A repeat is the same key with the same payload: method, path, query and body. Keys of calls
and of ingested events are apart, so that one request id may serve both.
"""

import hashlib
import re

from metering.rows import Claim, EventRow

HEADER = b"idempotency-key"
_HASH_BYTES = 16
_BOUNDARY = re.compile(rb'multipart/[^;]+;.*boundary="?([^";]+)"?', re.IGNORECASE)


def claim_of(
    key: bytes, *, method: str, path: str, query: bytes, content_type: bytes, body: bytes | None
) -> Claim | None:
    """The claim of a call; None without a key, and for a body that was too long to be read: what cannot be compared is no
    repeat of anything."""
    if not key or body is None:
        return None
    part = _BOUNDARY.match(content_type)
    if part is not None:  # drawn anew for every attempt
        body = body.replace(part[1], b"boundary")
    target = b"\0".join((method.encode(), path.encode("utf-8", "surrogateescape"), query, body))
    return Claim(_hash(b"call\0" + key), _hash(target))


def is_complete(row: EventRow) -> bool:
    """Whether an attempt delivered its whole answer, or would have to a client that had stayed, and is known to have."""
    if row.status == "ok":
        return row.usage_source != "none"
    return row.status == "client_disconnected" and row.usage_source == "reported"


def _hash(value: bytes) -> str:
    return hashlib.sha256(value).digest()[:_HASH_BYTES].hex()
