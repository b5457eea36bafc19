"""What became known of an event after it was written: the event as it counts now, and the corrections that change it.

An event row is never touched. A correction holds the columns that differ, old and new, and the difference that it makes to
daily usage; the event as corrected is the event with the new values of its corrections laid over it, in the order of their
revisions. A revision is taken once: who computed a correction from a state that has changed meanwhile finds it taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple, get_type_hints
from uuid import UUID, uuid4

import msgspec

from metering.ids import NIL
from metering.rows import EVENT_COLUMNS, Amendment, CorrectionRow, EventRow, KeyMove
from pricing.money import decimal_string

LATE_SETTLEMENT = "settled after sweep"
PRICED_LATER = "priced"

# What a correction may change: all but the event's identity.
CHANGEABLE = tuple(name for name in EVENT_COLUMNS if name not in {"id", "customer_id", "created_at"})
_TYPES = get_type_hints(EventRow)


class Written(NamedTuple):
    """What has to be known of a correction that was written."""

    revision: int
    reason: str
    new: Mapping[str, Any]


def event_from(columns: Mapping[str, Any]) -> EventRow:
    """The event of a row of `usage_events`, given by column. Which hold it ended is not kept."""
    values = dict(columns)
    values["rate_ids"] = tuple(columns.get("rate_ids", ()))
    day = columns["occurred_at"].astimezone(UTC).date()
    return EventRow(hold_id=NIL, hold_at=columns["created_at"], day=day, **values)


def as_corrected(event: EventRow, news: Iterable[Mapping[str, Any]]) -> EventRow:
    """The event as it counts now; `news`: the column `new` of its corrections, in the order of their revisions."""
    latest = {name: value for new in news for name, value in new.items() if name in CHANGEABLE}
    if not latest:
        return event
    values = {name: msgspec.convert(value, _TYPES[name]) for name, value in latest.items()}
    return msgspec.structs.replace(event, **values)


def counts_on(event: EventRow) -> tuple[datetime, date]:
    """The billing period and the UTC day on which a correction of this event counts: the event's own, as long as no day is
    ever closed."""
    return event.period_start, event.day


def differences(old: EventRow, new: EventRow, columns: Iterable[str]) -> dict[str, tuple[Any, Any]]:
    """The columns that differ, with both values as they are kept on a correction: amounts and instants as text."""
    pairs = ((name, getattr(old, name), getattr(new, name)) for name in columns)
    kept = ((name, _kept(before), _kept(after)) for name, before, after in pairs if before != after)
    return {name: (before, after) for name, before, after in kept if before != after}


def correction(
    old: EventRow, new: EventRow, *, revision: int, at: datetime, reason: str, columns: Iterable[str], run: UUID | None = None
) -> CorrectionRow:  # fmt: skip
    """The correction that turns `old` into `new`, which count in the same row of daily usage."""
    before, after = sums_of(old), sums_of(new)
    sums = {name: after[name] - before[name] for name in after}
    return _row(new, differences(old, new, columns), sums, revision=revision, at=at, reason=reason, run=run)


def late_settlement(
    swept: EventRow, written: Sequence[Written], truth: EventRow, key: KeyMove | None = None
) -> Amendment | None:
    """What a settlement makes of the swept event of its call, or None where that was done before. One correction takes back
    what counted for the event until now and one books the truth: another model may have served than the sweep assumed.
    `truth` is what the call's idempotency key left of it, `key` how that moves with it."""
    if any(one.reason == LATE_SETTLEMENT for one in written):
        return None
    now = as_corrected(swept, [one.new for one in written])
    said = differences(now, truth, CHANGEABLE)
    revision, at = written[-1].revision if written else 0, truth.created_at
    taken_back = {name: -value for name, value in sums_of(now).items()}
    booked = msgspec.structs.replace(truth, id=swept.id)
    return Amendment(
        customer_id=swept.customer_id, event_id=swept.id, created_at=swept.created_at, occurred_at=truth.occurred_at,
        provider=truth.provider, model=truth.model, missing=truth.missing, revision=revision, key=key,
        on_credit=swept.posting_id is not None,
        corrections=(
            _row(now, {}, taken_back, revision=revision + 1, at=at, reason=LATE_SETTLEMENT),
            _row(booked, said, sums_of(truth), revision=revision + 2, at=at, reason=LATE_SETTLEMENT),
        ),
    )  # fmt: skip


def sums_of(event: EventRow) -> dict[str, Any]:
    """What an event adds to daily usage, by column: unknown adds nothing, and is counted beside."""
    return {
        "events": 1,
        "quantity": event.quantity,
        "tokens_input": event.tokens_input or 0,
        "tokens_output": event.tokens_output or 0,
        "tokens_total": event.tokens_total or 0,
        "cost_total": event.cost_total or Decimal(0),
        "charge_total": event.charge_total or Decimal(0),
        "unpriced_events": int(event.pricing_status in ("unpriced", "partial")),
        "estimated_events": int(event.usage_source in ("estimated", "reported_partial")),
    }


def _row(
    event: EventRow, said: Mapping[str, tuple[Any, Any]], sums: Mapping[str, Any], *, revision: int, at: datetime,
    reason: str, run: UUID | None = None,
) -> CorrectionRow:  # fmt: skip
    period_start, day = counts_on(event)
    return CorrectionRow(
        id=uuid4(), customer_id=event.customer_id, event_id=event.id, revision=revision, created_at=at, reason=reason[:64],
        run=run, changed=tuple(said), old={name: before for name, (before, _) in said.items()},
        new={name: after for name, (_, after) in said.items()}, period_start=period_start, day=day, feature=event.feature,
        provider=event.provider, model=event.model, api_key_id=event.api_key_id, currency=event.currency, **sums,
    )  # fmt: skip


def _kept(value: Any) -> Any:
    """A value as a document keeps it, exactly: a number with a point would come back as a binary fraction."""
    if isinstance(value, Decimal):
        return decimal_string(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, msgspec.Raw):
        return msgspec.json.decode(value)
    return list(value) if isinstance(value, tuple) else value
