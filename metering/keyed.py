"""Rating events again of which some share an idempotency key: all attempts under it cost no more than the dearest.

What an attempt that was cut short came to when another was settled says nothing once rates have changed, so it is derived
from the attempts themselves. Those that are rated together share what the dearest attempt comes to, less what the others
are charged, which stands, and never more than the dearest of their own. Each goes on paying what it pays, as far as its own charge allows; what is missing is added in
the order in which they were settled, what is too much is taken from the last. So with the rates that they were settled by
nothing changes, and whoever computes the shares again when some of them are written finds the same for the rest.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
from django.db.models import Q

from metering.histories import LATENESS_MAX, histories
from metering.ids import instant_of
from metering.models import IdempotencyKey, UsageEvent
from metering.reprice import COLUMNS_ASKED, Kept, Repriced, reprice
from metering.rows import EventRow, KeyMove, Standing
from pricing.pricelist import RateCard

ZERO = Decimal(0)
_SKEW = timedelta(days=1)  # how far the clocks of two processes may be apart
_Key = tuple[UUID, str]


class Repricer:
    """Rates pages of events by one card. `is_meant` says of an attempt whether it is rated sooner or later by the same card,
    or stands. What was made of an attempt counts for the others, written or not."""

    def __init__(self, card: RateCard, is_meant: Callable[[EventRow], bool]) -> None:
        self._card, self._is_meant = card, is_meant
        self._attempts: dict[_Key, dict[UUID, EventRow]] = {}
        self._standings: dict[_Key, Standing] = {}
        self._own: dict[UUID, Decimal] = {}  # what an attempt comes to by itself
        self._is_rated: dict[UUID, bool] = {}  # the others stand as they are charged

    def reprice(self, events: Sequence[EventRow]) -> list[Repriced | Kept]:
        """Events of a page, as they count now, in the order in which they are to be rated."""
        self._read([event for event in events if _key_of(event) is not None])
        return [self._reprice(event) for event in events]

    def move_of(self, event: EventRow) -> KeyMove | None:
        """How the event's key, while it is open, comes to stand once the page is written: whoever answers under it pays what
        is above the charges of then. One move for all events of the page, and none for a key that stands as it should."""
        key = _key_of(event)
        before = self._standings.get(key) if key is not None else None
        if key is None or before is None or before.answered_by is not None:
            return None
        charged = sum((attempt.charge_total or ZERO for attempt in self._attempts[key].values()), ZERO)
        if charged == before.charged:
            return None
        return KeyMove(key[1], before, msgspec.structs.replace(before, charged=charged))

    def _reprice(self, event: EventRow) -> Repriced | Kept:
        key = _key_of(event)
        if key is None:
            by_others = "charged_before" in event.context and "repeat_of" not in event.context
            return Kept("shares a key") if by_others else reprice(event, self._card)
        attempts = self._attempts.setdefault(key, {})
        attempts.setdefault(event.id, event)
        if any(attempt.currency != event.currency for attempt in attempts.values()):
            return Kept("shares a key")
        outcome = reprice(event, self._card, self._share(event.id, list(attempts.values())))
        attempts[event.id] = outcome.event if isinstance(outcome, Repriced) else event
        return outcome

    def _share(self, event_id: UUID, attempts: list[EventRow]) -> Decimal:
        """What of its key's cost this attempt bears."""
        own = {one.id: self._own_charge(one) for one in attempts}
        stand = [one for one in attempts if not self._is_rated[one.id]]
        shared = [one for one in sorted(attempts, key=_settled) if self._is_rated[one.id]]
        dearest = max((own[one.id] for one in shared), default=ZERO)
        left = max(own.values(), default=ZERO) - sum((one.charge_total or ZERO for one in stand), ZERO)
        shares = {one.id: min(one.charge_total or ZERO, own[one.id]) for one in shared}
        missing = min(dearest, max(ZERO, left)) - sum(shares.values(), ZERO)
        for one in shared if missing > 0 else reversed(shared):
            share = shares[one.id]
            change = min(own[one.id] - share, missing) if missing > 0 else max(-share, missing)
            shares[one.id] += change
            missing -= change
        return shares.get(event_id, ZERO)

    def _own_charge(self, attempt: EventRow) -> Decimal:
        """What it comes to by itself. Of one that stands that is known where it was rated by the rates of now; else it comes
        to what it is charged, or more."""
        if attempt.id not in self._own:
            outcome = reprice(attempt, self._card)
            by_now = outcome.event if isinstance(outcome, Repriced) else attempt
            self._is_rated[attempt.id] = isinstance(outcome, Repriced) and self._is_meant(attempt)
            is_known = self._is_rated[attempt.id] or tuple(by_now.rate_ids) == tuple(attempt.rate_ids)
            self._own[attempt.id] = (by_now if is_known else attempt).charge_total or ZERO
        return self._own[attempt.id]

    def _read(self, events: Iterable[EventRow]) -> None:
        """Find the attempts under the keys of these, by customer."""
        wanted: dict[UUID, set[str]] = {}
        for event in events:
            key = _key_of(event)
            if key is not None and key not in self._attempts:
                self._attempts[key] = {}
                wanted.setdefault(key[0], set()).add(key[1])
        for customer, keys in wanted.items():
            standings = _standings(customer, keys)  # before the events: who settles meanwhile moves the key
            self._standings.update({(customer, key): standing for key, (standing, _) in standings.items()})
            for attempt in _attempts(customer, keys, list(standings.values())):
                key = _key_of(attempt)
                if key is not None and key[1] in keys:
                    self._attempts[key][attempt.id] = attempt


def _settled(event: EventRow) -> tuple[Decimal, datetime, UUID]:
    """The order in which attempts were settled."""
    before = event.context.get("charged_before", "0")
    return (Decimal(before) if isinstance(before, str) else ZERO), event.created_at, event.id


def _key_of(event: EventRow) -> _Key | None:
    """The key of an attempt that may pay."""
    key = event.context.get("key")
    return (event.customer_id, key) if isinstance(key, str) and "repeat_of" not in event.context else None


def _standings(customer: UUID, keys: set[str]) -> dict[str, tuple[Standing, datetime]]:
    """How these keys stand, and when each was claimed."""
    rows = IdempotencyKey.objects.filter(
        customer_id=customer, key_hash__in=[bytes.fromhex(key) for key in keys]
    )
    return {
        bytes(row.key_hash).hex(): (
            Standing(bytes(row.payload_hash).hex(), row.event_id, row.charged or ZERO, row.counted or ZERO),
            row.occurred_at,
        )
        for row in rows
    }


def _attempts(customer: UUID, keys: set[str], found: Sequence[tuple[Standing, datetime]]) -> list[EventRow]:
    """Events as they count now; some are of no such key. A swept one was given its key by a correction."""
    if not found:
        return []
    first = min(at for _, at in found) - _SKEW
    events = UsageEvent.objects.filter(
        Q(context__key__in=sorted(keys)) | Q(status="interrupted"),
        customer_id=customer, occurred_at__gte=first, created_at__gte=first,
    )  # fmt: skip
    last = _last([standing.answered_by for standing, _ in found])
    if last is not None:
        events = events.filter(occurred_at__lte=last, created_at__lte=last)
    return [history.now for history in histories(events, COLUMNS_ASKED)]


def _last(answers: Iterable[UUID | None]) -> datetime | None:
    """Until when an attempt may have been settled that pays: what comes after the answer is free. None: a key is open."""
    instants: list[datetime] = []
    for answer in answers:
        if answer is None:
            return None
        instants.append(instant_of(answer))
    return max(instants) + LATENESS_MAX
