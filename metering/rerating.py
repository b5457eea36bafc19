"""Re-rating: events of a span of time, priced again by the rates that are known now for the instants of their use.

A dry run reads and tells. Applied, every page of events becomes corrections in a transaction of its own, one customer each,
and then the place of the run is moved on; so it may be killed anywhere, and goes on from its place when it is called again.
A page that is done twice finds nothing left to change. It runs beside live traffic: what is settled meanwhile is rated by
the same rates already.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Self
from uuid import UUID

import msgspec
from django.db.models import Count, Q, QuerySet, Sum

from metering.amender import Amender, Outcome
from metering.histories import LATENESS_MAX, History, histories
from metering.ids import NIL, uuid7
from metering.keyed import Repricer
from metering.keyset import after
from metering.models import DailyUsage, Rerating, UsageCorrection, UsageEvent
from metering.reprice import COLUMNS_ASKED, Kept, Repriced, amendment
from metering.rows import EventRow, KeyMove
from metering.store import Store
from pricing.money import decimal_string
from pricing.pricelist import RateCard

PAGE = 1000
CUSTOMERS_PAGE = 500
MEETINGS_MAX = 5  # how often a page is read again because others corrected its events
AHEAD_MAX = timedelta(days=1)  # how much later than it was made an event may say that it happened


class Stopped(Exception):
    """The run cannot go on just now; it is resumed from where it is."""


class Selection(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which events: those used in [start, end), and what else is asked for. A model is meant by any of its names on the
    event: served, requested, or of a part."""

    start: datetime
    end: datetime
    customer_id: UUID | None = None
    provider: str | None = None
    model: str | None = None

    def arguments(self) -> dict[str, Any]:
        """As they are kept with a run."""
        found: dict[str, Any] = msgspec.to_builtins(self)
        return found

    @classmethod
    def of(cls, run: Rerating) -> Self:
        return msgspec.convert(run.arguments, cls)

    def covers(self, event: EventRow) -> bool:
        """Whether an event, as it counts now, is meant and lies within."""
        return (
            self.start <= event.occurred_at < self.end
            and self.customer_id in (None, event.customer_id)
            and self.matches(event)
        )

    def matches(self, event: EventRow) -> bool:
        """Whether an event, as it counts now, is meant."""
        parts = event.context.get("parts", ())
        if self.provider is not None and self.provider not in (
            event.provider,
            *(p.get("provider") for p in parts),
        ):
            return False
        names = (event.model, event.model_requested, *(part.get("model") for part in parts))
        return self.model is None or self.model in names


class Seen(msgspec.Struct, frozen=True):
    """An event that was looked at, and what the rates of now make of it."""

    history: History
    outcome: Repriced | Kept
    key: KeyMove | None = None  # how its idempotency key is to stand then

    @property
    def differs(self) -> bool:
        """Whether its charge or its cost would change."""
        return isinstance(self.outcome, Repriced) and self.outcome.differs

    @property
    def old(self) -> EventRow:
        return self.history.now

    @property
    def new(self) -> EventRow:
        return self.outcome.event if isinstance(self.outcome, Repriced) else self.history.now


def look(selection: Selection, card: RateCard, *, page: int = PAGE) -> Iterator[list[Seen]]:
    """A dry run: every event that is meant, in pages of one customer each. Writes nothing."""
    repricer = Repricer(
        card, selection.covers
    )  # nothing is written, so it has to know what it said of earlier pages
    for histories_of_page in _pages(selection, None, page):
        yield _rate(selection, histories_of_page, repricer)


def begin(
    selection: Selection, card: RateCard, *, at: datetime, by: str, reason: str
) -> tuple[Rerating, bool]:
    """The run that is to do this: an unfinished one of the same arguments, else a new one. The second value: whether it
    goes on from where another process left it."""
    arguments = selection.arguments()
    for run in Rerating.objects.filter(state=Rerating.State.RUNNING).order_by("started_at"):
        if run.arguments == arguments:
            return resume(run, card), True
    return Rerating.objects.create(
        id=uuid7(at), started_at=at, started_by=by[:200], reason=reason[:64], arguments=arguments, card_version=card.version
    ), False  # fmt: skip


def resume(run: Rerating, card: RateCard) -> Rerating:
    """The run, made ready to go on. With other rates than it began with it goes through all of its events again, so that
    they are all rated by the same."""
    if run.card_version != card.version:
        run.card_version = card.version
        run.events_seen, run.events_kept = 0, {}
        run.place_customer = run.place_at = run.place_event = None
        run.save()
    return run


def apply(
    run: Rerating, store: Store, card: RateCard, now: Callable[[], datetime], *, page: int = PAGE
) -> Iterator[list[Seen]]:
    """Do what is left of a run; each page once it is written: what was looked at, without what could not be written. Raises
    Stopped, and Unavailable from the store."""
    selection = Selection.of(run)
    with Amender(store) as amender:
        for found in _pages(selection, run, page):
            rated = _rate(selection, found, Repricer(card, selection.covers))
            written = _write(amender, run, selection, rated, card, now)
            _move_on(run, found[-1].event, rated)
            yield [one for one in rated if not one.differs] + written
    _finish(run, now())


