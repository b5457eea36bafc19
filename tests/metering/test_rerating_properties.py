"""After any sequence of calls, price changes, late prices and re-ratings the books are whole: Σ events + Σ corrections = daily
usage, the database says what the books in memory say, and every event costs what the arithmetic of its rates gives.

The model of the prices is a list of what was said when; the arithmetic is four lines.
"""

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import pytest
from django.core.exceptions import ValidationError
from django.db import connection
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from metering import rerating, rollups, unpriced
from metering.context import Terms
from metering.corrections import as_corrected
from metering.histories import histories
from metering.models import DailyUsage, UnpricedEvent, UsageCorrection, UsageEvent
from metering.reprice import Kept, amendment, reprice
from metering.rerating import Selection
from metering.rows import EventRow, HoldRow
from metering.store import Store
from metering.store.memory import MemoryStore
from metering.store.sql import DAILY_KEY, DAILY_SUMS
from metering.wiring import current_store
from pricing.catalog import load_rate_card
from pricing.models import Rate
from pricing.pricelist import RateCard
from pricing.usage import Usage
from tests.metering.catalogue import a_rate, rated_event
from tests.metering.rows import NOON, PAYER, STRANGER, a_hold

TABLES = (
    *("usage_corrections", "usage_events", "daily_usage", "usage_unpriced", "usage_reratings", "usage_holds", "usage_writers"),
    *("tollgate_rates", "tollgate_price_books"),
)  # fmt: skip
BOOKS, MODELS, BUCKETS = ("cost", "list", "vip"), ("demo-small", "demo-large"), ("in_uncached", "out_visible")
LATER = NOON + timedelta(days=9)

hours = st.integers(10, 13).map(lambda hour: NOON + timedelta(hours=hour))  # around midnight
prices = st.integers(0, 9)
counts = st.dictionaries(st.sampled_from(BUCKETS), st.integers(0, 1000))


a_call = st.fixed_dictionaries(
    {
        "at": hours,
        "customer": st.sampled_from([PAYER, STRANGER]),
        "model": st.sampled_from([*MODELS, MODELS[0]]),
        "buckets": counts,
        "terms": st.sampled_from([Terms(), Terms(), Terms(list_book="vip"), Terms(free=True)]),
        "source": st.sampled_from(["reported", "reported", "reported", "none"]),
    }
)


