"""Periods that are over become invoices: once each, numbered without a gap, and one customer's failure is nobody else's."""

import threading
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, connections, transaction

from billing import drafts, invoicing
from billing.drafts import draft_of
from billing.invoicing import calculate_monthly_usage, charge_monthly_usage, finalise
from billing.models import (
    Customer,
    Invoice,
    InvoiceFinalised,
    InvoiceLine,
    InvoiceNumber,
    ParkedBilling,
    QuotaOverride,
    Subscription,
)
from metering.models import DailyUsage
from tests.billing.rows import payer, used
from tests.billing.test_drafts import APRIL, MARCH, MAY, subscribe

pytestmark = pytest.mark.django_db(transaction=True)
D = Decimal
NOW = datetime(2026, 6, 1, 1, tzinfo=UTC)


def customer_with(charge: str = "1.00", name: str = "payer") -> Customer:
    customer, _ = payer(name, created_at=MARCH.start)
    used(customer, date(2026, 3, 9), charge=charge)
    return customer


def outcomes(**options: object) -> list[tuple[str, str, Decimal]]:
    found = invoicing.run(NOW, **options)  # type: ignore[arg-type]
    return [(one.customer.external_id, one.outcome, one.total) for one in found]


def test_a_run_bills_every_period_that_is_over_and_a_second_one_nothing() -> None:
    customer = customer_with()
    used(customer, date(2026, 5, 9), charge="2.00")
    used(customer, date(2026, 6, 1), charge="4.00")
    assert outcomes() == [
        ("payer", "charged", D("1.00")), ("payer", "nothing to bill", 0), ("payer", "charged", D("2.00")),
    ]  # fmt: skip
    assert list(
        Invoice.objects.order_by("number").values_list("number", "period_start", "total", "state")
    ) == [
        ("2026-000001", MARCH.start, D("1.00"), "open"),
        ("2026-000002", MAY.start, D("2.00"), "open"),
    ]
    assert outcomes() == []


def test_the_lines_of_an_invoice_are_those_of_its_draft_to_the_last_digit() -> None:
    customer = customer_with("1.005")
    used(customer, date(2026, 3, 9), charge="0.001", model="demo-large")
    draft = draft_of(customer, MARCH)
    invoice, is_new = finalise(customer, MARCH, NOW)
    assert invoice is not None and is_new
    lines = list(invoice.lines.all())
    assert [(one.exact, one.amount) for one in lines] == [
        (line.item.exact, line.amount) for line in draft.lines
    ]
    assert sum(one.exact for one in lines) == sum(one.amount for one in lines) + invoice.carried == D("1.006")
    assert invoice.total == sum(one.amount + one.tax for one in lines)
    assert invoice.due_at == NOW + timedelta(days=14)


def test_a_dry_run_tells_and_writes_nothing() -> None:
    customer_with()
    assert outcomes(dry_run=True) == [("payer", "charged", D("1.00"))]
    assert (Invoice.objects.count(), Customer.objects.get().billed_until) == (0, None)


def test_a_period_waits_for_its_grace(settings: object) -> None:
    customer_with()
    settings.TOLLGATE = settings.TOLLGATE | {"BILLING_GRACE_HOURS": 24 * 61 + 1}  # type: ignore[attr-defined]
    assert outcomes() == [("payer", "charged", D("1.00"))], "March: 61 days and an hour before 1 June 01:00"
    settings.TOLLGATE = settings.TOLLGATE | {"BILLING_GRACE_HOURS": 24}  # type: ignore[attr-defined]
    assert [one for _, one, _ in outcomes()] == ["nothing to bill"], "April, and May not yet"


def test_one_customer_that_cannot_be_billed_is_parked_and_the_run_goes_on() -> None:
    broken, fine = customer_with(name="broken"), customer_with(name="fine")
    subscribe(broken, "free", MARCH.start)
    version = Subscription.objects.get().plan_version
    with connection.cursor() as cursor:  # past every guard: a price model that is none
        cursor.execute(
            "update billing_plan_features set price_model = 'graduated', tiers = '[]' where version_id = %s",
            [version.pk.hex if connection.vendor == "sqlite" else version.pk],
        )
    used(broken, date(2026, 3, 9), charge="1.00", feature="documents")
    assert {(name, outcome) for name, outcome, _ in outcomes()} >= {("broken", "failed"), ("fine", "charged")}
    parked = ParkedBilling.objects.get()
    assert (parked.customer, parked.period_start, parked.attempts) == (broken, MARCH.start, 1)
    assert "InvalidTiers" in parked.reason
    outcomes()
    assert ParkedBilling.objects.get().attempts == 2
    with connection.cursor() as cursor:
        cursor.execute(
            "update billing_plan_features set price_model = 'flat' where price_model = 'graduated'"
        )
        cursor.execute("update billing_plan_features set unit_price = 0 where unit_price is null")
    assert outcomes()[0] == ("broken", "charged", D("2.00"))
    assert not ParkedBilling.objects.exists()
    assert Invoice.objects.filter(customer=fine).count() == 1


