"""The customer, the organisation that pays, and the people who belong to it."""

import re
from datetime import UTC, datetime
from typing import ClassVar
from uuid import UUID

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models

from billing import periods
from metering.ids import uuid7
from metering.models import DailyUsage
from pricing import clock
from pricing.fields import AmountField

# Words that stand in a path where a customer may stand, so no customer can be called so.
RESERVED_NAMES = frozenset({"track", "check", "events", "health"})
_EXTERNAL_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:@-]*\Z")
_CURRENCY = re.compile(r"[A-Z]{3}\Z")


def check_external_id(value: str) -> None:
    """Raise ValidationError unless `value` can stand in a path and is not a word that already means something there."""
    if not _EXTERNAL_ID.match(value):
        raise ValidationError("Use letters, digits and . _ : @ - only, and start with a letter or a digit.")
    if value.lower() in RESERVED_NAMES:
        raise ValidationError(f"{value!r} is a word of the API.")


def check_currency(value: str) -> None:
    """Raise ValidationError unless `value` looks like an ISO 4217 code."""
    if not _CURRENCY.match(value):
        raise ValidationError("Three capital letters, as in USD.")


def default_currency() -> str:
    return str(getattr(settings, "TOLLGATE", {}).get("CURRENCY", "USD"))


def anchor_of(came_at: datetime) -> datetime:
    """Where the periods of a customer without a subscription start to be counted: the month in which it came."""
    return came_at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


class CustomerQuerySet(models.QuerySet["Customer"]):
    def named(self, name: str) -> "Customer | None":
        """The customer whose id (UUID) or external id is `name`; None where there is none."""
        try:
            return self.filter(pk=UUID(name)).first() or self.filter(external_id=name).first()
        except ValueError:
            return self.filter(external_id=name).first()


class Customer(models.Model):
    """Who pays. Usage names it by value (`customer_id`), so it outlives the row."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    external_id = models.CharField(
        max_length=100,
        unique=True,
        validators=[check_external_id],
        help_text="Your own name for it, as in org-123.",
    )
    name = models.CharField(max_length=200)
    company = models.CharField(max_length=200, blank=True)
    email = models.EmailField(blank=True)
    is_active = models.BooleanField(default=True, help_text="Off: its calls are refused within 5 seconds.")
    blocks_unpriced = models.BooleanField(
        "block unpriced models", default=False, help_text="On: calls to a model without a price are refused."
    )
    payment_overdue = models.BooleanField(default=False)
    in_overage = models.BooleanField(default=False)
    stripe_customer_id = models.CharField(max_length=255, blank=True, db_index=True)
    currency = models.CharField(max_length=3, default=default_currency, validators=[check_currency])
    tax_country = models.CharField(max_length=2, blank=True, help_text="ISO 3166, as in DE.")
    tax_id = models.CharField("tax number", max_length=64, blank=True)
    tax_exempt = models.BooleanField(default=False)
    tax_percent = AmountField(
        default=0, validators=[MinValueValidator(0)], help_text="Of each line of an invoice, as in 19."
    )
    tax_inclusive = models.BooleanField(default=False, help_text="On: prices hold the tax already.")
    billed_until = models.DateTimeField(
        null=True,
        blank=True,
        editable=False,
        db_index=True,
        help_text="What came before is on an invoice, or came to nothing.",
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)
    updated_at = models.DateTimeField(default=clock.now, editable=False)

    objects: ClassVar[CustomerQuerySet] = CustomerQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        db_table = "billing_customers"
        ordering = ["name", "id"]

    def __str__(self) -> str:
        return f"{self.name} ({self.external_id})"

    def save(self, *args: object, **kwargs: object) -> None:
        self.updated_at = clock.now()
        super().save(*args, **kwargs)  # type: ignore[arg-type]

    def clean(self) -> None:
        if self._state.adding:
            return
        before = type(self)._default_manager.filter(pk=self.pk).values_list("currency", flat=True).first()
        if before != self.currency and self.has_money:
            raise ValidationError({"currency": f"It stays {before}: money is kept or agreed upon in it."})

    @property
    def period_anchor(self) -> datetime:
        """Where its periods start to be counted while it has no subscription."""
        return anchor_of(self.created_at)

    def period_at(self, at: datetime) -> periods.Period:
        """The billing period that the instant `at` lies in: of the subscription that ran then, else the month."""
        subscription = self.subscriptions.running_at(at).select_related("plan_version").first()
        if subscription is not None:
            return subscription.period_at(at)
        return self.month_of(at)

    @property
    def has_money(self) -> bool:
        """Whether money is kept or agreed upon in its currency: a balance, a subscription, a budget, or usage, of which a day
        is one sum."""
        agreed = hasattr(self, "balance") or self.subscriptions.exists() or self.budgets.exists()
        return agreed or DailyUsage.objects.filter(customer_id=self.pk).exists()

    def month_of(self, at: datetime) -> periods.Period:
        """The period of `at` while it has no subscription."""
        return periods.period_at(self.period_anchor, "month", at)


class Membership(models.Model):
    """A person's part in a customer."""

    class Role(models.TextChoices):
        OWNER = "owner"
        ADMIN = "admin"
        MEMBER = "member"
        VIEWER = "viewer"

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="memberships")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices, default=Role.MEMBER)
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        db_table = "billing_memberships"
        constraints = [models.UniqueConstraint(fields=["customer", "user"], name="billing_membership_once")]

    def __str__(self) -> str:
        return f"{self.user}, {self.role} of {self.customer}"
