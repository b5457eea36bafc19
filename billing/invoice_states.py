"""What becomes of an invoice: paid, void, given up; and the notes that add to it or take from it. Each a conditional update, so
of two at once one wins and the other is told.

    open ──▶ paid            the money is there
    open ──▶ void            it should not have been; the period is billed anew by the next run where it was the last one
    open ──▶ uncollectible   it is owed and will not come; may still be paid
"""

from datetime import datetime
from decimal import Decimal

from django.db import transaction
from django.db.models import Q, Sum

from billing.invoicing import next_number
from billing.models import Customer, Invoice, InvoiceLine
from metering.ids import uuid7
from pricing.money import round_amount

State = Invoice.State
ZERO = Decimal(0)
_FROM = {
    State.PAID: (State.OPEN, State.UNCOLLECTIBLE),
    State.VOID: (State.OPEN,),
    State.UNCOLLECTIBLE: (State.OPEN,),
}


class InvoiceError(Exception):
    """What cannot become of this invoice. Nothing was changed; the text says why."""


def pay(invoice: Invoice, at: datetime) -> bool:
    """Whether it is paid by this call; False where it was before. Raises InvoiceError."""
    return _move(invoice, State.PAID, at, "")


def give_up(invoice: Invoice, at: datetime, *, reason: str) -> bool:
    """Mark it uncollectible. Raises InvoiceError."""
    return _move(invoice, State.UNCOLLECTIBLE, at, reason)


def void(invoice: Invoice, at: datetime, *, reason: str) -> bool:
    """Take it back as if it had never been; its number stays. Only the customer's last invoice can be: what came after it
    rests on it. Raises InvoiceError."""
    with transaction.atomic():
        customer = Customer.objects.select_for_update().get(pk=invoice.customer_id)
        if invoice.kind == Invoice.Kind.INVOICE:
            if invoice.notes.exclude(state=State.VOID).exists():
                raise InvoiceError(f"{invoice.number} has notes: they say what changes it.")
            later = Invoice.objects.counting().filter(customer=customer, kind=Invoice.Kind.INVOICE)
            if later.filter(period_start__gt=invoice.period_start).exists():
                raise InvoiceError(f"{invoice.number} is not the last invoice: a credit note takes it back.")
        moved = _move(invoice, State.VOID, at, reason)
        if moved and invoice.kind == Invoice.Kind.INVOICE:
            Customer.objects.filter(pk=customer.pk).update(billed_until=invoice.period_start)
        return moved


def note(invoice: Invoice, amount: Decimal, at: datetime, *, reason: str) -> Invoice:
    """A credit note (amount below 0) or a debit note (above), without tax, in the smallest coin; its tax is that of the
    invoice. All credit notes together take back no more than the invoice and its debit notes. Raises InvoiceError."""
    if not amount.is_finite() or not amount or amount != round_amount(amount, coin_of=invoice.currency):
        raise InvoiceError(f"An amount in the smallest coin of {invoice.currency}, above or below 0.")
    if not reason.strip():
        raise InvoiceError("A note says its reason.")
    with transaction.atomic():
        Customer.objects.select_for_update().get(pk=invoice.customer_id)
        invoice.refresh_from_db()
        if invoice.kind != Invoice.Kind.INVOICE or invoice.state == State.VOID:
            raise InvoiceError(f"{invoice.number} cannot have a note.")
        others = invoice.notes.exclude(state=State.VOID).aggregate(sum=Sum("subtotal"))["sum"] or ZERO
        if invoice.subtotal + others + amount < 0:
            raise InvoiceError(
                f"No more than {invoice.subtotal + others} of {invoice.number} is left to take back."
            )
        return _write_note(invoice, amount, at, reason)


def _write_note(invoice: Invoice, amount: Decimal, at: datetime, reason: str) -> Invoice:
    percent = invoice.lines.values_list("tax_percent", flat=True).first() or ZERO
    tax = round_amount(amount * percent / 100, coin_of=invoice.currency)
    is_credit = amount < 0
    made = Invoice(
        id=uuid7(at), kind=Invoice.Kind.CREDIT_NOTE if is_credit else Invoice.Kind.DEBIT_NOTE, customer=invoice.customer,
        plan_version=invoice.plan_version, corrects=invoice, period_start=invoice.period_start, period_end=invoice.period_end,
        currency=invoice.currency, subtotal=amount, tax=tax, total=amount + tax, carried=ZERO, created_at=at, due_at=at,
        reason=reason[:300], state=State.OPEN, number=next_number(at),
    )  # fmt: skip
    made.save(force_insert=True)
    InvoiceLine.objects.create(
        id=uuid7(at), invoice=made, position=1, kind=InvoiceLine.Kind.NOTE, description=reason[:300], exact=amount, amount=amount,
        tax_percent=percent, tax=tax, period_start=made.period_start, period_end=made.period_end,
        source={"invoice": invoice.number, "text": reason[:300]},
    )  # fmt: skip
    return made


def _move(invoice: Invoice, to: str, at: datetime, reason: str) -> bool:
    allowed = Q(pk=invoice.pk, state__in=_FROM[State(to)])
    moved = Invoice.objects.filter(allowed).update(state=to, closed_at=at, reason=reason[:300])
    invoice.refresh_from_db()
    if not moved and invoice.state != to:
        raise InvoiceError(f"{invoice.number} is {invoice.state}, so it cannot become {to}.")
    return bool(moved)
