"""Limits of one customer: what it gets instead of its plan's allowance, and its budgets."""

from datetime import datetime
from typing import ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from billing import features
from billing.models.access import ApiKey
from billing.models.customer import Customer
from billing.models.plans import PlanFeature
from metering.ids import uuid7
from pricing import clock
from pricing.fields import AmountField

RESETS = ["day", "week", "month", "billing"]


class QuotaOverride(models.Model):
    """What one customer gets of a feature, whatever its plan says."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="quota_overrides")
    feature = models.CharField(max_length=64, help_text="As in api_calls.")
    included = AmountField(
        null=True, blank=True, validators=[MinValueValidator(0)], help_text="Empty: unlimited."
    )
    hard = models.BooleanField(default=False, help_text="On: calls beyond what is included are refused.")
    reset_period = models.CharField(
        max_length=8, choices=PlanFeature.Reset.choices, default=PlanFeature.Reset.BILLING
    )
    unit_price = AmountField(
        null=True, blank=True, validators=[MinValueValidator(0)], help_text="Beyond what is included."
    )
    updated_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        db_table = "billing_quota_overrides"
        ordering = ["customer", "feature"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["customer", "feature"], name="billing_quota_overrides_once"),
            models.CheckConstraint(condition=~Q(feature=""), name="billing_quota_overrides_named"),
            models.CheckConstraint(condition=Q(included=None) | Q(included__gte=0), name="billing_quota_overrides_included"),
            models.CheckConstraint(condition=Q(unit_price=None) | Q(unit_price__gte=0), name="billing_quota_overrides_price"),
            models.CheckConstraint(condition=Q(reset_period__in=RESETS), name="billing_quota_overrides_reset"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.feature} of {self.customer}"

    def save(self, *args: object, **kwargs: object) -> None:
        self.updated_at = clock.now()
        super().save(*args, **kwargs)  # type: ignore[arg-type]

    def clean(self) -> None:
        self.feature = features.canonical(self.feature)


class BudgetQuerySet(models.QuerySet["Budget"]):
    def running(self) -> "BudgetQuerySet":
        return self.filter(ended_at=None)

    def end(self, at: datetime) -> int:
        """End those of them that run; how many did. Calls are held by them no longer within 5 seconds."""
        return self.running().update(ended_at=at)


class Budget(models.Model):
    """So much money or so many tokens a period: of a customer, of one of its keys, or of its end users."""

    class Scope(models.TextChoices):
        CUSTOMER = "customer", "the customer"
        API_KEY = "api_key", "one API key"
        END_USER = "end_user", "end users"

    class Measure(models.TextChoices):
        MONEY = "money"
        TOKENS = "tokens"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="budgets")
    name = models.CharField(max_length=100, blank=True)
    scope = models.CharField(max_length=8, choices=Scope.choices, default=Scope.CUSTOMER)
    api_key = models.ForeignKey(
        ApiKey, null=True, blank=True, on_delete=models.CASCADE, help_text="Where it is one key's."
    )
    user_id = models.CharField(
        max_length=256,
        blank=True,
        help_text="Where it is end users': whose. Empty: so much for each of them.",
    )
    measure = models.CharField(max_length=6, choices=Measure.choices, default=Measure.MONEY)
    amount = AmountField(
        validators=[MinValueValidator(0)], help_text="In the customer's currency, or in tokens."
    )
    hard = models.BooleanField(
        default=False, help_text="On: calls beyond it are refused. Off: it only alerts."
    )
    reset_period = models.CharField(
        max_length=8, choices=PlanFeature.Reset.choices, default=PlanFeature.Reset.MONTH
    )
    by_operator = models.BooleanField(
        "set by us", default=True, editable=False, help_text="On: the customer cannot end it."
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)
    ended_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="Empty: it holds.")

    objects: ClassVar[BudgetQuerySet] = BudgetQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        db_table = "billing_budgets"
        ordering = ["-created_at", "-id"]
        indexes: ClassVar = [
            models.Index(fields=["customer"], condition=Q(ended_at=None), name="billing_budgets_running")
        ]
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(amount__gte=0), name="billing_budgets_amount"),
            models.CheckConstraint(condition=Q(measure__in=["money", "tokens"]), name="billing_budgets_measure"),
            models.CheckConstraint(condition=Q(reset_period__in=RESETS), name="billing_budgets_reset"),
            models.CheckConstraint(
                condition=Q(scope="customer", api_key=None, user_id="") | Q(scope="api_key", api_key__isnull=False, user_id="")
                    | Q(scope="end_user", api_key=None),
                name="billing_budgets_scope",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.name or f"{self.amount.normalize():f} {self.unit} a {self.reset_period}"

    @property
    def unit(self) -> str:
        """What its amount counts."""
        return self.customer.currency if self.measure == self.Measure.MONEY else "tokens"

    def clean(self) -> None:
        if (self.scope == self.Scope.API_KEY) != (self.api_key_id is not None):
            raise ValidationError(
                {"api_key": "A key is named where the budget is one key's, and only there."}
            )
        if self.user_id and self.scope != self.Scope.END_USER:
            raise ValidationError({"user_id": "An end user is named only where the budget is end users'."})
        if self.api_key is not None and self.api_key.customer_id != self.customer_id:
            raise ValidationError({"api_key": "This is another customer's key."})
