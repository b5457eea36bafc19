"""The sweep: ends the holds of processes that died, each as an event marked `interrupted`.

A writer is dead when the sweeper itself saw the same beat in three looks in a row, at least ten seconds apart and none of
them missed; nobody's clock is compared with another's. It is fenced first, so that it can write nothing any more, then its
holds are swept in ordered batches. Should it only have slept, it finds itself fenced, takes a new id, and corrects what was
swept (`metering.batching`). All state is in the database: the sweep may run twice at once and die anywhere.

What a swept event says: the input side by the estimate made at admission, the output side unknown, charge 0 in the
customer's favour, cost of the input estimated.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import groupby
from uuid import UUID, uuid4

from django.db import transaction
from django.db.models import Case, F, IntegerField, Q, Value, When

from metering import metrics
from metering.clean import clean_event
from metering.context import Terms, context_of
from metering.gate import Contribution
from metering.ids import instant_of, uuid7
from metering.models import Hold, Writer
from metering.rated import rate_event
from metering.rows import EventRow
from metering.store.base import BadRow, Lane, Locked, SequenceRefused, Store
from pricing.pricelist import RateCard
from pricing.usage import Usage

log = logging.getLogger("metering.sweeper")

LOOKS_UNTIL_DEAD = 3
LOOK_EVERY = timedelta(seconds=10)
LOOK_MISSED_AFTER = timedelta(seconds=35)  # a longer gap means that looks were missed: count anew
BATCH = 500
WRITERS_KEPT = timedelta(days=2)  # a fenced row must outlive any batch that could still arrive under it


def look(now: datetime, *, every: timedelta = LOOK_EVERY) -> list[UUID]:
    """Look once at every writer that is not fenced; the ids of those that are dead by now. A writer whose row is locked is
    alive: waiting for it would keep the others, whose rows are locked here, from writing."""
    # A look well in the future was made before the clock was set back. Only well: two sweeps at once differ by a little.
    ahead = Q(looked_at__gt=now + every)
    due = Q(looked_at__isnull=True) | Q(looked_at__lte=now - every) | ahead
    fresh = Q(looked_at__range=(now - LOOK_MISSED_AFTER, now), seen_beat=F("beat"))
    with transaction.atomic():
        waiting = Writer.objects.filter(due, fenced_at__isnull=True).select_for_update(skip_locked=True)
        seen = Writer.objects.filter(id__in=list(waiting.values_list("id", flat=True)))
        seen.update(
            looks=Case(When(fresh, then=F("looks") + 1), default=Value(1), output_field=IntegerField()),
            seen_beat=F("beat"),
            looked_at=now,
        )
        return list(seen.filter(looks__gte=LOOKS_UNTIL_DEAD).values_list("id", flat=True))


def fence(writer: UUID, now: datetime) -> bool:
    """Refuse everything that this writer may still send. False when it has beaten since, or is fenced already."""
    unchanged = Writer.objects.filter(
        id=writer, fenced_at__isnull=True, seen_beat=F("beat"), looks__gte=LOOKS_UNTIL_DEAD
    )
    return unchanged.update(fenced_at=now) == 1


def sweep(
    store: Store,
    card: RateCard,
    now: Callable[[], datetime],
    *,
    every: timedelta = LOOK_EVERY,
    batch: int = BATCH,
) -> int:
    """One look, and the end of every hold whose writer is fenced. The number of holds swept."""
    for writer in look(now(), every=every):
        if fence(writer, now()):
            log.warning("writer %s is dead and was fenced", writer)
    swept = 0
    for holds in _orphans(batch):
        swept += asyncio.run(_end(store, [_swept_event(hold, card, now()) for hold in holds], card))
    _forget_writers(now())
    return swept


def _orphans(batch: int) -> Iterator[list[Hold]]:
    """Batches of the holds of fenced writers, in the order in which they are to be locked; each hold once, whatever becomes
    of it: what could not be ended waits for the next sweep."""
    fenced = Writer.objects.filter(fenced_at__isnull=False).values("id")
    orphans = Hold.objects.filter(writer_id__in=fenced).order_by("customer_id", "id")
    holds = list(orphans[:batch])
    while holds:
        yield holds
        last = holds[-1]
        after = Q(customer_id__gt=last.customer_id) | Q(customer_id=last.customer_id, id__gt=last.id)
        holds = list(orphans.filter(after)[:batch])


def _forget_writers(now: datetime) -> None:
    """Rows of writers fenced long ago whose holds are all ended."""
    old = Writer.objects.filter(fenced_at__lt=now - WRITERS_KEPT)
    old.exclude(id__in=Hold.objects.values("writer_id")).delete()


async def _end(store: Store, rows: Sequence[EventRow], card: RateCard) -> int:
    """Write the swept events; how many. A customer who is locked and a row that is refused hold up nobody else."""
    parts, ended = deque([rows]), 0
    lane: Lane = await store.open_lane("sweep")
    try:
        while parts:
            part = parts.popleft()
            try:
                ended += await _end_together(lane, part, card, store.books)
            except Locked as error:
                parts.extend(_by_customer(part, error))
            except BadRow as error:
                if len(part) == 1:
                    await _put_away(lane, part[0], error)
                else:
                    parts.extend((part[: len(part) // 2], part[len(part) // 2 :]))
    finally:
        await lane.close()
    return ended


async def _end_together(
    lane: Lane, rows: Sequence[EventRow], card: RateCard, books: Contribution | None
) -> int:
    """Write through a writer of our own: what another sweep ended meanwhile is simply not there."""
    try:
        ended = await lane.settle(uuid4(), 1, rows, books)
    except SequenceRefused:  # cannot happen to a fresh id; the next tick repeats whatever is left
        return 0
    metrics.observe_settled([row for row in rows if row.hold_id in ended], card)
    metrics.swept_holds.inc(len(ended))
    return len(ended)


def _by_customer(rows: Sequence[EventRow], error: Locked) -> list[list[EventRow]]:
    """The rows of each customer; none where there is but one customer, whose turn is the next tick then."""
    parts = [list(part) for _, part in groupby(rows, key=lambda row: row.customer_id)]
    if len(parts) > 1:
        return parts
    log.warning("customer %s is locked and left to the next sweep: %s", rows[0].customer_id, error)
    return []


async def _put_away(lane: Lane, row: EventRow, error: BadRow) -> None:
    try:
        await lane.quarantine(row, str(error))
    except (Locked, BadRow) as failure:
        log.warning("swept event %s cannot be put away yet: %s", row.id, failure)
    else:
        log.error("swept event %s is refused by the database and was quarantined: %s", row.id, error)


def _swept_event(hold: Hold, card: RateCard, now: datetime) -> EventRow:
    """The event of a call whose process died, from what its hold knows."""
    usage = Usage(
        buckets={"in_uncached": hold.tokens_input} if hold.tokens_input is not None else {},
        provider=hold.provider, model_requested=hold.model or None, unknown_sides=("output",),
        source="estimated" if hold.tokens_input is not None else "none", extractor="sweep/1",
    )  # fmt: skip
    terms = Terms(free=True)
    rated = rate_event(card, usage, terms, at=hold.created_at, currency=hold.currency)
    event_id = uuid7(now)
    return clean_event(
        EventRow(
            customer_id=hold.customer_id, id=event_id, hold_id=hold.id, hold_at=instant_of(hold.id),
            created_at=instant_of(event_id), occurred_at=hold.created_at, period_start=hold.period_start,
            day=hold.created_at.astimezone(UTC).date(), feature=hold.feature, quantity=Decimal(0),
            status="interrupted", usage_source=usage.source, pricing_status=rated.pricing_status, plan=hold.plan,
            api_key_id=hold.api_key_id, api_key_hash=hold.api_key_hash, user_id=hold.user_id,
            execution_id=str(hold.id), task_type=hold.task_type, endpoint=hold.endpoint, method=hold.method,
            tokens_input=usage.tokens_input, buckets=usage.buckets, provider=hold.provider, model=hold.model,
            model_requested=hold.model, model_cost_input=rated.model_cost_input, model_cost_output=rated.model_cost_output,
            cost_input=rated.cost_input, cost_output=rated.cost_output, cost_total=rated.cost_total,
            charge_total=rated.charge_total, currency=rated.currency, rate_ids=rated.rate_ids, missing=rated.missing,
            extractor=usage.extractor, context=context_of(usage, terms),
            posting_id=hold.id if hold.amount else None,  # what has reserved credits pays with them if it comes back
        )
    )  # fmt: skip
