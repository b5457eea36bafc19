"""The ledger's acts: each a posting that adds up, once, and never more than is there."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction
from django.db.models import Sum

from billing import ledger
from billing.ledger_check import check_ledger
from billing.models import Account, Balance, Customer, Entry, Grant
from tests.billing.rows import payer

pytestmark = pytest.mark.django_db
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def customer() -> Customer:
    return payer()[0]


def granted(customer: Customer, amount: str, key: str = "first", **values: object) -> Grant:
    return ledger.grant(customer, Decimal(amount), "USD", key=key, at=NOON, **values)[0]  # type: ignore[arg-type]


def balance(customer: Customer) -> Balance:
    return Balance.objects.get(customer=customer)


def spent(customer: Customer, amount: str) -> None:
    """What the recorder's SQL does for a call that came to this."""
    entry = Entry(
        customer_id=customer.pk, key=f"use/{Entry.objects.count()}", posting_id=customer.pk, kind="use",
        debit=Account.AVAILABLE, credit=Account.CONSUMED, amount=Decimal(amount), currency="USD", created_at=NOON,
    )  # fmt: skip
    entry.save(force_insert=True)
    row = balance(customer)
    row.available -= Decimal(amount)
    row.consumed += Decimal(amount)
    row.save()


def test_a_grant_is_one_entry_into_what_is_available(customer: Customer) -> None:
    granted(customer, "25", reason="card", actor="ann")
    entry = Entry.objects.get()
    assert (entry.debit, entry.credit, entry.amount, entry.key) == ("bought", "available", 25, "grant/first")
    assert (entry.reason, entry.actor, entry.created_at) == ("card", "ann", NOON)
    assert (balance(customer).available, balance(customer).bought) == (25, 25)
    assert list(check_ledger()) == []


def test_the_same_grant_again_is_already_there(customer: Customer) -> None:
    first, new = ledger.grant(customer, Decimal(25), "USD", key="k", at=NOON)
    again, new_again = ledger.grant(customer, Decimal("25.0"), "USD", key="k", at=NOON + timedelta(days=1))
    assert (first, new, new_again) == (again, True, False)
    assert (Entry.objects.count(), balance(customer).available) == (1, 25)


def test_another_grant_under_the_same_key_is_a_conflict_that_changes_nothing(customer: Customer) -> None:
    granted(customer, "25", key="k")
    with pytest.raises(ledger.EntryConflict, match="amount"):
        granted(customer, "26", key="k")
    assert (Entry.objects.count(), balance(customer).available) == (1, 25)


@pytest.mark.parametrize("amount", ["0", "-1", "NaN", "Infinity", "0.0000000000001"])
def test_an_amount_that_is_none_is_refused(customer: Customer, amount: str) -> None:
    with pytest.raises(ledger.BadAmount):
        granted(customer, amount)
    assert Entry.objects.count() == 0


def test_credits_are_in_the_customers_currency(customer: Customer) -> None:
    with pytest.raises(ledger.WrongCurrency, match="USD"):
        ledger.grant(customer, Decimal(1), "EUR", key="k", at=NOON)


def test_credits_burn_by_priority_then_by_expiry_then_by_age(customer: Customer) -> None:
    day = timedelta(days=1)
    grants: dict[str, dict[str, object]] = {
        "last": {"priority": 90},
        "never expires": {},
        "expires in 9 days": {"expires_at": NOON + 9 * day},
        "expires in 2 days": {"expires_at": NOON + 2 * day},
        "first": {"priority": 10, "expires_at": NOON + 30 * day},
        "never expires, younger": {},
    }
    for key, values in grants.items():
        granted(customer, "10", key=key, **values)
    spent(customer, "45")  # 10 + 10 + 10 + 10 + 5 of the fifth
    ledger.charge_grants(customer, NOON)
    assert {grant.key: grant.remaining for grant in Grant.objects.in_burn_order()} == {
        "first": 0, "expires in 2 days": 0, "expires in 9 days": 0, "never expires": 0,
        "never expires, younger": 5, "last": 10,
    }  # fmt: skip
    assert list(check_ledger()) == []


