"""Re-rating: what would change is told, what is applied becomes corrections, and doing it again changes nothing."""

import asyncio
import json
from datetime import datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from metering import rerating, rollups
from metering.amender import Amender
from metering.context import Terms
from metering.histories import histories
from metering.management.commands.rerate import instant
from metering.models import DailyUsage, Rerating, UnpricedEvent, UsageCorrection, UsageEvent
from metering.rerating import Selection, Stopped
from metering.rows import EventRow
from metering.wiring import current_store
from pricing.catalog import load_rate_card
from pricing.models import ModelAlias, Rate
from pricing.usage import Usage, UsagePart
from tests.metering.catalogue import LONG_AGO, a_rate, rated_event
from tests.metering.rows import NOON, PAYER, STRANGER, a_hold

pytestmark = pytest.mark.django_db(transaction=True)

LATER = NOON + timedelta(days=1)
TODAY = Selection(NOON - timedelta(hours=12), NOON + timedelta(hours=12))


@pytest.fixture
def rates() -> dict[str, Rate]:
    """demo-small costs us 1 and 2 dollars a million tokens; customers pay 2 and 4."""
    return {
        f"{book} {bucket}": a_rate(bucket, price, book=book)
        for book, bucket, price in (
            ("cost", "in_uncached", "1"), ("cost", "out_visible", "2"), ("list", "in_uncached", "2"), ("list", "out_visible", "4"),
        )
    }  # fmt: skip


def used(count: int = 1, customer: UUID = PAYER, at: datetime = NOON, **values: Any) -> list[EventRow]:
    """Calls that were settled by the rates of now: 10 tokens in and 5 out, so they cost 0.00002 and are charged 0.00004."""
    card, holds = (
        load_rate_card(),
        [a_hold(customer, at + timedelta(seconds=number)) for number in range(count)],
    )
    events = [rated_event(hold, card, **values) for hold in holds]

    async def write() -> None:
        lane, writer = await current_store().open_lane("test"), uuid4()
        await lane.hold(writer, 1, holds, None)
        await lane.settle(writer, 2, events, None)
        await lane.close()

    asyncio.run(write())
    return events


def differing(
    selection: Selection = TODAY, **options: Any
) -> list[tuple[UUID, Decimal | None, Decimal | None]]:
    """The events that a dry run names, with their charges of before and after."""
    return [
        (seen.old.id, seen.old.charge_total, seen.new.charge_total)
        for page in rerating.look(selection, load_rate_card(), **options)
        for seen in page
        if seen.differs
    ]


def applied(selection: Selection = TODAY, *, page: int = rerating.PAGE, pages: int | None = None) -> Rerating:
    """A run, to its end, or until it dies after so many pages."""
    card = load_rate_card()
    run, _ = rerating.begin(selection, card, at=LATER, by="tester", reason="wrong price")
    done = rerating.apply(run, current_store(), card, lambda: LATER, page=page)
    for number, _ in enumerate(done, start=1):
        if number == pages:
            done.close()  # type: ignore[attr-defined]  # a generator
            break
    run.refresh_from_db()
    return run


def charges() -> dict[UUID, Decimal]:
    return {day.customer_id: day.charge_total for day in DailyUsage.objects.all()}


# What differs


def test_with_the_rates_as_they_were_nothing_differs(rates: dict[str, Rate]) -> None:
    used(3), used(2, STRANGER)
    assert differing() == []
    run = applied()
    assert (run.state, run.events_seen, run.totals, UsageCorrection.objects.count()) == ("done", 5, [], 0)


def test_a_price_that_was_wrong_from_an_instant_on_is_told_and_nothing_written(
    rates: dict[str, Rate],
) -> None:
    used(at=NOON - timedelta(hours=2))
    (event,) = used()
    rates["list in_uncached"].supersede(Decimal(3), NOON - timedelta(hours=1))
    assert differing() == [(event.id, Decimal("0.00004"), Decimal("0.00005"))]  # 10 × 3/1e6 + 5 × 4/1e6
    assert UsageCorrection.objects.count() == Rerating.objects.count() == 0


