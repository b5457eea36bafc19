"""An act of the API under an `Idempotency-Key` happens once. Kept: hashes of the key and the content, and the id of what the act
made; never an answer, so no secret either. A repeat is answered from the row that was made.
"""

import hashlib
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

import msgspec
from django.db import transaction
from rest_framework.request import Request

from billing.bodies import idempotency_key_of
from billing.problems import Refused
from metering.ids import NIL
from metering.models import IdempotencyKey
from metering.problem import idempotency_conflict

_HASH_BYTES = 16


def once(
    request: Request, act: str, body: msgspec.Struct, at: datetime, make: Callable[[], UUID], *, of: UUID = NIL
) -> tuple[UUID, bool]:  # fmt: skip
    """Do `make`, unless this was done under the request's key before: the id of what it made, and whether it was made now.

    `of` is the customer that the act belongs to. What fails leaves the key free. Of two at once the second waits for the
    first. Raises Refused (409) where the key was used for other content.
    """
    key = idempotency_key_of(request)
    with transaction.atomic():
        if not key:
            return make(), True
        content = _hash(b"content", msgspec.json.encode(body, order="sorted"))
        claim, is_new = IdempotencyKey.objects.get_or_create(
            customer_id=of, key_hash=_hash(act.encode(), key.encode()), defaults={"payload_hash": content, "occurred_at": at}
        )  # fmt: skip
        if is_new:
            made = make()
            IdempotencyKey.objects.filter(pk=claim.pk).update(event_id=made)
            return made, True
        if bytes(claim.payload_hash) != content or claim.event_id is None:
            raise Refused(idempotency_conflict())
        return claim.event_id, False


def _hash(kind: bytes, text: bytes) -> bytes:
    """16 bytes that no key of an event or of a call hashes to: those have no kind before them."""
    return hashlib.blake2b(b"act\0" + kind + b"\0" + text, digest_size=_HASH_BYTES).digest()
