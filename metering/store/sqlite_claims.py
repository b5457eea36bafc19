"""Idempotency keys on SQLite: asked and moved row by row, within a transaction in which nobody else can write."""

import sqlite3
from decimal import Decimal
from uuid import UUID

import msgspec

from metering.rows import EventRow, HoldRow, KeyMove, Standing
from metering.store.claims import Booking
from pricing.money import from_scaled, to_scaled

_CLAIM = """insert into idempotency_keys (customer_id, key_hash, payload_hash, occurred_at)
    values (?, ?, ?, ?) on conflict (customer_id, key_hash) do nothing"""
_STANDING = """select payload_hash, event_id, charged, counted from idempotency_keys
    where customer_id = ? and key_hash = ?"""
_MOVE = "update idempotency_keys set event_id = ?, charged = ?, counted = ? where customer_id = ? and key_hash = ?"
_BOOKED = "select charge_total, quantity, pricing_status, context from usage_events where id = ?"


def claim(db: sqlite3.Connection, row: HoldRow, created_at: str) -> bool:
    """Claim the hold's key for its payload. False when it stands for another one."""
    if row.claim is None:
        return True
    payload = bytes.fromhex(row.claim.payload_hash)
    db.execute(_CLAIM, [*_key(row), payload, created_at])
    return not conflicts(db, row)


def conflicts(db: sqlite3.Connection, row: HoldRow) -> bool:
    """Whether the hold's key stands for another payload."""
    standing = standing_of(db, row)
    return standing is not None and row.claim is not None and standing.payload_hash != row.claim.payload_hash


def standing_of(db: sqlite3.Connection, row: HoldRow | EventRow) -> Standing | None:
    """How the row's key stands; None for a call without one."""
    return _standing(db, _key(row)) if row.claim is not None else None


def has_moved(db: sqlite3.Connection, customer_id: UUID, moved: KeyMove) -> bool:
    """Whether the key stands otherwise than the move was made for, or leaves it: another event may have moved it alike."""
    standing = _standing(db, [customer_id.hex, bytes.fromhex(moved.key_hash)])
    return standing not in (moved.before, moved.after)


def _standing(db: sqlite3.Connection, key: list[str | bytes]) -> Standing | None:
    found = db.execute(_STANDING, key).fetchone()
    if found is None:
        return None
    payload, event, charged, counted = found
    return Standing(
        payload.hex(), UUID(event) if event else None, from_scaled(charged or 0), from_scaled(counted or 0)
    )


def move(db: sqlite3.Connection, customer_id: UUID, moved: KeyMove | None) -> None:
    """Write the key's new standing."""
    if moved is None:
        return
    after, key = moved.after, bytes.fromhex(moved.key_hash)
    answered_by = after.answered_by.hex if after.answered_by is not None else None
    amounts = (to_scaled(after.charged), to_scaled(after.counted))
    db.execute(_MOVE, [answered_by, *amounts, customer_id.hex, key])


def booking_of_event(db: sqlite3.Connection, row: EventRow) -> Booking | None:
    """What was booked of an attempt whose event is there; None where it counts as it is."""
    charge, quantity, status, context = db.execute(_BOOKED, [row.id.hex]).fetchone()
    said = msgspec.json.decode(context)
    if "repeat_of" not in said and "charged_before" not in said:
        return None
    return Booking(
        None if charge is None else from_scaled(charge), from_scaled(quantity), status,
        UUID(said["repeat_of"]) if "repeat_of" in said else None, Decimal(said.get("charged_before", 0)),
    )  # fmt: skip


def _key(row: HoldRow | EventRow) -> list[str | bytes]:
    return [row.customer_id.hex, bytes.fromhex(row.claim.key_hash) if row.claim is not None else b""]
