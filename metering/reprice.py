"""What the rates of today make of an event of then: its price at the instant of its use, by the books it was rated by.

Pure. What was decided by a rule and not by a rate stays as it is: usage that nobody reported has no price, who paid nothing
by a rule pays nothing now, and what the plan prices is not charged here.
"""

from datetime import datetime
from decimal import Decimal
from typing import Literal
from uuid import UUID

import msgspec

from metering.clean import amount_fits
from metering.context import terms_of, usage_of
from metering.corrections import correction
from metering.rated import OTHER_CURRENCY, PRICED_COLUMNS, Rated, rate_event
from metering.rows import EVENT_COLUMNS, Amendment, EventRow, KeyMove
from pricing.pricelist import RateCard

AMOUNTS = ("cost_input", "cost_output", "cost_total", "charge_total")
# An event whose rates have other ids and whose amounts are the same is charged as before.
_DECISIVE = (*AMOUNTS, "pricing_status", "currency")
_NEVER_ASKED = frozenset(
    {
        *("raw_usage", "metadata", "tags", "endpoint", "method", "task_type", "execution_time", "latency"),
        *("api_key_hash", "user_id", "idempotency_key"),
    }
)
COLUMNS_ASKED = tuple(name for name in EVENT_COLUMNS if name not in _NEVER_ASKED)

Why = Literal["no usage", "cut documents", "other currency", "too large", "shares a key"]


class Kept(msgspec.Struct, frozen=True):
    """An event that cannot be rated again, and why: nobody reported its usage; its documents were cut when they were stored;
    its books are in another currency by now; an amount is beyond what a database holds; it pays
    what others under its key left to it, and it is not known which."""

    why: Why


class Repriced(msgspec.Struct, frozen=True):
    """An event as the rates of now make it. `missing`: what still has no rate, by book."""

    event: EventRow
    missing: dict[str, list[str]] | None
    differs: bool  # in an amount, in the currency or in whether it is priced


def reprice(event: EventRow, card: RateCard, share: Decimal | None = None) -> Repriced | Kept:
    """Rate an event, as it counts now, once more. `share`: what is left to it of what its key costs; None: all of it."""
    if event.usage_source == "none":
        return Kept("no usage")
    if "truncated" in event.buckets or "truncated" in event.context:
        return Kept("cut documents")
    rated = rate_event(
        card, usage_of(event), terms_of(event),
        at=event.occurred_at, currency=event.currency, by_plan=event.pricing_status == "by_plan",
    )  # fmt: skip
    if rated.charge_total is not None and share is not None:
        rated = msgspec.structs.replace(rated, charge_total=min(rated.charge_total, share))
    if _lost_its_currency(event, rated):
        return Kept("other currency")
    if not all(amount_fits(getattr(rated, name)) for name in AMOUNTS):
        return Kept("too large")
    new = msgspec.structs.replace(event, **{name: getattr(rated, name) for name in PRICED_COLUMNS})
    differs = any(getattr(event, name) != getattr(new, name) for name in _DECISIVE)
    return Repriced(new if differs else event, rated.missing, differs)


def _lost_its_currency(event: EventRow, rated: Rated) -> bool:
    """Whether a book that had priced the event has its prices in another currency by now."""
    names = [name for names in (rated.missing or {}).values() for name in names]
    return any(name.startswith(OTHER_CURRENCY) for name in names) and any(
        getattr(event, name) is not None and getattr(rated, name) is None
        for name in ("cost_total", "charge_total")
    )


def amendment(
    event: EventRow, now: EventRow, repriced: Repriced, *, revision: int, at: datetime, reason: str, card_version: int,
    run: UUID | None = None, key: KeyMove | None = None,
) -> Amendment:  # fmt: skip
    """What to write: the correction that turns `now` into what it was repriced to, if that differs, and the event's place in
    the list of what is unpriced. `event` is as it was written, `revision` that of its latest correction."""
    made = correction(
        now, repriced.event, revision=revision + 1, at=at, reason=reason, columns=PRICED_COLUMNS, run=run
    )
    return Amendment(
        customer_id=event.customer_id, event_id=event.id, created_at=event.created_at, occurred_at=now.occurred_at,
        provider=now.provider, model=now.model, missing=repriced.missing, revision=revision,
        on_credit=event.posting_id is not None, corrections=(made,) if repriced.differs else (), card_version=card_version,
        key=key if repriced.differs else None,
    )  # fmt: skip
