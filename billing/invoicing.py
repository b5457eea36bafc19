"""Finalises the bills of periods that are over: numbered at the last moment, one of a customer and period for ever.

A run is a sweep: every customer whose period has ended gets its invoice in a transaction of its own. Two runs at once, or one
that is killed and begun again, bill nothing twice: the database takes one invoice of a customer and period, and whoever comes
second is told that it is there. A customer that cannot be billed is parked with the reason, and the run goes on.
"""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import msgspec
from django.conf import settings
from django.db import IntegrityError, connection, transaction
from django.db.models import F, Q

from billing.drafts import Draft, draft_of, next_period
from billing.models import Customer, Invoice, InvoiceLine, ParkedBilling
from billing.period_rating import overrides_document
from billing.periods import Period
from metering.ids import NIL, uuid7
from pricing import clock

log = logging.getLogger("billing.invoicing")

ZERO = Decimal(0)
PAGE = 200
PERIODS_MAX = 24  # of one customer in one run: whoever is further behind is gone on with by the next
Outcome = Literal["charged", "nothing to bill", "billed before", "failed"]


class Billed(msgspec.Struct, frozen=True):
    """What became of one period of one customer."""

    customer: Customer
    period: Period
    outcome: Outcome
    invoice: Invoice | None = None  # None in a dry run
    total: Decimal = ZERO
    reason: str = ""


def run(now: datetime, *, customer: Customer | None = None, dry_run: bool = False) -> Iterator[Billed]:
    """Bill every period that has ended, with its grace, by `now`; what became of each, as it happens. A dry run writes
    nothing."""
    cut = now - grace()
    for one in _due(cut, customer):
        for _ in range(PERIODS_MAX):
            period = next_period(one)
            if period.end > cut:
                break
            billed = _bill(one, period, now, dry_run=dry_run)
            yield billed
            if billed.outcome == "failed" or dry_run:
                break
            one.billed_until = period.end


def grace() -> timedelta:
    """How long after its end a period waits for what comes late."""
    hours = getattr(settings, "TOLLGATE", {}).get("BILLING_GRACE_HOURS", 0)
    return timedelta(hours=hours)


def _due(cut: datetime, customer: Customer | None) -> Iterator[Customer]:
    """Customers of whom a period may have ended, in pages."""
    if customer is not None:
        yield customer
        return
    after = NIL
    while True:
        waiting = Customer.objects.filter(Q(billed_until=None) | Q(billed_until__lt=cut), pk__gt=after)
        page = list(waiting.order_by("pk")[:PAGE])
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].pk


def _bill(customer: Customer, period: Period, now: datetime, *, dry_run: bool) -> Billed:
    try:
        if dry_run:
            draft = draft_of(customer, period)
            outcome: Outcome = "charged" if draft.bills_something else "nothing to bill"
            return Billed(customer, period, outcome, total=draft.total)
        invoice, is_new = finalise(customer, period, now)
    except Exception as error:  # whatever one customer's bill ends in, the others get theirs
        log.exception("customer %s could not be billed for %s", customer.pk, period.start)
        reason = f"{type(error).__name__}: {error}"[:500]
        if not dry_run:
            _park(customer, period, reason, now)
        return Billed(customer, period, "failed", reason=reason)
    ParkedBilling.objects.filter(pk=customer.pk).delete()
    if invoice is None:
        return Billed(customer, period, "nothing to bill" if is_new else "billed before")
    return Billed(customer, period, "charged" if is_new else "billed before", invoice, invoice.total)


def finalise(customer: Customer, period: Period, now: datetime) -> tuple[Invoice | None, bool]:
    """The invoice of a period, and whether it was made just now; None where there is nothing to bill. In one transaction: the
    invoice, its lines, how far the customer is billed, and, last, its number."""
    try:
        with transaction.atomic():
            locked = Customer.objects.select_for_update().get(pk=customer.pk)
            if locked.billed_until is not None and locked.billed_until >= period.end:
                return _there(customer, period), False
            draft = draft_of(locked, period)
            Customer.objects.filter(pk=customer.pk).update(billed_until=period.end)
            if not draft.bills_something:
                return None, True
            return _write(draft, now), True
    except IntegrityError:
        found = _there(customer, period)
        if found is None:
            raise
        return found, False


def _there(customer: Customer, period: Period) -> Invoice | None:
    invoices = Invoice.objects.counting().filter(customer=customer, kind=Invoice.Kind.INVOICE)
    return invoices.filter(period_start=period.start).first()