def _write(
    amender: Amender, run: Rerating, selection: Selection, rated: Sequence[Seen], card: RateCard, now: Callable[[], datetime]
) -> list[Seen]:  # fmt: skip
    """Correct what differs; what was written. Events that others corrected meanwhile are read and rated again."""
    written: list[Seen] = []
    waiting = [one for one in rated if one.differs]
    for _ in range(MEETINGS_MAX):
        if not waiting:
            return written
        outcome = amender.write(
            amendment(
                one.history.event, one.history.now, one.outcome, revision=one.history.revision, at=now(), reason=run.reason,
                card_version=card.version, run=run.id, key=one.key,
            )
            for one in waiting
            if isinstance(one.outcome, Repriced)
        )  # fmt: skip
        if outcome.locked:
            raise Stopped(f"customer {waiting[0].old.customer_id} is locked by somebody else")
        written += [one for one in waiting if one.old.id in outcome.done]
        _note_refused(run, outcome)
        met = [one.history.event for one in waiting if one.old.id not in outcome.done | outcome.refused]
        waiting = [
            one for one in _rate(selection, _again(met), Repricer(card, selection.covers)) if one.differs
        ]
    raise Stopped(f"{len(waiting)} events are being corrected by somebody else")


def _note_refused(run: Rerating, outcome: Outcome) -> None:
    run.events_refused = sorted({*run.events_refused, *map(str, outcome.refused)})


def _rate(selection: Selection, found: Sequence[History], repricer: Repricer) -> list[Seen]:
    meant = [history for history in found if selection.matches(history.now)]
    outcomes = repricer.reprice([history.now for history in meant])
    return [
        Seen(history, outcome, repricer.move_of(history.now))
        for history, outcome in zip(meant, outcomes, strict=True)
    ]


def _move_on(run: Rerating, last: EventRow, rated: Sequence[Seen]) -> None:
    """Note how far the run has come, unless another process has moved it meanwhile."""
    mine = Rerating.objects.filter(
        id=run.id,
        state=Rerating.State.RUNNING,
        place_event=run.place_event,
        place_customer=run.place_customer,
    )
    kept = dict(run.events_kept)
    for one in rated:
        if isinstance(one.outcome, Kept):
            kept[one.outcome.why] = kept.get(one.outcome.why, 0) + 1
    place: dict[str, Any] = {
        "place_customer": last.customer_id, "place_at": last.occurred_at, "place_event": last.id, "events_kept": kept,
        "events_seen": run.events_seen + len(rated), "events_refused": run.events_refused,
    }  # fmt: skip
    if mine.update(**place) != 1:
        raise Stopped("another process is working on this run")
    for name, value in place.items():
        setattr(run, name, value)


def _finish(run: Rerating, at: datetime) -> None:
    run.state, run.finished_at, run.totals = Rerating.State.DONE, at, totals(run.id)
    run.save(update_fields=["state", "finished_at", "totals"])


def totals(run: UUID) -> list[dict[str, Any]]:
    """What a run has changed so far, by currency: how many corrections, and by how much cost and charge moved."""
    written: Any = UsageCorrection.objects.filter(run=run)
    sums = written.values("currency").annotate(
        n=Count("id"), cost=Sum("cost_total"), charge=Sum("charge_total")
    )
    return [
        {"currency": row["currency"], "corrections": row["n"], "cost": decimal_string(row["cost"]), "charge": decimal_string(row["charge"])}
        for row in sums.order_by("currency")
    ]  # fmt: skip


def _pages(selection: Selection, run: Rerating | None, page: int) -> Iterator[list[History]]:
    """The events in question, those after the run's place: by customer, then by time. Some of them may not be meant after
    all, which only the event as corrected tells."""
    place = (run.place_customer, run.place_at, run.place_event) if run is not None else (None, None, None)
    for customer in _customers(selection, place[0]):
        events = _events_of(selection, customer).order_by("occurred_at", "id")
        rest = events.filter(after(occurred_at=place[1], id=place[2])) if customer == place[0] else events
        while found := histories(rest[:page], COLUMNS_ASKED):
            yield found
            rest = events.filter(after(occurred_at=found[-1].event.occurred_at, id=found[-1].event.id))


def _customers(selection: Selection, first: UUID | None) -> Iterator[UUID]:
    """Who has used anything since the span began, from `first` on, in order; late usage counts on a later day."""
    if selection.customer_id is not None:
        yield selection.customer_id
        return
    used = DailyUsage.objects.filter(day__gte=selection.start.date()).order_by("customer_id")
    waiting = used.filter(customer_id__gte=first or NIL)
    while found := list(waiting.values_list("customer_id", flat=True).distinct()[:CUSTOMERS_PAGE]):
        yield from found
        waiting = used.filter(customer_id__gt=found[-1])


def _events_of(selection: Selection, customer: UUID) -> QuerySet[UsageEvent]:
    events = UsageEvent.objects.filter(
        customer_id=customer, occurred_at__gte=selection.start, occurred_at__lt=selection.end,
        created_at__gte=selection.start - AHEAD_MAX, created_at__lt=selection.end + LATENESS_MAX,
    )  # fmt: skip
    # A swept event may have been corrected to another model, and the parts of an event name models of their own.
    perhaps = Q(status="interrupted") | ~Q(context={})
    if selection.provider is not None:
        events = events.filter(perhaps | Q(provider=selection.provider))
    if selection.model is not None:
        events = events.filter(perhaps | Q(model=selection.model) | Q(model_requested=selection.model))
    return events


def _again(events: Sequence[EventRow]) -> list[History]:
    """The histories of these events of one customer, as they are by now."""
    if not events:
        return []
    made = [event.created_at for event in events]
    return histories(
        UsageEvent.objects.filter(
            customer_id=events[0].customer_id, id__in=[event.id for event in events], created_at__range=(min(made), max(made))
        ),
        COLUMNS_ASKED,
    )  # fmt: skip
