"""Events without a price: rated as soon as a rate covers their instant, and shown by what they lack.

The list is `usage_unpriced`; the event itself is never looked for among all events. Every entry notes the newest rate card
that was asked in vain, so that a pass reads only what a change of the catalogue may have healed.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from uuid import UUID

import msgspec

from metering.amender import Amender
from metering.corrections import PRICED_LATER
from metering.histories import History, histories
from metering.keyed import Repricer
from metering.keyset import after
from metering.models import UnpricedEvent, UsageEvent
from metering.reprice import COLUMNS_ASKED, Kept, Repriced, amendment
from metering.rows import Amendment, KeyMove
from metering.store import Store
from pricing.pricelist import RateCard

PAGE = 500
COUNT_MAX = 1_000_000
LISTED_MAX = 50_000  # entries that are looked at for the list of what is missing


class Lack(msgspec.Struct, frozen=True):
    """What one price book lacks: buckets of a model (none: it has no rate at all), for how many events, and since when."""

    book: str
    provider: str
    model: str
    buckets: tuple[str, ...]
    events: int
    since: datetime


def waits_for(version: int) -> bool:
    """Whether an entry has not been asked at this version of the catalogue."""
    return UnpricedEvent.objects.filter(card_version__lt=version).exists()


def rate_open(store: Store, card: RateCard, now: Callable[[], datetime], *, page: int = PAGE) -> int:
    """Rate what this card has a price for; how many events were taken off the list. May run twice at once and die anywhere."""
    rated = 0
    with Amender(store) as amender:
        for entries in _pages(card.version, page):
            amendments = _amendments(entries, card, now())
            done = amender.write(amendments).done
            rated += sum(one.missing is None and one.event_id in done for one in amendments)
    return rated


def count_open() -> int:
    """How many events are listed; counts no further than a million."""
    return UnpricedEvent.objects.order_by()[:COUNT_MAX].count()


def lacks() -> list[Lack]:
    """What is missing, the oldest first; beyond `LISTED_MAX` entries the counts say "at least"."""
    since: dict[tuple[str, str, str], datetime] = {}
    events: Counter[tuple[str, str, str]] = Counter()
    buckets: defaultdict[tuple[str, str, str], set[str]] = defaultdict(set)
    entries = UnpricedEvent.objects.order_by()[:LISTED_MAX]
    for provider, model, missing, at in entries.values_list("provider", "model", "missing", "occurred_at"):
        for book, names in missing.items():
            if isinstance(names, list):  # a document that was too long says only that
                key = (book, provider, model)
                events[key] += 1
                since[key] = min(at, since.get(key, at))
                buckets[key].update(names)
    found = [Lack(*key, tuple(sorted(buckets[key])), count, since[key]) for key, count in events.items()]
    return sorted(found, key=lambda lack: lack.since)


def _pages(version: int, page: int) -> Iterator[list[UnpricedEvent]]:
    """Entries that were not asked at this version, each once, whatever becomes of it."""
    waiting = UnpricedEvent.objects.filter(card_version__lt=version).order_by(
        "card_version", "customer_id", "event_id"
    )
    entries = list(waiting[:page])
    while entries:
        yield entries
        last = entries[-1]
        rest = after(card_version=last.card_version, customer_id=last.customer_id, event_id=last.event_id)
        entries = list(waiting.filter(rest)[:page])


def _amendments(entries: Sequence[UnpricedEvent], card: RateCard, at: datetime) -> list[Amendment]:
    made = [entry.created_at for entry in entries]
    events = UsageEvent.objects.filter(
        customer_id__in={entry.customer_id for entry in entries}, id__in=[entry.event_id for entry in entries],
        created_at__range=(min(made), max(made)),
    )  # fmt: skip
    found = {history.event.id: history for history in histories(events, COLUMNS_ASKED)}
    known = [found[entry.event_id] for entry in entries if entry.event_id in found]
    asked = set(found)
    # Those that have no charge yet are listed as well and have their turn; what others are charged stands.
    repricer = Repricer(card, lambda event: event.charge_total is None or event.id in asked)
    outcomes = repricer.reprice([history.now for history in known])
    made_of: dict[UUID, tuple[Repriced | Kept | None, KeyMove | None]] = {
        history.event.id: (outcome, repricer.move_of(history.now))
        for history, outcome in zip(known, outcomes, strict=True)
    }
    return [
        _amendment(entry, found.get(entry.event_id), *made_of.get(entry.event_id, (None, None)), card, at)
        for entry in entries
    ]


def _amendment(
    entry: UnpricedEvent, history: History | None, repriced: Repriced | Kept | None, key: KeyMove | None, card: RateCard, at: datetime
) -> Amendment:  # fmt: skip
    """An event that cannot be rated stays listed; one that is gone with its month is not waited for any longer."""
    if history is not None and isinstance(repriced, Repriced):
        return amendment(
            history.event, history.now, repriced,
            revision=history.revision, at=at, reason=PRICED_LATER, card_version=card.version, key=key,
        )  # fmt: skip
    return Amendment(
        customer_id=entry.customer_id, event_id=entry.event_id, created_at=entry.created_at, occurred_at=entry.occurred_at,
        provider=entry.provider, model=entry.model, missing=entry.missing if history else None,
        revision=history.revision if history else 0, on_credit=False, card_version=card.version,
    )  # fmt: skip