def test_a_later_grant_pays_for_nothing_that_was_used_before_it(customer: Customer) -> None:
    old = granted(customer, "10", key="old")
    spent(customer, "4")
    new = granted(customer, "10", key="new", priority=1)
    spent(customer, "3")
    ledger.charge_grants(customer, NOON)
    old.refresh_from_db()
    new.refresh_from_db()
    assert (old.remaining, new.remaining) == (6, 7)  # 10 − 4, 10 − 3


def test_what_came_back_goes_to_the_grant_that_was_used_last(customer: Customer) -> None:
    first, second = granted(customer, "10", key="1"), granted(customer, "10", key="2")
    spent(customer, "15")
    ledger.charge_grants(customer, NOON)
    row = balance(customer)
    Entry(
        customer_id=customer.pk, key="back/1", posting_id=customer.pk, kind="use_returned", debit="consumed",
        credit="available", amount=Decimal(7), currency="USD", created_at=NOON,
    ).save(force_insert=True)  # fmt: skip
    row.available += 7
    row.consumed -= 7
    row.save()
    ledger.charge_grants(customer, NOON)
    first.refresh_from_db()
    second.refresh_from_db()
    assert (first.remaining, second.remaining) == (2, 10)  # 5 of the 7 to the second, 2 to the first
    assert list(check_ledger()) == []


def test_a_refund_takes_what_is_left_and_no_more(customer: Customer) -> None:
    grant = granted(customer, "10")
    spent(customer, "4")
    with pytest.raises(ledger.NotCovered, match="6 USD is left"):
        ledger.refund(grant, Decimal("6.000000000001"), key="r", at=NOON, reason="returned")
    entry, new = ledger.refund(grant, Decimal(6), key="r", at=NOON, reason="returned")
    assert new and (entry.debit, entry.credit, entry.amount) == ("available", "refunded", 6)
    assert ledger.refund(grant, Decimal(6), key="r", at=NOON, reason="returned") == (entry, False)
    assert (balance(customer).available, balance(customer).refunded) == (0, 6)
    assert list(check_ledger()) == []


def test_what_calls_in_flight_have_reserved_cannot_be_taken(customer: Customer) -> None:
    grant = granted(customer, "10")
    Balance.objects.update(held=7)
    with pytest.raises(ledger.NotCovered, match="3 USD is free"):
        ledger.refund(grant, Decimal(4), key="r", at=NOON, reason="")
    with pytest.raises(ledger.NotCovered, match="3 USD is free"):
        ledger.deduct(customer, Decimal(4), key="d", at=NOON, reason="")
    ledger.deduct(customer, Decimal(3), key="d", at=NOON, reason="fee")
    assert balance(customer).available == 7


def test_a_deduction_takes_from_the_grant_that_burns_first(customer: Customer) -> None:
    late, soon = granted(customer, "10", key="late"), granted(customer, "10", key="soon", priority=1)
    ledger.deduct(customer, Decimal(12), key="d", at=NOON, reason="made in error")
    late.refresh_from_db()
    soon.refresh_from_db()
    assert (soon.remaining, late.remaining) == (0, 8)
    assert (balance(customer).available, balance(customer).adjusted) == (8, -12)
    assert list(check_ledger()) == []


@pytest.mark.parametrize(("after", "left"), [(timedelta(0), 0), (-timedelta(microseconds=1), 6)])
def test_a_grant_expires_at_its_instant_with_what_is_left(
    customer: Customer, after: timedelta, left: int
) -> None:
    granted(customer, "10", expires_at=NOON + timedelta(days=1))
    spent(customer, "4")
    ledger.expire_due(NOON + timedelta(days=1) + after)
    assert (balance(customer).available, balance(customer).expired) == (left, 6 - left)
    assert ledger.expire_due(NOON + timedelta(days=1) + after) == 0, "a second sweep finds nothing"
    assert list(check_ledger()) == []


