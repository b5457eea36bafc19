"""Who pays for the attempts of one call that was sent several times under one idempotency key.

A key has a standing: which attempt answered it in full, and the most that any attempt has been charged and counted so far.
An attempt that comes after the answer is free. One that was cut short is charged for what it delivered; the next pays what
its own charge is above that. So a key never costs more than its dearest attempt, and an answer that was nearly read to its
end before the client left is not free either. What an attempt cost us stays on its event whatever it is charged.

Whoever may pay bears the key's hash (`context.key`), so that whoever rates it later finds the others (`metering.keyed`).

The rule in Python is that of the stores that write row by row, while nobody else can; the one statement of
`metering.store.postgres_claims` says the same in SQL.
"""

from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from metering.claim import is_complete
from metering.rows import EventRow, KeyMove, PricingStatus, Standing
from pricing.money import decimal_string

ZERO = Decimal(0)


class Booking(msgspec.Struct, frozen=True):
    """What of an attempt counts."""

    charge: Decimal | None
    quantity: Decimal
    pricing_status: PricingStatus
    repeat_of: UUID | None = None
    charged_before: Decimal = ZERO


def move_of(
    row: EventRow, standing: Standing | None, event_id: UUID
) -> tuple[KeyMove | None, Booking | None]:
    """How this attempt moves its key once it is in the books as event `event_id`, and what of it counts. Nothing of either
    for a call without a key."""
    if row.claim is None or standing is None:
        return None, None
    after = Standing(
        standing.payload_hash,
        standing.answered_by or (event_id if is_complete(row) else None),
        max(standing.charged, row.charge_total or ZERO),
        max(standing.counted, row.quantity),
    )
    return KeyMove(row.claim.key_hash, standing, after), _booking(row, standing)


def _booking(row: EventRow, standing: Standing) -> Booking:
    if standing.answered_by is not None:
        return Booking(ZERO, ZERO, _status_of_repeat(row), standing.answered_by, standing.charged)
    charge = row.charge_total
    if charge is not None:
        charge = max(ZERO, charge - standing.charged)
    quantity = max(ZERO, row.quantity - standing.counted)
    return Booking(charge, quantity, row.pricing_status, None, standing.charged)


def _status_of_repeat(row: EventRow) -> PricingStatus:
    """That of the cost alone, for no price is asked of its charge: as `metering.rated` finds when it is rated again."""
    if row.pricing_status in ("priced", "by_plan"):
        return row.pricing_status
    is_whole = None not in (row.cost_total, row.cost_input, row.cost_output)
    book = _document(row.context).get("terms", {}).get("cost_book", "cost")
    return "priced" if is_whole and book not in (row.missing or {}) else "partial"


def apply(row: EventRow, booking: Booking | None) -> None:
    """Put on the row what was booked."""
    if booking is None:
        return
    row.charge_total, row.quantity = booking.charge, booking.quantity
    row.pricing_status = booking.pricing_status
    said: dict[str, Any] = {}
    if booking.repeat_of is not None:
        said["repeat_of"] = str(booking.repeat_of)
    elif row.claim is not None:
        said["key"] = row.claim.key_hash
    if booking.charged_before:
        said["charged_before"] = decimal_string(booking.charged_before)
    if said:
        document: Any = msgspec.Raw(msgspec.json.encode({**_document(row.context), **said}))
        row.context = document  # as the validator leaves it


def booked_row(row: EventRow, booking: Booking | None) -> EventRow:
    """The row as it is booked; the one in hand stays as it is until that is committed."""
    if booking is None:
        return row
    copy = msgspec.structs.replace(row)
    apply(copy, booking)
    return copy


def _document(context: Any) -> dict[str, Any]:
    found = msgspec.json.decode(context) if isinstance(context, msgspec.Raw) else context
    return found if isinstance(found, dict) else {}
