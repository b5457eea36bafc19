"""Attempts under one idempotency key, rated later or again: together they cost what the dearest does, at any rates."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from uuid import uuid4

import msgspec
import pytest
from django.db import connection
from hypothesis import HealthCheck, given, settings, strategies as st

from metering import rollups, unpriced
from metering.models import DailyUsage, UnpricedEvent, UsageCorrection, UsageEvent
from metering.rerating import Selection
from metering.rows import Claim, EventRow, HoldRow
from metering.wiring import current_store
from pricing.catalog import load_rate_card
from pricing.models import Rate
from pricing.usage import Usage
from tests.metering.catalogue import LONG_AGO, a_rate, rated_event
from tests.metering.rows import NOON, a_hold
from tests.metering.test_rerating import LATER, TODAY, applied, differing

pytestmark = pytest.mark.django_db(transaction=True)

KEY = Claim("0" * 31 + "1", "a" * 32)


def settle(pairs: Sequence[tuple[HoldRow, EventRow]]) -> None:
    """One after the other, each in a batch of its own."""

    async def write() -> None:
        lane, writer = await current_store().open_lane("test"), uuid4()
        await lane.hold(writer, 1, [hold for hold, _ in pairs], None)
        for number, (_, event) in enumerate(pairs, start=2):
            await lane.settle(writer, number, [event], None)
        await lane.close()

    asyncio.run(write())


def an_attempt(
    tokens: int, seconds: int, *, model: str = "demo-small", cut: bool = False
) -> tuple[HoldRow, EventRow]:
    hold = a_hold(at=NOON + timedelta(seconds=seconds), claim=KEY)
    usage = Usage(buckets={"in_uncached": 0, "out_visible": tokens}, provider="demo", model_served=model)
    event = rated_event(hold, load_rate_card(), usage, claim=KEY)
    if cut:
        event = msgspec.structs.replace(event, status="client_disconnected", usage_source="estimated")
    return hold, event


def cut_and_whole(cut_at: int = 0) -> list[tuple[HoldRow, EventRow]]:
    """A quarter of a million tokens until the client left, then three quarters in a whole answer."""
    return [an_attempt(250_000, cut_at, cut=True), an_attempt(750_000, 10)]


def costs() -> None:
    a_rate("in_uncached", "1", book="cost"), a_rate("out_visible", "2", book="cost")


def list_prices(out_visible: str = "4") -> Rate:
    a_rate("in_uncached", "2")
    return a_rate("out_visible", out_visible)


def charges() -> list[Decimal | None]:
    """What the attempts are charged by now, in the order of their events."""
    found = []
    for event in UsageEvent.objects.order_by("occurred_at", "id"):
        last = UsageCorrection.objects.filter(event_id=event.id).order_by("-revision").first()
        new = last.new.get("charge_total") if last is not None else None
        found.append(Decimal(new) if new is not None else event.charge_total)
    return found


def assert_key_costs(amount: Decimal | int) -> None:
    assert sum(day.charge_total for day in DailyUsage.objects.all()) == amount
    assert list(rollups.check_day(NOON.date())) == []


@pytest.mark.parametrize("together", [True, False], ids=["one page", "a page each"])
def test_two_attempts_that_wait_for_a_price_pay_together_what_the_dearest_costs(together: bool) -> None:
    costs()
    settle(cut_and_whole())
    assert charges() == [None, None]
    list_prices()
    page = unpriced.PAGE if together else 1
    assert unpriced.rate_open(current_store(), load_rate_card(), lambda: LATER, page=page) == 2
    assert sorted(charge or 0 for charge in charges()) in ([1, 2], [0, 3]), (
        "250k and 750k at 4 $/M: 1.00 and 3.00"
    )
    assert_key_costs(3)
    assert differing() == []


def test_an_attempt_that_is_priced_after_the_answer_was_paid_pays_what_it_is_dearer() -> None:
    costs()
    list_prices()
    for bucket in ("in_uncached", "out_visible"):
        a_rate(bucket, "2", book="cost", model="demo-big")
    settle([an_attempt(250_000, 0, model="demo-big", cut=True), an_attempt(750_000, 10)])
    assert charges() == [None, 3]
    a_rate("in_uncached", "1", model="demo-big"), a_rate("out_visible", "20", model="demo-big")
    unpriced.rate_open(current_store(), load_rate_card(), lambda: LATER)
    assert charges() == [2, 3], "0.25 × 20 = 5.00, of which the answer has paid 3.00"
    assert_key_costs(5)


@pytest.mark.parametrize("cut_at", [0, 20], ids=["cut first", "admitted last"])
@pytest.mark.parametrize("price", ["8", "2", "0"])
def test_a_key_that_is_rated_again_costs_what_its_dearest_attempt_does(price: str, cut_at: int) -> None:
    costs()
    rate = list_prices("4")
    settle(cut_and_whole(cut_at))
    assert_key_costs(3)
    rate.supersede(Decimal(price), LONG_AGO + timedelta(days=1))
    told = sum((after or 0) - (before or 0) for _, before, after in differing())
    assert told == Decimal(price) * Decimal("0.75") - 3, "the dry run says what is going to happen"
    applied(page=1)
    assert_key_costs(Decimal(price) * Decimal("0.75"))
    assert differing() == []


def test_of_a_key_that_is_rated_again_in_part_no_more_than_the_dearest_is_charged() -> None:
    costs()
    rate = list_prices("4")
    settle(cut_and_whole())
    rate.supersede(Decimal(2), LONG_AGO + timedelta(days=1))
    applied(Selection(NOON + timedelta(seconds=5), TODAY.end))
    assert charges() == [1, Decimal("0.5")], "0.75 × 2 = 1.50, of which the other has paid 1.00"
    assert_key_costs(Decimal("1.5"))


@pytest.mark.parametrize("waits", [True, False], ids=["priced later", "rated again"])
def test_an_answer_after_the_cut_ones_were_rated_pays_what_is_above_them(waits: bool) -> None:
    costs()
    rate = None if waits else list_prices("4")
    settle([an_attempt(250_000, 0, cut=True), an_attempt(500_000, 1, cut=True)])
    if rate is None:
        list_prices("8")
        unpriced.rate_open(current_store(), load_rate_card(), lambda: LATER)
    else:
        rate.supersede(Decimal(8), LONG_AGO + timedelta(days=1))
        applied()
    assert_key_costs(4)  # 0.5 × 8
    assert UnpricedEvent.objects.count() == 0
    settle([an_attempt(750_000, 10)])
    assert charges()[-1] == 2, "0.75 × 8 = 6.00, of which 4.00 is paid"
    assert_key_costs(6)
    assert differing() == []


def test_attempts_at_unchanged_rates_are_charged_as_before() -> None:
    costs()
    list_prices()
    settle([*cut_and_whole(), an_attempt(900_000, 30)])
    assert charges() == [1, 2, 0]
    assert differing() == []


def test_a_repeat_whose_cost_has_its_price_is_booked_as_priced() -> None:
    costs()
    a_rate("in_uncached", "2")
    settle([an_attempt(750_000, 0), an_attempt(750_000, 10)])
    assert list(UsageEvent.objects.order_by("occurred_at").values_list("pricing_status", flat=True)) == [
        "partial",
        "priced",
    ]
    applied()
    assert UsageCorrection.objects.count() == 0


def test_a_repeat_whose_cost_has_a_gap_is_booked_as_partial() -> None:
    a_rate("in_uncached", "1", book="cost")
    list_prices()
    settle([an_attempt(750_000, 0), an_attempt(750_000, 10)])
    assert set(UsageEvent.objects.values_list("pricing_status", flat=True)) == {"partial"}
    assert differing() == [] and UnpricedEvent.objects.count() == 2


def test_an_attempt_that_does_not_say_which_key_it_shares_is_left_and_counted() -> None:
    costs()
    rate = list_prices("4")
    settle([an_attempt(750_000, 0)])
    with connection.cursor() as cursor:
        cursor.execute("update usage_events set context = %s", ['{"charged_before": "1"}'])
    rate.supersede(Decimal(8), LONG_AGO + timedelta(days=1))
    run = applied()
    assert (run.events_kept, UsageCorrection.objects.count()) == ({"shares a key": 1}, 0)


TABLES = (
    *("usage_corrections", "usage_events", "daily_usage", "usage_unpriced", "usage_reratings", "usage_holds", "usage_writers"),
    *("idempotency_keys", "tollgate_rates", "tollgate_price_books"),
)  # fmt: skip
MODELS = ("demo-small", "demo-big")


@pytest.mark.parametrize("within", [(0, 5), (5, 15)], ids=["the first", "the second"])
def test_at_unchanged_rates_a_part_of_a_key_is_charged_as_before(within: tuple[int, int]) -> None:
    costs()
    list_prices()
    settle([an_attempt(500_000, 0, cut=True), an_attempt(700_000, 10, cut=True)])
    assert charges() == [2, Decimal("0.8")]  # 0.5 × 4, and 0.7 × 4 of which 2.00 is paid
    start, end = (NOON + timedelta(seconds=seconds) for seconds in within)
    assert differing(Selection(start, end)) == []


@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    attempts=st.lists(st.tuples(st.sampled_from(MODELS), st.integers(0, 4)), min_size=2, max_size=5),
    before=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    after=st.tuples(st.integers(0, 6), st.integers(0, 6)),
    model=st.sampled_from([None, "demo-big"]),  # (all have asked for demo-small)
    page=st.integers(1, 3),
)
def test_one_run_is_exact_at_any_rates_whatever_it_means_and_however_it_is_paged(
    attempts: list[tuple[str, int]],
    before: tuple[int, int],
    after: tuple[int, int],
    model: str | None,
    page: int,
) -> None:
    """Attempts that were all cut short, of 0 to 4 million tokens each, at some dollars a million."""
    with connection.cursor() as cursor:
        for table in TABLES:
            cursor.execute(f"delete from {table}")
    costs()
    rates = {
        name: a_rate("out_visible", str(price), model=name)
        for name, price in zip(MODELS, before, strict=True)
    }
    for name in MODELS:
        a_rate("in_uncached", "0", model=name)
    settle(
        [
            an_attempt(size * 1_000_000, number, model=name, cut=True)
            for number, (name, size) in enumerate(attempts)
        ]
    )
    old = dict(zip(MODELS, before, strict=True))
    assert_key_costs(max(old[name] * size for name, size in attempts))
    stands = [
        charge or 0
        for charge, (name, _) in zip(charges(), attempts, strict=True)
        if model not in (None, name)
    ]
    for (name, rate), price in zip(rates.items(), after, strict=True):
        if price != old[name]:
            rate.supersede(Decimal(price), LONG_AGO + timedelta(days=1))
    meant = Selection(TODAY.start, TODAY.end, model=model)
    told = sum((new or 0) - (was or 0) for _, was, new in differing(meant, page=page))
    paid = sum(charge or 0 for charge in charges())
    applied(meant, page=page)
    new = dict(zip(MODELS, after, strict=True))
    own = [new[name] * size for name, size in attempts if model in (None, name)]
    # What one that stands comes to by itself is known as long as its rates are those of now; else it is what it is charged.
    others = [
        old[name] * size for name, size in attempts if model not in (None, name) and old[name] == new[name]
    ]
    left = min(max(own, default=0), max(0, max([*own, *others, *stands]) - sum(stands)))
    assert_key_costs(sum(stands) + left)
    assert told == sum(stands) + left - paid, "the dry run says what is going to happen"
    assert differing(meant) == [], "and there is nothing left to do"
    assert all(charge is not None and charge >= 0 for charge in charges())