def test_two_schedulers_at_once_bill_each_customer_once_and_leave_no_number_out() -> None:
    names = [f"c{number}" for number in range(12)]
    for name in names:
        customer_with(name=name)

    def work() -> None:
        try:
            list(invoicing.run(NOW))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ParkedBilling.objects.count() == 0
    numbers = sorted(Invoice.objects.values_list("number", flat=True))
    assert numbers == [f"2026-{number:06d}" for number in range(1, 13)]
    assert sorted(Invoice.objects.values_list("customer__external_id", flat=True)) == sorted(names)


def test_a_number_whose_invoice_failed_is_given_to_the_next() -> None:
    first, second = customer_with(name="first"), customer_with(name="second")
    with transaction.atomic():
        assert finalise(first, MARCH, NOW)[1]
        transaction.set_rollback(True)  # as if the process had died before the commit
    assert (Invoice.objects.count(), InvoiceNumber.objects.count()) == (0, 0)
    invoice, _ = finalise(second, MARCH, NOW)
    assert invoice is not None and invoice.number == "2026-000001"


def test_an_invoice_is_never_edited_or_deleted_and_exists_once() -> None:
    customer = customer_with()
    invoice, _ = finalise(customer, MARCH, NOW)
    assert invoice is not None
    assert finalise(customer, MARCH, NOW) == (invoice, False)
    for act in (invoice.save, invoice.delete, Invoice.objects.all().delete):
        with pytest.raises(InvoiceFinalised):
            act()
    values = {name: getattr(invoice, name) for name in ("customer", "period_start", "period_end", "currency")}
    amounts = {"subtotal": 0, "tax": 0, "total": 0, "carried": 0}
    with pytest.raises(IntegrityError), transaction.atomic():
        Invoice(number="2026-000002", due_at=NOW, **values, **amounts).save()


def test_what_rounding_has_left_makes_no_invoice_by_itself() -> None:
    customer = customer_with("1.004")
    assert [outcome for _, outcome, _ in outcomes()] == ["charged", "nothing to bill", "nothing to bill"]
    used(customer, date(2026, 6, 9), charge="0.006")
    july = drafts.next_period(Customer.objects.get())
    assert draft_of(customer, july).total == D("0.01")


def test_a_month_as_python_calls() -> None:
    customer = customer_with()
    usage = calculate_monthly_usage(customer, 2026, 3)
    assert (usage.total, usage.draft.period) == (D("1.00"), MARCH)
    charge = charge_monthly_usage(customer, 2026, 3)
    assert (charge.charged, charge.amount, charge.reason) == (True, D("1.00"), "")
    again = charge_monthly_usage(customer, 2026, 3)
    assert (again.charged, again.amount) == (False, D("1.00")) and "2026-000001" in again.reason
    assert charge_monthly_usage(customer, 2026, 5).reason.startswith("The period from 2026-04-01")


def test_an_invoice_below_nothing_is_one_of_nothing_and_paid() -> None:
    customer = customer_with()
    finalise(customer, MARCH, NOW)
    DailyUsage._base_manager.all().update(charge_total=0)
    invoice, _ = finalise(customer, APRIL, NOW)
    assert invoice is not None
    assert (invoice.total, invoice.carried, invoice.state, invoice.closed_at) == (0, D("-1.00"), "paid", NOW)


def test_all_invoices_together_are_all_that_was_charged() -> None:
    """The equation: Σ charges + Σ priced by the plan = Σ lines = Σ invoices + what is carried."""
    customer = customer_with("0.333333333333")
    QuotaOverride.objects.create(customer=customer, feature="ocr_scans", included=0, unit_price=D("0.007"))
    for month in (3, 4, 5):
        used(customer, date(2026, month, 20), charge="1.111111111111", model="demo-large")
        used(customer, date(2026, month, 20), feature="ocr_scans", calls=month)
    list(invoicing.run(NOW))
    expected = D("0.333333333333") + 3 * D("1.111111111111") + (3 + 4 + 5) * D("0.007")
    told = InvoiceLine.objects.exclude(kind="carried")
    assert sum((line.exact for line in told), D(0)) == expected
    last = Invoice.objects.order_by("period_start").last()
    assert last is not None
    assert sum((one.total for one in Invoice.objects.all()), D(0)) + last.carried == expected
    assert drafts.draft_of(customer, MAY).lines  # a draft of a billed period still shows what it came to
