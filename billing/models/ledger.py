"""The ledger's tables: balances, entries, grants. Only `billing.ledger` and `billing.ledger_sql` write them.

An entry moves an amount from one account of a customer to another, so entries sum to zero by their very shape. Balances are
sums of entries; the balance row keeps them, so that a call can be admitted by one conditional update, and
`billing.ledger_check` proves them equal.
"""

from datetime import datetime
from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from billing.models.customer import Customer, check_currency
from metering.ids import uuid7
from pricing import clock
from pricing.fields import AmountField


class Account(models.TextChoices):
    """The accounts of a customer. Money enters from the outside through the first three and is spent into `consumed`."""

    BOUGHT = "bought", "credits paid for"
    GRANTED = "granted", "credits given"
    ADJUSTMENT = "adjustment", "adjustments"
    AVAILABLE = "available", "available"
    CONSUMED = "consumed", "consumed by usage"
    EXPIRED = "expired", "expired"
    REFUNDED = "refunded", "refunded"
    WRITTEN_OFF = "written_off", "used beyond a hard limit, not charged"
    RECEIVABLE = "receivable", "used beyond the credits, to be invoiced"


class EntryQuerySet(models.QuerySet["Entry"]):
    """Entries can be added and read, nothing else; the database refuses the rest as well."""

    def update(self, **kwargs: object) -> int:
        raise TypeError("entries of the ledger are never edited; a correction is a new entry")

    def delete(self) -> tuple[int, dict[str, int]]:
        raise TypeError("entries of the ledger are never deleted; a correction is a new entry")


class Entry(models.Model):
    """One movement, from the account `debit` to the account `credit`. Append-only; `key` says what it is for, once."""

    class Kind(models.TextChoices):
        GRANT = "grant"
        USE = "use"
        USE_RETURNED = "use_returned", "use given back"
        EXPIRY = "expiry"
        REFUND = "refund"
        ADJUSTMENT = "adjustment"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer_id = models.UUIDField()
    key = models.CharField(
        max_length=200, help_text="What it is for: no customer has two entries of one key."
    )
    posting_id = models.UUIDField(help_text="What was booked together; events carry it.")
    kind = models.CharField(max_length=16, choices=Kind.choices)
    debit = models.CharField(max_length=16, choices=Account.choices)
    credit = models.CharField(max_length=16, choices=Account.choices)
    amount = AmountField()
    currency = models.CharField(max_length=3)
    created_at = models.DateTimeField()
    reason = models.CharField(max_length=300, blank=True)
    actor = models.CharField(max_length=150, blank=True, help_text="Who did it; empty for what calls did.")

    objects: ClassVar[EntryQuerySet] = EntryQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        db_table = "billing_entries"
        verbose_name_plural = "entries"
        ordering = ["-created_at", "-id"]
        indexes: ClassVar = [
            models.Index(fields=["customer_id", "created_at"], name="billing_entries_by_time"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["customer_id", "key"], name="billing_entries_key"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="billing_entries_amount"),
            models.CheckConstraint(condition=~Q(debit=F("credit")), name="billing_entries_two_accounts"),
            models.CheckConstraint(condition=Q(debit__in=Account.values, credit__in=Account.values), name="billing_entries_accounts"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.kind} {self.amount} {self.currency}"


class Balance(models.Model):
    """Where a customer stands: the sums of the entries by account, and what calls in flight have reserved."""

    customer = models.OneToOneField(
        Customer, primary_key=True, on_delete=models.PROTECT, related_name="balance"
    )
    currency = models.CharField(max_length=3, validators=[check_currency])
    is_hard = models.BooleanField(default=False, help_text="Whether a call that is not covered is refused.")
    available = AmountField(default=0)
    held = AmountField(default=0, help_text="Reserved by calls in flight: the sum of the open holds.")
    bought = AmountField(default=0)
    granted = AmountField(default=0)
    adjusted = AmountField(default=0)
    consumed = AmountField(default=0)
    expired = AmountField(default=0)
    refunded = AmountField(default=0)
    written_off = AmountField(default=0)
    receivable = AmountField(default=0)
    full = AmountField(default=0, help_text="What was available right after credits were last added.")
    full_since = models.DateTimeField(null=True, blank=True, help_text="When that was.")
    opened_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        db_table = "billing_balances"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(held__gte=0), name="billing_balances_held"),
            models.CheckConstraint(condition=Q(available__gte=F("held")), name="billing_balances_covered"),
            models.CheckConstraint(
                condition=Q(bought__gte=0, granted__gte=0, expired__gte=0, refunded__gte=0, written_off__gte=0),
                name="billing_balances_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(available=F("bought") + F("granted") + F("adjusted") - F("expired") - F("refunded")
                    - F("consumed") + F("written_off") + F("receivable")),
                name="billing_balances_add_up",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.available} {self.currency}"


class GrantQuerySet(models.QuerySet["Grant"]):
    def in_burn_order(self) -> "GrantQuerySet":
        """By priority, then by expiry (never comes last), then by age."""
        return self.order_by("priority", F("expires_at").asc(nulls_last=True), "created_at", "id")

    def open(self) -> "GrantQuerySet":
        """Those that something is left of."""
        return self.filter(remaining__gt=0)

    def due(self, at: datetime) -> "GrantQuerySet":
        """Those that something is left of and that have expired by `at`."""
        return self.open().filter(expires_at__lte=at)


class Grant(models.Model):
    """Credits given or bought. What calls consume is charged to grants in the order in which they burn."""

    class Kind(models.TextChoices):
        PAID = "paid", "bought"
        PROMOTIONAL = "promotional", "given"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="grants")
    kind = models.CharField(max_length=12, choices=Kind.choices, default=Kind.PAID)
    amount = AmountField()
    remaining = AmountField(help_text="As of the last change of the customer's grants.")
    currency = models.CharField(max_length=3, validators=[check_currency])
    priority = models.PositiveSmallIntegerField(default=50, help_text="Lower burns first; 0 to 100.")
    expires_at = models.DateTimeField(null=True, blank=True, help_text="From then on it cannot be spent.")
    reason = models.CharField(max_length=300, blank=True)
    key = models.CharField(max_length=200)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    objects: ClassVar[GrantQuerySet] = GrantQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        db_table = "billing_grants"
        ordering = ["-created_at", "-id"]
        indexes: ClassVar = [
            models.Index(fields=["expires_at"], condition=Q(remaining__gt=0), name="billing_grants_due"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["customer", "key"], name="billing_grants_key"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="billing_grants_amount"),
            models.CheckConstraint(condition=Q(remaining__gte=0, remaining__lte=F("amount")), name="billing_grants_remaining"),
            models.CheckConstraint(condition=Q(priority__lte=100), name="billing_grants_priority"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.remaining} of {self.amount} {self.currency}"


class GrantUse(models.Model):
    """What of a grant went where: the part of the usage, the expiry or the refund that it paid for."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    grant = models.ForeignKey(Grant, on_delete=models.PROTECT, related_name="uses")
    kind = models.CharField(max_length=16, choices=Entry.Kind.choices)
    amount = AmountField(help_text="Negative where it came back.")
    entry = models.ForeignKey(
        Entry, null=True, on_delete=models.PROTECT, db_constraint=False, related_name="+"
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        db_table = "billing_grant_uses"
        ordering = ["created_at", "id"]
        constraints: ClassVar = [
            models.CheckConstraint(condition=~Q(amount=0), name="billing_grant_uses_amount")
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.amount}"