def test_a_rate_with_another_id_and_the_same_price_changes_no_charge(rates: dict[str, Rate]) -> None:
    used()
    rates["list in_uncached"].supersede(Decimal(2), NOON - timedelta(hours=1))
    assert differing() == []


def test_an_alias_that_moves_changes_nothing_of_what_was_used_before(rates: dict[str, Rate]) -> None:
    for book, bucket in (
        ("cost", "in_uncached"),
        ("cost", "out_visible"),
        ("list", "in_uncached"),
        ("list", "out_visible"),
    ):
        a_rate(bucket, "100", book=book, model="demo-big")
    alias = ModelAlias.objects.create(provider="demo", alias="best", model="demo-small")
    named = Usage(buckets={"in_uncached": 10, "out_visible": 5}, provider="demo", model_served="best")
    before, after = used(usage=named)[0], used(usage=named, at=NOON + timedelta(minutes=10))[0]
    alias.supersede("demo-big", NOON + timedelta(minutes=5))
    # 10 × 2 + 5 × 4 a million while it stood for the small one, (10 + 5) × 100 from then on
    assert differing() == [(after.id, Decimal("0.00004"), Decimal("0.0015"))]
    assert before.charge_total == Decimal("0.00004")


def test_the_span_is_half_open(rates: dict[str, Rate]) -> None:
    events = used(3)  # at noon, and one and two seconds later
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    span = Selection(NOON, NOON + timedelta(seconds=2))
    assert [event for event, _, _ in differing(span)] == [event.id for event in events[:2]]


def test_a_customer_a_provider_and_a_model_can_be_asked_for(rates: dict[str, Rate]) -> None:
    (mine,) = used()
    (other,) = used(customer=STRANGER)
    parts = (UsagePart({"in_uncached": 10}), UsagePart({"out_visible": 5}, "demo-large", "acme"))
    (several,) = used(
        usage=Usage(
            buckets={"in_uncached": 10, "out_visible": 5},
            provider="demo",
            model_served="demo-small",
            parts=parts,
        )
    )
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))

    def found(**values: Any) -> set[UUID]:
        return {event for event, _, _ in differing(msgspec.structs.replace(TODAY, **values))}

    assert found() == {mine.id, other.id, several.id}
    assert found(customer_id=STRANGER) == {other.id}
    assert found(provider="demo", model="demo-small") == {mine.id, other.id, several.id}
    assert found(model="demo-large") == found(provider="acme") == {several.id}
    assert found(model="demo-larger") == found(provider="nobody") == set()


# What is applied


def test_applied_it_becomes_corrections_and_moves_the_day(rates: dict[str, Rate]) -> None:
    (event,) = used()
    stored = UsageEvent.objects.values().get()
    dearer = rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    run = applied()
    assert UsageEvent.objects.values().get() == stored
    row = UsageCorrection.objects.get()
    assert (row.event_id, row.revision, row.run, row.reason) == (event.id, 1, run.id, "wrong price")
    assert (row.charge_total, row.cost_total, row.events) == (Decimal("0.00001"), 0, 0)  # 10 × (3 - 2)/1e6
    assert row.old == {"charge_total": "0.00004", "rate_ids": [rate.pk for rate in rates.values()]}
    assert row.new["charge_total"] == "0.00005" and dearer.pk in row.new["rate_ids"]
    assert charges() == {PAYER: Decimal("0.00005")}
    assert rollups.check_day(NOON.date()) == []


def test_a_run_says_who_did_what_and_what_came_of_it(rates: dict[str, Rate]) -> None:
    used(3), used(2, usage=Usage(buckets={}, source="none", provider="demo", model_served="demo-small"))
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    run = applied(msgspec.structs.replace(TODAY, customer_id=PAYER))
    assert (run.started_by, run.reason, run.state, run.started_at, run.finished_at) == (
        "tester", "wrong price", "done", LATER, LATER,
    )  # fmt: skip
    assert run.arguments == {
        "start": "2026-11-20T00:00:00Z",
        "end": "2026-11-21T00:00:00Z",
        "customer_id": str(PAYER),
    }
    assert (run.events_seen, run.events_kept, run.events_refused) == (5, {"no usage": 2}, [])
    assert run.totals == [
        {"currency": "USD", "corrections": 3, "cost": "0", "charge": "0.00003"}
    ]  # 3 × 0.00001