class Books(RuleBasedStateMachine):
    """One database, the books in memory beside it, and what was ever said of prices."""

    @initialize(calls=st.lists(a_call, min_size=3, max_size=5))
    def begin(self, calls: list[Any]) -> None:
        """Empty tables, a price for everything of demo-small in two of the books, and a few calls."""
        with connection.cursor() as cursor:
            for table in TABLES:
                cursor.execute(f"delete from {table}")
        self.store, self.memory = current_store(), MemoryStore()
        self.events: list[EventRow] = []
        for book in ("cost", "list"):
            for bucket in BUCKETS:
                a_rate(bucket, "1", book=book, since=NOON)
        self._settle(calls)

    # What happens

    @rule(calls=st.lists(a_call, min_size=1, max_size=3))
    def use(self, calls: list[Any]) -> None:
        self._settle(calls)

    @rule(
        book=st.sampled_from(BOOKS),
        model=st.sampled_from(MODELS),
        bucket=st.sampled_from(BUCKETS),
        price=prices,
        since=hours,
    )
    def price(self, book: str, model: str, bucket: str, price: int, since: datetime) -> None:
        try:
            a_rate(bucket, str(price), book=book, model=model, since=since)
        except ValidationError:  # there is one for that time: it has to be superseded
            return

    @rule(which=st.integers(0, 99), price=prices, at=hours)
    def supersede(self, which: int, price: int, at: datetime) -> None:
        known = list(Rate.objects.open().filter(effective_from__lt=at).order_by("pk"))
        if known:
            known[which % len(known)].supersede(Decimal(price), at)

    @rule()
    def rate_what_waits(self) -> None:
        card = load_rate_card()
        unpriced.rate_open(self.store, card, lambda: LATER, page=2)
        self._amend_memory([event for event in self.events if event.id in self.memory.unpriced], card)

    @rule(
        start=hours,
        span=st.integers(1, 8),
        model=st.none() | st.sampled_from(MODELS),
        page=st.integers(1, 3),
    )
    def rate_again(self, start: datetime, span: int, model: str | None, page: int) -> None:
        selection = Selection(start, start + timedelta(hours=span), model=model)
        self._apply(selection, page)
        meant = [event for event in self.events if selection.start <= event.occurred_at < selection.end]
        self._amend_memory(
            [event for event in meant if model in (None, event.model, event.model_requested)],
            load_rate_card(),
            only_differing=True,
        )

    @rule()
    def rate_everything_again_twice(self) -> None:
        everything = Selection(NOON, NOON + timedelta(days=3))
        self._apply(everything, page=2)
        written = UsageCorrection.objects.count()
        assert [
            seen for page in rerating.look(everything, load_rate_card()) for seen in page if seen.differs
        ] == []
        self._apply(everything, page=3)
        assert UsageCorrection.objects.count() == written, "unchanged rates change nothing"
        self._amend_memory(self.events, load_rate_card(), only_differing=True)
        for history in histories(UsageEvent.objects.all()):
            if history.now.usage_source != "none":
                assert_costs_what_its_rates_say(history.now)

    # What holds

    @invariant()
    def the_days_add_up(self) -> None:
        for days in range(2):
            assert rollups.check_day(NOON.date() + timedelta(days=days)) == []

    @invariant()
    def the_database_says_what_the_books_in_memory_say(self) -> None:
        rows: list[Any] = list(DailyUsage.objects.values())
        days = {
            tuple(row[name] for name in DAILY_KEY): {name: row[name] for name in DAILY_SUMS} for row in rows
        }
        assert days == self.memory.daily
        assert set(UnpricedEvent.objects.values_list("event_id", flat=True)) == set(self.memory.unpriced)

    def _settle(self, calls: list[Any]) -> None:
        card, holds, events = load_rate_card(), [], []
        for call in calls:
            usage = Usage(
                buckets=call["buckets"] if call["source"] != "none" else {}, provider="demo", model_served=call["model"],
                source=call["source"],
            )  # fmt: skip
            holds.append(a_hold(call["customer"], call["at"], model=call["model"]))
            events.append(
                rated_event(holds[-1], card, usage, terms=call["terms"], after=timedelta(minutes=90))
            )
        for store in (self.store, self.memory):
            asyncio.run(_settle(store, holds, events))
        self.events += events

    def _apply(self, selection: Selection, page: int) -> None:
        card = load_rate_card()
        run, goes_on = rerating.begin(selection, card, at=LATER, by="tester", reason="test")
        assert not goes_on
        list(rerating.apply(run, self.store, card, lambda: LATER, page=page))

    def _amend_memory(
        self, events: Iterable[EventRow], card: RateCard, *, only_differing: bool = False
    ) -> None:
        """The same acts on the books in memory."""
        amendments = []
        for event in events:
            written = self.memory.corrections[event.id]
            now = as_corrected(event, [one.new for one in written])
            repriced = reprice(now, card)
            if not isinstance(repriced, Kept) and (repriced.differs or not only_differing):
                amendments.append(
                    amendment(
                        event,
                        now,
                        repriced,
                        revision=len(written),
                        at=LATER,
                        reason="test",
                        card_version=card.version,
                    )
                )
        asyncio.run(_amend(self.memory, amendments))


def assert_costs_what_its_rates_say(event: EventRow) -> None:
    terms = event.context.get("terms", {})
    assert event.cost_total == by_arithmetic(event, "cost")
    if not terms.get("free"):
        assert event.charge_total == by_arithmetic(event, terms.get("list_book", "list"))


def by_arithmetic(event: EventRow, book: str) -> Decimal | None:
    """Σ quantity × price / 1,000,000 over the rates that hold at its instant; None where no price is known."""
    rates = Rate.objects.filter(book__slug=book, model=event.model, effective_from__lte=event.occurred_at)
    valid = {
        rate.bucket: rate.price
        for rate in rates
        if rate.effective_to is None or event.occurred_at < rate.effective_to
    }
    used = {name: count for name, count in event.buckets.items() if count}
    priced = [count * valid[name] / 1_000_000 for name, count in used.items() if name in valid]
    return sum(priced, Decimal(0)) if valid and (priced or not used) else None


async def _settle(store: Store, holds: list[HoldRow], events: list[EventRow]) -> None:
    lane, writer = await store.open_lane("test"), uuid4()
    await lane.hold(writer, 1, holds, None)
    assert await lane.settle(writer, 2, events, None) == {hold.id for hold in holds}
    await lane.close()


async def _amend(store: Store, amendments: Any) -> None:
    lane = await store.open_lane("test")
    await lane.amend(amendments)


@pytest.mark.django_db(transaction=True)
@pytest.mark.timeout(300)
def test_the_books_stay_whole_whatever_happens_to_prices() -> None:
    run_state_machine_as_test(Books, settings=settings(max_examples=15, stateful_step_count=15))