def _write(draft: Draft, now: datetime) -> Invoice:
    is_paid = draft.total == 0
    due = now + timedelta(days=getattr(settings, "TOLLGATE", {}).get("INVOICE_DUE_DAYS", 14))
    invoice = Invoice(
        id=uuid7(now), customer=draft.customer, plan_version=draft.version, period_start=draft.period.start,
        period_end=draft.period.end, currency=draft.currency, subtotal=draft.subtotal, tax=draft.tax, total=draft.total,
        carried=draft.carried, created_at=now, due_at=due, seen=draft.seen,
        overrides=overrides_document(draft.customer),
        state=Invoice.State.PAID if is_paid else Invoice.State.OPEN, closed_at=now if is_paid else None,
    )  # fmt: skip
    invoice.number = next_number(now)
    invoice.save(force_insert=True)
    InvoiceLine.objects.bulk_create(
        InvoiceLine(
            id=uuid7(now), invoice=invoice, position=position, kind=line.item.kind, feature=line.item.feature,
            description=line.item.description[:300], quantity=line.item.quantity, unit_price=line.item.unit_price,
            exact=line.item.exact, amount=line.amount, tax_percent=draft.tax_percent, tax=line.tax,
            period_start=line.item.period.start, period_end=line.item.period.end, source=line.item.source,
        )
        for position, line in enumerate(draft.lines, 1)
    )  # fmt: skip
    return invoice


def next_number(now: datetime) -> str:
    """The next number of the year. Within the transaction of whatever gets it: if that fails the number is free again. Others
    wait for it from here on, so nothing slow comes after."""
    with connection.cursor() as cursor:
        cursor.execute(
            "insert into billing_invoice_numbers (year, last) values (%s, 1)"
            " on conflict (year) do update set last = billing_invoice_numbers.last + 1 returning last",
            [now.year],
        )
        return f"{now.year}-{cursor.fetchone()[0]:06d}"


def _park(customer: Customer, period: Period, reason: str, now: datetime) -> None:
    _, is_new = ParkedBilling.objects.get_or_create(
        pk=customer.pk,
        defaults={"period_start": period.start, "reason": reason, "first_at": now, "last_at": now},
    )
    if not is_new:
        ParkedBilling.objects.filter(pk=customer.pk).update(
            period_start=period.start, reason=reason, last_at=now, attempts=F("attempts") + 1
        )


class MonthlyUsage(msgspec.Struct, frozen=True):
    """What the month comes to, and of what."""

    draft: Draft

    @property
    def total(self) -> Decimal:
        return self.draft.total


class Charge(msgspec.Struct, frozen=True):
    """Whether a month was charged now, what it came to, and why not."""

    charged: bool
    amount: Decimal
    reason: str
    usage: MonthlyUsage


def calculate_monthly_usage(customer: Customer, year: int, month: int) -> MonthlyUsage:
    """What the billing period that ends within the month, or else runs in it, comes to by now."""
    return MonthlyUsage(draft_of(customer, _period_of(customer, year, month)))


def charge_monthly_usage(customer: Customer, year: int, month: int) -> Charge:
    """Finalise that period's invoice, once it is over. Again changes nothing."""
    now, customer = clock.now(), Customer.objects.get(pk=customer.pk)  # billed so far as of now
    period = _period_of(customer, year, month)
    usage = MonthlyUsage(draft_of(customer, period))
    if period.end + grace() > now:
        return Charge(False, ZERO, f"The period runs until {period.end.isoformat()}.", usage)
    expected = next_period(customer)
    if period.start == expected.start:
        period = expected  # which a change of the subscription may have ended early
    if period.start != expected.start and _there(customer, period) is None:
        return Charge(False, ZERO, f"The period from {expected.start.isoformat()} comes first.", usage)
    invoice, is_new = finalise(customer, period, now)
    if invoice is None:
        return Charge(False, ZERO, "There is nothing to bill.", usage)
    return Charge(
        is_new, invoice.total, "" if is_new else f"It was billed before, as {invoice.number}.", usage
    )


def _period_of(customer: Customer, year: int, month: int) -> Period:
    """The billing period that the last instant of the month lies in, if that ends with it; else the one that ended in it."""
    first = datetime(year, month, 1, tzinfo=UTC)
    following = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
    period = customer.period_at(following - timedelta(microseconds=1))
    if period.end == following or period.start <= first:
        return period
    return customer.period_at(first)