def test_applied_twice_it_changes_nothing_the_second_time(rates: dict[str, Rate]) -> None:
    used(5)
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    first, second = applied(), applied()
    assert first.id != second.id
    assert (first.totals[0]["corrections"], second.totals) == (5, [])
    assert charges() == {PAYER: 5 * Decimal("0.00005")}


def test_an_event_corrected_before_is_compared_with_what_it_is_by_now(rates: dict[str, Rate]) -> None:
    used()
    dearer = rates["list in_uncached"].supersede(Decimal(3), NOON - timedelta(hours=2))
    applied()
    dearer.supersede(Decimal(2), NOON - timedelta(hours=1))
    applied()
    assert list(UsageCorrection.objects.order_by("revision").values_list("revision", "charge_total")) == [
        (1, Decimal("0.00001")),
        (2, Decimal("-0.00001")),
    ]
    (history,) = histories(UsageEvent.objects.all())
    assert history.now.charge_total == history.event.charge_total == Decimal("0.00004")
    assert rollups.check_day(NOON.date()) == []


def test_an_unpriced_event_is_taken_off_the_list_and_one_that_loses_its_price_is_put_on_it(
    rates: dict[str, Rate],
) -> None:
    (unknown,) = used(usage=Usage(buckets={"page": 2}, provider="demo", model_served="demo-small"))
    assert UnpricedEvent.objects.get().event_id == unknown.id
    for book in ("cost", "list"):
        a_rate("page", "1000", book=book)
    applied()
    assert UnpricedEvent.objects.count() == 0
    assert charges() == {PAYER: Decimal("0.002")}  # 2 × 1000/1e6
    assert rollups.check_day(NOON.date()) == []


def test_who_paid_nothing_by_a_rule_pays_nothing_now(rates: dict[str, Rate]) -> None:
    used(terms=Terms(free=True)), used(pricing_status="by_plan", charge_total=Decimal(0))
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    assert differing() == []
    rates["cost in_uncached"].supersede(Decimal(2), LONG_AGO + timedelta(days=1))
    applied()
    day = DailyUsage.objects.get()
    assert (day.charge_total, day.cost_total) == (0, 2 * Decimal("0.00003"))  # 10 × 2/1e6 + 5 × 2/1e6
    assert {history.now.pricing_status for history in histories(UsageEvent.objects.all())} == {
        "priced",
        "by_plan",
    }


def test_an_event_is_rated_again_by_its_own_books(rates: dict[str, Rate]) -> None:
    a_rate("in_uncached", "1", book="vip"), a_rate("out_visible", "1", book="vip")
    used(terms=Terms(list_book="vip"))
    rates["list in_uncached"].supersede(Decimal(30), LONG_AGO + timedelta(days=1))
    assert differing() == []


@pytest.mark.parametrize(("values", "why"), [
    ({"usage": Usage(buckets={}, source="none", provider="demo", model_served="demo-small")}, "no usage"),
    ({"context": {"truncated": True, "bytes": 70_000}}, "cut documents"),
    ({"currency": "EUR"}, "other currency"),
])  # fmt: skip
def test_what_cannot_be_rated_again_is_left_and_counted(
    rates: dict[str, Rate], values: Any, why: str
) -> None:
    if "context" in values:
        used()
        with connection.cursor() as cursor:
            cursor.execute("update usage_events set context = %s", [json.dumps(values["context"])])
    else:
        used(**values)
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    run = applied()
    assert (run.events_kept, UsageCorrection.objects.count()) == ({why: 1}, 0)


# That it may be killed


def test_a_run_that_died_goes_on_from_its_place(rates: dict[str, Rate]) -> None:
    used(7), used(5, STRANGER)
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    dead = applied(page=3, pages=2)
    assert (dead.state, dead.events_seen, UsageCorrection.objects.count()) == ("running", 6, 6)
    assert rollups.check_day(NOON.date()) == []
    run = applied(page=3)
    assert run.id == dead.id
    assert (run.state, run.events_seen, run.totals[0]["corrections"]) == ("done", 12, 12)
    assert charges() == {PAYER: 7 * Decimal("0.00005"), STRANGER: 5 * Decimal("0.00005")}
    assert rollups.check_day(NOON.date()) == []


