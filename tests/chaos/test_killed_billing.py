"""The billing run, killed again and again and run twice at once: the books of a whole year are the same as without."""

import random
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from billing import invoicing, subscriptions
from billing.models import Customer, Invoice, InvoiceLine, ParkedBilling
from metering.models import DailyUsage
from pricing import clock
from tests.billing.rows import payer, used
from tests.chaos.test_killed_rerating import started

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.kill(seeds=1), pytest.mark.timeout(300)]

BEGAN = datetime(2025, 11, 1, tzinfo=UTC)
PLANS = ("free", "professional", "enterprise", "payg", None)
CUSTOMERS, DEATHS = 10, 3


def a_year() -> None:
    """Customers on every plan, upgrades, trials, ends, taxes, and usage of calls, scans and tokens in every month."""
    dice = random.Random(7)
    for number in range(CUSTOMERS):
        customer, _ = payer(f"c{number}", created_at=BEGAN, tax_percent=Decimal(number % 3 * 7))
        plan = PLANS[number % len(PLANS)]
        if plan is not None:
            subscriptions.subscribe(customer, plan, BEGAN + timedelta(days=number), trial_days=number % 4 * 5)
            if number % 2:
                later = BEGAN + timedelta(days=100 + number, seconds=number)
                running, _ = subscriptions.subscribe(customer, PLANS[(number + 1) % 4] or "free", later)
                if number % 3 == 0:
                    subscriptions.cancel(running, later + timedelta(days=90))
        for month in range(12):
            year, at = divmod(10 + month, 12)
            for _ in range(3):
                day = date(2025 + year, at + 1, dice.randint(1, 28))
                charge = Decimal(dice.randint(0, 10**13)).scaleb(-12)
                used(
                    customer, day, calls=dice.randint(1, 3000), charge=str(charge), model=f"m{dice.random()}"
                )
                used(customer, day, calls=dice.randint(1, 90), feature="ocr_scans", model=f"m{dice.random()}")


def books() -> list[tuple[Any, ...]]:
    """All that was billed, but for when."""
    invoices = Invoice.objects.order_by("customer__external_id", "period_start").select_related("customer")
    return [
        (
            one.customer.external_id, one.period_start, one.period_end, one.total, one.carried,
            [(line.kind, line.description, line.exact, line.amount, line.tax) for line in one.lines.all()],
        )
        for one in invoices
    ]  # fmt: skip


def forget() -> None:
    """As if nothing had been billed, past every guard."""
    with connection.cursor() as cursor:
        for table in ("billing_invoice_lines", "billing_invoices", "billing_invoice_numbers"):
            cursor.execute(f"delete from {table}")
    Customer.objects.update(billed_until=None)


def test_a_year_is_billed_the_same_however_often_the_run_is_killed(kill_seed: int, tmp_path: Path) -> None:
    a_year()
    list(invoicing.run(clock.now()))
    expected = books()
    forget()
    dice, output, deaths = random.Random(kill_seed), tmp_path / "output", 0
    for _ in range(DEATHS):
        process = started(("run_billing",), output)
        until = Invoice.objects.count() + dice.randint(1, 40)
        while Invoice.objects.count() < until and process.poll() is None:
            time.sleep(0.01)
        time.sleep(dice.random() * 0.02)
        process.kill()
        deaths += process.wait(60) < 0
    pair = [started(("run_billing",), output) for _ in range(2)]
    assert [process.wait(120) for process in pair] == [0, 0], output.read_text()
    assert deaths > 0 and not ParkedBilling.objects.exists()
    assert books() == expected
    numbers = sorted(Invoice.objects.values_list("number", flat=True))
    assert [int(number[5:]) for number in numbers] == list(range(1, len(numbers) + 1)), "none is left out"


def test_over_a_year_all_that_was_charged_is_billed_or_carried() -> None:
    """Σ of the price book + Σ priced by the plan + fees = Σ invoices without tax + what each customer's last one carries."""
    a_year()
    list(invoicing.run(clock.now()))
    for customer in Customer.objects.all():
        lines = InvoiceLine.objects.filter(invoice__customer=customer)
        exact = sum((line.exact for line in lines.exclude(kind="carried")), Decimal(0))
        shown = sum((one.subtotal for one in customer.invoices.all()), Decimal(0))
        last = customer.invoices.order_by("period_start").last()
        assert last is not None and shown + last.carried == exact, customer
        charged = sum((row[-1] for row in charges(customer)), Decimal(0))
        usage = sum(
            (line.exact for line in lines if line.kind == "usage" or line.source.get("of") == "usage"),
            Decimal(0),
        )
        assert usage == charged, customer


def charges(customer: Customer) -> list[tuple[Any, ...]]:
    """What the price book has made of all that is over."""
    rows = DailyUsage.objects.filter(customer_id=customer.pk, period_start__lt=customer.billed_until)
    return list(rows.values_list("day", "charge_total"))
