"""Invoices and their lines. Only `billing.invoicing` and `billing.invoice_states` write them.

What is in the table has a number and is never edited; only its state moves on. What changes an invoice is another document: a
note, or the next invoice. The draft of a period that runs is made anew whenever somebody looks (`billing.drafts`).
"""

from typing import Any, ClassVar

from django.db import models
from django.db.models import F, Q

from billing.models.customer import Customer, check_currency
from billing.models.plans import PlanVersion
from metering.ids import uuid7
from pricing import clock
from pricing.fields import AmountField


class InvoiceFinalised(ValueError):
    """An invoice has its number, so it is never edited or deleted: a note or the next invoice says what changes."""


class InvoiceQuerySet(models.QuerySet["Invoice"]):
    def counting(self) -> "InvoiceQuerySet":
        """Those that are owed or were paid: not the void ones."""
        return self.exclude(state=Invoice.State.VOID)

    def delete(self) -> tuple[int, dict[str, int]]:
        raise InvoiceFinalised("Invoices are never deleted: void them.")


class Invoice(models.Model):
    """What a customer owes for one period, or what a note adds to or takes from an invoice."""

    class Kind(models.TextChoices):
        INVOICE = "invoice"
        CREDIT_NOTE = "credit_note", "credit note"
        DEBIT_NOTE = "debit_note", "debit note"

    class State(models.TextChoices):
        OPEN = "open", "to be paid"
        PAID = "paid"
        VOID = "void"
        UNCOLLECTIBLE = "uncollectible"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    kind = models.CharField(max_length=12, choices=Kind.choices, default=Kind.INVOICE)
    state = models.CharField(max_length=14, choices=State.choices, default=State.OPEN)
    number = models.CharField(max_length=32, unique=True, help_text="Per year, without a gap.")
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="invoices")
    plan_version = models.ForeignKey(
        PlanVersion, null=True, blank=True, on_delete=models.PROTECT, related_name="+", verbose_name="plan"
    )
    corrects = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="notes", help_text="Of a note."
    )
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    currency = models.CharField(max_length=3, validators=[check_currency])
    subtotal = AmountField(help_text="Of all lines, without taxes.")
    tax = AmountField()
    total = AmountField(help_text="What is to be paid.")
    carried = AmountField(
        help_text="What is less than the smallest coin, or below nothing: the next invoice begins with it."
    )
    created_at = models.DateTimeField(default=clock.now, help_text="When it was finalised.")
    due_at = models.DateTimeField()
    closed_at = models.DateTimeField(null=True, blank=True, help_text="Paid, void or given up.")
    reason = models.CharField(max_length=300, blank=True, help_text="Of a note, of voiding, of giving up.")
    seen = models.JSONField(
        default=dict,
        help_text="What daily usage came to when it was made, by the start of a period: by that later invoices see what came late.",
    )
    overrides = models.JSONField(
        default=dict,
        help_text="What the customer got instead of what its plan said, by feature: what comes late is priced by it.",
    )

    objects: ClassVar[InvoiceQuerySet] = InvoiceQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        db_table = "billing_invoices"
        ordering = ["-created_at", "-id"]
        indexes: ClassVar = [
            models.Index(fields=["customer", "period_start"], name="billing_invoices_periods"),
            models.Index(fields=["created_at", "id"], name="billing_invoices_newest"),
            models.Index(fields=["state", "due_at"], name="billing_invoices_states"),
        ]
        constraints: ClassVar = [
            # However many schedulers run: one invoice of a customer and period. A void one leaves room for another.
            models.UniqueConstraint(
                fields=["customer", "period_start"], condition=Q(kind="invoice") & ~Q(state="void"), name="billing_invoices_once"
            ),
            models.CheckConstraint(condition=Q(period_end__gt=F("period_start")), name="billing_invoices_period"),
            models.CheckConstraint(condition=Q(state__in=["open", "paid", "void", "uncollectible"]), name="billing_invoices_state"),
            models.CheckConstraint(condition=Q(state="open", closed_at=None) | ~Q(state="open"), name="billing_invoices_closed"),
            models.CheckConstraint(condition=Q(total=F("subtotal") + F("tax")), name="billing_invoices_add_up"),
            models.CheckConstraint(condition=Q(kind="invoice", corrects=None) | Q(kind__in=["credit_note", "debit_note"]), name="billing_invoices_notes"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.number

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise InvoiceFinalised(f"{self.number} is finalised.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise InvoiceFinalised(f"{self.number} is finalised: void it.")


class InvoiceLine(models.Model):
    """One thing that is charged, and where it comes from: `source` names what was added up, and the arithmetic."""

    class Kind(models.TextChoices):
        BASE_FEE = "base_fee", "base fee"
        FEATURE = "feature", "priced by the plan"
        USAGE = "usage", "priced by the price book"
        TRUE_UP = "true_up", "minimum or maximum"
        LATE = "late", "of an earlier period"
        CREDITS = "credits", "paid with credits"
        WRITTEN_OFF = "written_off", "beyond a hard limit, not charged"
        CARRIED = "carried", "carried over"
        NOTE = "note"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    invoice = models.ForeignKey(Invoice, on_delete=models.PROTECT, related_name="lines")
    position = models.PositiveIntegerField()
    kind = models.CharField(max_length=12, choices=Kind.choices)
    feature = models.CharField(max_length=64, blank=True)
    description = models.CharField(max_length=300)
    quantity = AmountField(null=True, blank=True)
    unit_price = AmountField(null=True, blank=True)
    exact = AmountField(help_text="To 12 places, before it is rounded to the smallest coin.")
    amount = AmountField(
        help_text="In the smallest coin, without tax. What rounding leaves goes to the next line."
    )
    tax_percent = AmountField()
    tax = AmountField()
    period_start = models.DateTimeField()
    period_end = models.DateTimeField()
    source = models.JSONField(default=dict)

    class Meta:
        db_table = "billing_invoice_lines"
        ordering = ["position"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["invoice", "position"], name="billing_invoice_lines_position")
        ]

    def __str__(self) -> str:
        return self.description


class InvoiceNumber(models.Model):
    """The last number of a year. Its row is taken at the very end of finalising, so that no number is left out."""

    year = models.PositiveIntegerField(primary_key=True)
    last = models.PositiveIntegerField()

    class Meta:
        db_table = "billing_invoice_numbers"

    def __str__(self) -> str:
        return f"{self.last} of {self.year}"


class ParkedBilling(models.Model):
    """A customer that could not be billed: why, and since when. The run goes on without it, and the next one tries again."""

    customer = models.OneToOneField(
        Customer, primary_key=True, on_delete=models.CASCADE, related_name="parked_billing"
    )
    period_start = models.DateTimeField()
    reason = models.CharField(max_length=500)
    attempts = models.PositiveIntegerField(default=1)
    first_at = models.DateTimeField()
    last_at = models.DateTimeField()

    class Meta:
        db_table = "billing_parked"
        ordering = ["-last_at"]
        verbose_name = "parked customer"

    def __str__(self) -> str:
        return f"{self.customer}: {self.reason}"
