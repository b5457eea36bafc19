"""What a period comes to, line by line, at any time: fees, what the plan prices, what the price book priced, late, carried."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given, strategies as st

from billing import ledger
from billing.drafts import Draft, draft_of, next_period
from billing.invoicing import finalise
from billing.models import Balance, Customer, Entry, PlanFeature, PlanVersion, QuotaOverride, Subscription
from billing.periods import Period
from billing.plans import draft_after, publish
from billing.proration import prorate
from metering.models import DailyUsage
from metering.wiring import current_store
from tests.billing.rows import payer, used
from tests.metering.rows import a_hold, an_event

pytestmark = pytest.mark.django_db
D = Decimal
MARCH = Period(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC))
APRIL = Period(MARCH.end, datetime(2026, 5, 1, tzinfo=UTC))
MAY = Period(APRIL.end, datetime(2026, 6, 1, tzinfo=UTC))
NOW = datetime(2026, 7, 1, tzinfo=UTC)


def customer_on(slug: str | None = None, since: datetime = MARCH.start, **fields: Any) -> Customer:
    customer, _ = payer(created_at=MARCH.start, **fields)
    if slug is not None:
        subscribe(customer, slug, since)
    return customer


def subscribe(customer: Customer, slug: str, since: datetime, until: datetime | None = None) -> Subscription:
    version = PlanVersion.objects.filter(plan__slug=slug).order_by("-number")[0]
    return Subscription.objects.create(
        customer=customer, plan_version=version, started_at=since, anchor=since, ended_at=until
    )


def priced(slug: str, feature: str, **terms: Any) -> None:
    """The next version of a plan, which prices the feature so."""
    version = draft_after(PlanVersion.objects.get(plan__slug=slug, number=1))
    PlanFeature.objects.update_or_create(
        version=version,
        feature=feature,
        defaults={"display_name": feature, "unit": "one", "included": 0} | terms,
    )
    publish(version, MARCH.start)


def lines(draft: Draft) -> list[tuple[str, str, str]]:
    """Kind, arithmetic, amount."""
    return [(line.item.kind, line.item.source["text"], f"{line.amount:f}") for line in draft.lines]


def test_75_scans_with_50_included_are_25_at_5_cents() -> None:
    customer = customer_on()
    used(customer, date(2026, 3, 9), feature="ocr_scans", calls=40)
    used(customer, date(2026, 3, 31), feature="ocr_scans", calls=35)
    draft = draft_of(customer, MARCH)
    assert lines(draft) == [("feature", "25 × 0.05 = 1.25", "1.25")]
    assert (draft.total, draft.carried) == (D("1.25"), 0)


@pytest.mark.parametrize(("calls", "total"), [(999, "0"), (1000, "0"), (1001, "0.01"), (1002, "0.02")])
def test_free_is_free_up_to_a_thousand_calls(calls: int, total: str) -> None:
    customer = customer_on("free")
    used(customer, date(2026, 3, 9), calls=calls)
    assert draft_of(customer, MARCH).total == D(total)


def test_a_month_of_professional_is_its_fee() -> None:
    customer = customer_on("professional")
    assert lines(draft_of(customer, MARCH)) == [("base_fee", "49", "49.00")]


@pytest.mark.django_db(transaction=True)
def test_levels_of_storage_are_not_summed() -> None:

    customer = customer_on()

    async def report() -> None:
        lane = await current_store().open_lane("test")
        for day, level in ((3, 7), (9, 12), (20, 6)):
            at = datetime(2026, 3, day, tzinfo=UTC)
            hold = a_hold(customer.pk, at, feature="storage", period_start=MARCH.start)
            await lane.hold(uuid4(), 1, [hold], None)
            await lane.settle(
                uuid4(), 1, [an_event(hold, feature="storage", quantity=D(level), charge_total=D(0))], None
            )
        await lane.close()

    asyncio.run(report())
    # the highest is 12, of which 5 GB are included
    assert lines(draft_of(customer, MARCH)) == [("feature", "7 × 0.02 = 0.14", "0.14")]


def test_what_the_price_book_priced_is_a_line_for_each_model() -> None:
    customer = customer_on()
    used(customer, date(2026, 3, 9), calls=3, tokens=(100, 20), charge="1.230000000001")
    used(customer, date(2026, 3, 10), calls=1, charge="0.10", model="demo-large", unpriced=1)
    draft = draft_of(customer, MARCH)
    assert [(line.item.description, line.item.exact) for line in draft.lines] == [
        ("demo-large: 1 calls (1 without a price yet)", D("0.10")),
        ("demo-small: 3 calls, 100 tokens in, 20 out", D("1.230000000001")),
    ]
    assert (draft.total, draft.carried) == (D("1.33"), D("0.000000000001"))


@pytest.mark.parametrize(
    ("terms", "quantity", "text"),
    [
        (
            {"price_model": "graduated", "tiers": [{"up_to": "100", "unit_price": "0.1"}, {"up_to": None, "unit_price": "0.05"}]},
            101, ["100 × 0.1 = 10", "1 × 0.05 = 0.05"],
        ),
        (
            {"price_model": "volume", "tiers": [{"up_to": "100", "unit_price": "0.1"}, {"up_to": None, "unit_price": "0.05"}]},
            101, ["101 × 0.05 = 5.05"],
        ),
        ({"price_model": "package", "unit_price": D(2), "package_size": D(1000)}, 2500, ["2500 in packages of 1000: 3 × 2 = 6"]),
        ({"price_model": "percentage", "percent": D(120)}, 7, ["120 % of 8.4 = 10.08"]),
        ({"price_model": "flat", "unit_price": D("0.01"), "minimum": D(5)}, 7, ["7 × 0.01 = 0.07", "minimum of 5, less 0.07 = 4.93"]),
        ({"price_model": "flat", "unit_price": D(1), "maximum": D(5)}, 7, ["7 × 1 = 7", "maximum of 5, less 7 = -2"]),
    ],
)  # fmt: skip
def test_every_price_model_says_its_arithmetic(terms: dict[str, Any], quantity: int, text: list[str]) -> None:
    priced("free", "documents", **terms)
    customer = customer_on("free")
    used(customer, date(2026, 3, 9), feature="documents", calls=quantity, cost="8.40")
    assert [said for _, said, _ in lines(draft_of(customer, MARCH))] == text


def test_what_is_included_anew_each_day_is_taken_off_each_day() -> None:
    priced("free", "documents", price_model="flat", unit_price=D(1), included=D(10), reset_period="day")
    customer = customer_on("free")
    for day, quantity in ((3, 4), (4, 12), (5, 11)):
        used(customer, date(2026, 3, day), feature="documents", calls=quantity)
    # 0 + 2 + 1 beyond
    assert lines(draft_of(customer, MARCH)) == [("feature", "3 × 1 = 3", "3.00")]


def test_a_week_that_two_periods_share_is_not_included_twice() -> None:
    """Monday 30 March to Sunday 5 April: 10 are included. 8 in March, 5 in April: 3 are beyond, all of April."""
    priced("free", "documents", price_model="flat", unit_price=D(1), included=D(10), reset_period="week")
    customer = customer_on("free")
    used(customer, date(2026, 3, 31), feature="documents", calls=8)
    used(customer, date(2026, 4, 1), feature="documents", calls=5)
    assert draft_of(customer, MARCH).total == 0
    assert lines(draft_of(customer, APRIL)) == [("feature", "3 × 1 = 3", "3.00")]


def test_an_override_counts_in_the_place_of_the_plan() -> None:
    customer = customer_on("free")
    QuotaOverride.objects.create(customer=customer, feature="scans", included=D(2), unit_price=D("0.50"))
    used(customer, date(2026, 3, 9), feature="scans", calls=5)
    assert lines(draft_of(customer, MARCH)) == [("feature", "3 × 0.5 = 1.5", "1.50")]


# Fees


def test_a_plan_that_was_left_in_the_middle_is_paid_to_the_second() -> None:
    """31 days of March: 10 days of professional are 49 × 10 / 31."""
    customer = customer_on()
    left = MARCH.start + timedelta(days=10)
    version = PlanVersion.objects.get(plan__slug="professional")
    for since, until in ((MARCH.start, left), (left, None)):
        Subscription.objects.create(
            customer=customer, plan_version=version, started_at=since, anchor=MARCH.start, ended_at=until
        )
    first, second = draft_of(customer, MARCH).lines
    assert first.item.exact == D("15.806451612903")
    assert first.item.exact + second.item.exact == 49
    assert first.amount + second.amount == 49


@given(
    st.decimals(0, 10**6, places=2),
    st.lists(st.integers(0, 31 * 86_400 * 10**6), max_size=6),
)
def test_parts_of_a_fee_add_up_however_a_period_is_cut(fee: Decimal, cuts: list[int]) -> None:
    edges = [MARCH.start, *sorted(MARCH.start + timedelta(microseconds=cut) for cut in cuts), MARCH.end]
    parts = [prorate(fee, MARCH, Period(start, end)) for start, end in pairwise(edges)]
    assert sum(parts, D(0)) == fee and min(parts) >= 0
    assert prorate(fee, MARCH, APRIL) == 0


# Which period is next


def test_periods_follow_each_other_from_the_month_in_which_the_customer_came() -> None:
    customer, _ = payer(created_at=datetime(2026, 3, 9, 15, tzinfo=UTC))
    assert next_period(customer) == MARCH
    customer.billed_until = MARCH.end
    assert next_period(customer) == APRIL


def test_who_begins_with_a_subscription_is_billed_from_its_start_on() -> None:
    customer, _ = payer(created_at=datetime(2026, 3, 9, tzinfo=UTC))
    subscribe(customer, "free", datetime(2026, 3, 9, 1, tzinfo=UTC))
    assert next_period(customer).start == datetime(2026, 3, 9, 1, tzinfo=UTC)


def test_a_subscription_with_periods_of_its_own_ends_the_month_early() -> None:
    customer = customer_on()
    used(customer, date(2026, 3, 2))
    tenth = MARCH.start + timedelta(days=9)
    subscribe(customer, "free", tenth)
    assert next_period(customer) == Period(MARCH.start, tenth)
    customer.billed_until = tenth
    assert next_period(customer) == Period(tenth, datetime(2026, 4, 10, tzinfo=UTC))


# Late, carried, credits, taxes


def test_what_comes_late_to_a_billed_period_is_a_line_of_the_next() -> None:
    customer = customer_on()
    used(customer, date(2026, 3, 9), charge="1.00")
    used(customer, date(2026, 3, 9), feature="ocr_scans", calls=60)
    first, _ = finalise(customer, MARCH, NOW)
    assert first is not None and first.total == D("1.50")
    used(customer, date(2026, 3, 20), charge="0.25", model="demo-large")
    used(customer, date(2026, 3, 21), feature="ocr_scans", calls=4)
    draft = draft_of(customer, APRIL)
    assert lines(draft) == [
        ("late", "0.7 by now, less 0.5 billed", "0.20"),
        ("late", "0.25 by now, less 0 billed", "0.25"),
    ]
    assert {line.item.period for line in draft.lines} == {MARCH}
    finalise(customer, APRIL, NOW)
    assert lines(draft_of(customer, MAY)) == [], "told once"


def test_a_correction_after_the_bill_is_given_back_on_the_next() -> None:
    customer = customer_on()
    used(customer, date(2026, 3, 9), charge="1.00")
    finalise(customer, MARCH, NOW)
    DailyUsage._base_manager.all().update(charge_total=D("0.40"))
    draft = draft_of(customer, APRIL)
    assert lines(draft) == [
        ("late", "0.4 by now, less 1 billed", "-0.60"), ("carried", "nothing is to be paid", "0.60"),
    ]  # fmt: skip
    assert (draft.total, draft.carried) == (0, D("-0.60"))
    finalise(customer, APRIL, NOW)
    used(customer, date(2026, 5, 9), charge="2.00")
    assert draft_of(customer, MAY).total == D("1.40")


def test_what_comes_late_is_priced_as_was_agreed_then() -> None:
    """5 scans beyond at 0.50 were billed; two more come when the price is 9.00: 7 × 0.50 − 2.50."""
    customer = customer_on("free")
    QuotaOverride.objects.create(customer=customer, feature="scans", included=D(0), unit_price=D("0.50"))
    used(customer, date(2026, 3, 9), feature="scans", calls=5)
    finalise(customer, MARCH, NOW)
    QuotaOverride.objects.update(unit_price=D(9))
    used(customer, date(2026, 3, 10), feature="scans", calls=2)
    used(customer, date(2026, 4, 10), feature="scans", calls=1)
    assert lines(draft_of(customer, APRIL)) == [
        ("feature", "1 × 9 = 9", "9.00"), ("late", "3.5 by now, less 2.5 billed", "1.00"),
    ]  # fmt: skip


def test_what_was_carried_is_there_years_later() -> None:
    customer = customer_on()
    used(customer, date(2026, 3, 9), charge="1.004")
    finalise(customer, MARCH, NOW)
    later = Period(datetime(2028, 3, 1, tzinfo=UTC), datetime(2028, 4, 1, tzinfo=UTC))
    used(customer, date(2028, 3, 9), charge="0.006")
    assert draft_of(customer, later).total == D("0.01")


def test_what_rounding_leaves_is_carried_and_never_lost() -> None:
    customer = customer_on()
    for month in (3, 4, 5):
        used(customer, date(2026, month, 9), charge="0.004")
    assert [finalise(customer, period, NOW)[0].total for period in (MARCH, APRIL, MAY)] == [0, D("0.01"), 0]  # type: ignore[union-attr]
    # 0.004, 0.008 → 0.01 and −0.002, 0.002
    assert draft_of(customer, Period(MAY.end, NOW)).lines[0].item.exact == D("0.002")


def test_what_credits_have_paid_is_taken_off() -> None:
    """Of 3.00 credits paid 2.00; of the rest, which is owed, 1.00."""
    customer = customer_on()
    ledger.grant(customer, D(2), "USD", key="k", at=MARCH.start)
    used(customer, date(2026, 3, 9), charge="3.00")
    consume(customer, "2", "available", MARCH.start)
    consume(customer, "1", "receivable", MARCH.start)
    Balance.objects.update(available=0, consumed=3, receivable=1)
    draft = draft_of(customer, MARCH)
    assert [(kind, amount) for kind, _, amount in lines(draft)] == [("usage", "3.00"), ("credits", "-2.00")]
    assert draft.total == 1
    finalise(customer, MARCH, NOW)
    assert draft_of(customer, APRIL).lines == ()


def test_what_credits_pay_in_the_running_period_is_not_taken_off_the_last() -> None:
    customer = customer_on()
    ledger.grant(customer, D(5), "USD", key="k", at=MARCH.start)
    used(customer, date(2026, 3, 9), charge="2.00")
    used(customer, date(2026, 4, 9), charge="1.50")
    consume(customer, "2", "available", MARCH.start)
    consume(customer, "1.5", "available", APRIL.start)
    Balance.objects.update(available=D("1.5"), consumed=D("3.5"))
    assert draft_of(customer, MARCH).total == 0
    finalise(customer, MARCH, NOW)
    assert [(kind, amount) for kind, _, amount in lines(draft_of(customer, APRIL))] == [
        ("usage", "1.50"), ("credits", "-1.50"),
    ]  # fmt: skip


def consume(customer: Customer, amount: str, account: str, at: datetime) -> None:
    """As a call would."""
    Entry.objects.create(
        customer_id=customer.pk, key=f"use/{account}/{at}", posting_id=customer.pk, kind="use", debit=account, credit="consumed",
        amount=D(amount), currency="USD", created_at=at,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "amounts"),
    [
        ({"tax_percent": D(19)}, ("10.00", "1.90", "11.90")),
        ({"tax_percent": D(19), "tax_inclusive": True}, ("8.40", "1.60", "10.00")),
        ({"tax_percent": D(19), "tax_exempt": True}, ("10.00", "0", "10.00")),
        ({}, ("10.00", "0", "10.00")),
    ],
)
def test_taxes_are_added_or_are_in_the_price_or_are_none(
    fields: dict[str, Any], amounts: tuple[str, str, str]
) -> None:
    customer = customer_on(**fields)
    used(customer, date(2026, 3, 9), charge="10.00")
    draft = draft_of(customer, MARCH)
    assert (draft.subtotal, draft.tax, draft.total) == tuple(map(D, amounts))