def test_a_page_that_was_written_and_not_noted_is_done_again_and_changes_nothing(
    rates: dict[str, Rate],
) -> None:
    used(7)
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    applied(page=3, pages=2)
    Rerating.objects.update(place_customer=None, place_at=None, place_event=None, events_seen=0)
    run = applied(page=3)
    assert (run.events_seen, run.totals[0]["corrections"]) == (7, 7)
    assert charges() == {PAYER: 7 * Decimal("0.00005")}


def test_a_run_that_goes_on_with_other_rates_starts_from_the_beginning(rates: dict[str, Rate]) -> None:
    used(4)
    dearer = rates["list in_uncached"].supersede(Decimal(3), NOON - timedelta(hours=2))
    applied(page=1, pages=3)
    dearer.supersede(Decimal(4), NOON - timedelta(hours=1))
    run = applied(page=1)
    assert run.events_seen == 4
    assert charges() == {PAYER: 4 * Decimal("0.00006")}  # 10 × 4/1e6 + 5 × 4/1e6
    assert rollups.check_day(NOON.date()) == []


def test_two_processes_do_not_do_one_run(rates: dict[str, Rate]) -> None:
    used(4)
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    card = load_rate_card()
    run, _ = rerating.begin(TODAY, card, at=LATER, by="tester", reason="wrong price")
    same = Rerating.objects.get()
    first = rerating.apply(run, current_store(), card, lambda: LATER, page=2)
    second = rerating.apply(same, current_store(), card, lambda: LATER, page=2)
    next(first)
    with pytest.raises(Stopped, match="another process"):
        next(second)
    list(first)
    assert charges() == {PAYER: 4 * Decimal("0.00005")}
    assert rollups.check_day(NOON.date()) == []


def test_an_event_that_somebody_corrects_meanwhile_is_read_again(rates: dict[str, Rate]) -> None:
    used(2)
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    card = load_rate_card()
    slow, _ = rerating.begin(TODAY, card, at=LATER, by="slow", reason="slow")
    pages = rerating.look(TODAY, card)
    read = next(pages)  # what the slow one has read by the time that the quick one is done
    applied(msgspec.structs.replace(TODAY, model="demo-small"))
    with Amender(current_store()) as amender:
        assert rerating._write(amender, slow, TODAY, read, card, lambda: LATER) == []
    assert charges() == {PAYER: 2 * Decimal("0.00005")}
    assert rollups.check_day(NOON.date()) == []


# The command


def rerate(*arguments: str) -> str:
    out, err = StringIO(), StringIO()
    call_command("rerate", *arguments, stdout=out, stderr=err)
    return out.getvalue() + err.getvalue()


DAY = ("--from", "2026-11-20", "--to", "2026-11-21")


def test_the_table_tells_each_event_and_the_sums(rates: dict[str, Rate]) -> None:
    (event,) = used()
    used(customer=STRANGER)
    dearer = rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    told = rerate(*DAY)
    cost_in, cost_out, list_in, list_out = (rate.pk for rate in rates.values())
    assert (
        f"  2026-11-20 12:00:00  {event.id}  demo/demo-small  charge 0.00004 → 0.00005  cost 0.00002 → 0.00002 USD"
        f"  priced → priced  rates {cost_in},{cost_out},{list_in},{list_out} → {cost_in},{cost_out},{dearer.pk},{list_out}\n"
    ) in told
    assert (
        f"  {PAYER}  1 events, charge 0.00004 → 0.00005 (+0.00001), cost 0.00002 → 0.00002 (0) USD\n" in told
    )
    assert "  2 events, charge 0.00008 → 0.0001 (+0.00002), cost 0.00004 → 0.00004 (0) USD\n" in told
    assert "  2 events looked at, 2 differ\n" in told and "Nothing was written" in told