def test_a_call_in_flight_keeps_its_reserve_over_the_expiry(customer: Customer) -> None:
    granted(customer, "10", expires_at=NOON + timedelta(minutes=1))
    Balance.objects.update(held=3)
    assert ledger.expire_due(NOON + timedelta(minutes=1)) == 1
    assert (balance(customer).available, balance(customer).expired) == (3, 7)
    Balance.objects.update(held=0)  # the call came to nothing
    assert ledger.expire_due(NOON + timedelta(minutes=1)) == 1
    assert (balance(customer).available, balance(customer).expired) == (0, 10)
    assert [entry.amount for entry in Entry.objects.filter(kind="expiry").order_by("amount")] == [3, 7]


def test_entries_are_never_edited_nor_deleted(customer: Customer) -> None:
    granted(customer, "10")
    with pytest.raises(TypeError, match="never edited"):
        Entry.objects.update(amount=1)
    with pytest.raises(TypeError, match="never deleted"):
        Entry.objects.all().delete()
    with (
        pytest.raises(IntegrityError, match="never edited"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute("update billing_entries set reason = 'another'")
    if connection.vendor == "postgresql":  # (SQLite's trigger would keep the tests from emptying the table)
        with (
            pytest.raises(IntegrityError, match="never"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute("delete from billing_entries")
    assert Entry.objects.get().amount == 10


@pytest.mark.parametrize(
    "change",
    [
        "available = available + 1",
        "held = available + available",
        "held = held - 1",
        "granted = -1, available = -1",
        "consumed = 1",
    ],
)
def test_the_database_refuses_a_balance_that_cannot_be(customer: Customer, change: str) -> None:
    granted(customer, "10")
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(f"update billing_balances set {change}")


def test_the_auditor_sees_a_balance_that_was_moved_without_an_entry(customer: Customer) -> None:
    granted(customer, "10")
    Balance.objects.update(available=12, granted=2)
    assert {(drift.what, drift.kept, drift.counted) for drift in check_ledger()} == {
        ("available", 12, 10), ("granted", 2, 0), ("left of the grants", 10, 12),
    }  # fmt: skip


def test_one_customer_whose_books_are_broken_keeps_nobody_elses_credits_from_expiring() -> None:
    """What is left of the first one's grant is more than was ever granted: its books cannot be brought up to date."""
    customers = [payer(f"payer-{number}")[0] for number in range(3)]
    for customer in customers:
        ledger.grant(customer, Decimal(1), "USD", key="k", at=NOON, expires_at=NOON + timedelta(minutes=1))
    broken = min(customers, key=lambda customer: customer.pk)
    Grant.objects.filter(customer=broken).update(remaining=0)
    Grant.objects.create(customer=broken, kind="paid", amount=2, remaining=Decimal("0.5"), currency="USD", key="x", created_at=NOON, expires_at=NOON)  # fmt: skip
    with pytest.raises(ledger.SweepIncomplete, match="1 customer"):
        ledger.expire_due(NOON + timedelta(minutes=2))
    assert Balance.objects.exclude(customer=broken).aggregate(left=Sum("available"))["left"] == 0


def test_customers_whose_due_credits_are_all_held_keep_nobody_out() -> None:
    """Pages of one: the first customer's credits are in flight and stay, the next ones' expire all the same."""
    customers = sorted((payer(f"payer-{number}")[0] for number in range(3)), key=lambda customer: customer.pk)
    for customer in customers:
        ledger.grant(customer, Decimal(1), "USD", key="k", at=NOON, expires_at=NOON + timedelta(minutes=1))
    Balance.objects.filter(customer=customers[0]).update(held=1)
    assert ledger.expire_due(NOON + timedelta(minutes=2), page=1) == 2
    assert [one.available for one in Balance.objects.order_by("pk")] == [1, 0, 0]