def test_the_document_says_the_same_to_a_machine(rates: dict[str, Rate]) -> None:
    (event,) = used()
    used(usage=Usage(buckets={}, source="none", provider="demo", model_served="demo-small"))
    assert json.loads(rerate(*DAY, "--json").partition("Nothing")[0]) == {
        "events": [], "customers": [], "totals": [], "seen": 2, "kept": {"no usage": 1}, "applied": False, "run": None,
    }  # fmt: skip
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    out = StringIO()
    call_command("rerate", *DAY, "--json", "--apply", stdout=out, stderr=StringIO())
    told, run = json.loads(out.getvalue()), Rerating.objects.get()
    (difference,) = told["events"]
    assert (difference["event"], difference["old"]["charge_total"], difference["new"]["charge_total"]) == (
        str(event.id), "0.00004", "0.00005",
    )  # fmt: skip
    sums = {
        "events": 1,
        "cost_old": "0.00002",
        "cost_new": "0.00002",
        "charge_old": "0.00004",
        "charge_new": "0.00005",
    }
    assert told["customers"] == [{"customer": str(PAYER), "currency": "USD", **sums}]
    assert told["totals"] == [{"currency": "USD", **sums}]
    assert (told["applied"], told["run"], told["seen"], told["run_totals"]) == (
        True,
        str(run.id),
        2,
        run.totals,
    )


def test_the_command_goes_on_with_an_unfinished_run(rates: dict[str, Rate]) -> None:
    used(4)
    rates["list in_uncached"].supersede(Decimal(3), LONG_AGO + timedelta(days=1))
    dead = applied(page=1, pages=2)
    assert "no other" in refused("--resume", str(dead.id), *DAY)
    assert f"Run {dead.id} is done: 4 events" in rerate("--resume", str(dead.id))
    assert "is done" in refused("--resume", str(dead.id))
    again = applied(page=1, pages=1)
    assert f"going on with the unfinished run {again.id}" in rerate(*DAY, "--apply")


def refused(*arguments: str) -> str:
    with pytest.raises(CommandError) as raised:
        rerate(*arguments)
    return str(raised.value)


@pytest.mark.parametrize(("arguments", "says"), [
    ((), "give both"),
    (("--from", "2026-11-20"), "give both"),
    (("--from", "yesterday", "--to", "2026-11-21"), "--from yesterday"),
    (("--from", "2026-11-21", "--to", "2026-11-21"), "must be before"),
    ((*DAY, "--page", "0"), "--page 0"),
    ((*DAY, "--customer", "nobody"), "--customer nobody"),
    (("--resume", "nothing"), "no such run"),
    (("--resume", str(uuid4())), "no such run"),
])  # fmt: skip
def test_a_wrong_argument_is_named(arguments: tuple[str, ...], says: str) -> None:
    assert says in refused(*arguments)


@pytest.mark.parametrize(("text", "meant"), [
    ("2026-11-20", NOON - timedelta(hours=12)),
    ("2026-11-20T12:00", NOON),
    ("2026-11-20T12:00:00Z", NOON),
    ("2026-11-20 14:00:00+02:00", NOON),
])  # fmt: skip
def test_an_instant_is_meant_in_utc_unless_it_says_otherwise(text: str, meant: datetime) -> None:
    assert instant(text, "--from") == meant


@pytest.mark.engine("sqlite")
def test_an_event_that_the_database_refuses_is_named_and_the_others_are_corrected() -> None:
    """Amounts are integers of 10⁻¹² there: ± 9.2 million in a column, and 2 million tokens at 9 dollars are more."""
    for book in ("cost", "list"):
        a_rate("in_uncached", "1", book=book), a_rate("out_visible", "2", book=book)
    used(2)
    (much,) = used(
        usage=Usage(buckets={"in_uncached": 2_000_000}, provider="demo", model_served="demo-small")
    )
    for rate in list(Rate.objects.filter(bucket="in_uncached")):
        rate.supersede(Decimal(9_000_000), LONG_AGO + timedelta(days=1))
    assert str(much.id) in refused(*DAY, "--apply")
    run = Rerating.objects.get()
    assert (run.state, run.events_refused, run.totals[0]["corrections"]) == ("done", [str(much.id)], 2)
    assert rollups.check_day(NOON.date()) == []
