"""Credits that buy themselves: the rule of a customer, and what was bought by it."""

from typing import ClassVar

from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from billing.models.customer import Customer
from metering.ids import uuid7
from pricing import clock
from pricing.fields import AmountField

COOL_DOWN_S, COOL_DOWN_S_MIN, COOL_DOWN_S_MAX = 600, 60, 86_400


class TopUpRule(models.Model):
    """Below so much, buy so much, but no more than so much in a month of UTC."""

    customer = models.OneToOneField(
        Customer, primary_key=True, on_delete=models.CASCADE, related_name="top_up_rule"
    )
    below = AmountField(validators=[MinValueValidator(0)], help_text="Buy when less than this is available.")
    amount = AmountField(help_text="Buy so much at a time.")
    per_month_max = AmountField(help_text="And no more than so much in a month.")
    cool_down_s = models.PositiveIntegerField(
        default=COOL_DOWN_S,
        validators=[MinValueValidator(COOL_DOWN_S_MIN), MaxValueValidator(COOL_DOWN_S_MAX)],
        help_text="Seconds between two purchases at the least.",
    )
    is_active = models.BooleanField(
        default=True, help_text="Off after three payments in a row were declined."
    )
    updated_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        db_table = "billing_top_up_rules"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(below__gte=0, amount__gt=0), name="billing_top_up_rules_amounts"),
            models.CheckConstraint(condition=Q(per_month_max__gte=F("amount")), name="billing_top_up_rules_month"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"below {self.below} buy {self.amount}"

    def save(self, *args: object, **kwargs: object) -> None:
        self.updated_at = clock.now()
        super().save(*args, **kwargs)  # type: ignore[arg-type]


class TopUp(models.Model):
    """One purchase. While one is pending its customer buys nothing else."""

    class State(models.TextChoices):
        PENDING = "pending"
        PAID = "paid"
        DECLINED = "declined"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="top_ups")
    amount = AmountField()
    currency = models.CharField(max_length=3)
    state = models.CharField(max_length=8, choices=State.choices, default=State.PENDING)
    reference = models.CharField(max_length=255, blank=True, help_text="The payment's, where it was made.")
    detail = models.CharField(max_length=300, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "billing_top_ups"
        ordering = ["-created_at", "-id"]
        indexes: ClassVar = [models.Index(fields=["customer", "created_at"], name="billing_top_ups_by_time")]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["customer"], condition=Q(state="pending"), name="billing_top_ups_one_pending"),
            models.CheckConstraint(condition=Q(state__in=["pending", "paid", "declined"]), name="billing_top_ups_state"),
            models.CheckConstraint(condition=Q(amount__gt=0), name="billing_top_ups_amount"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.amount} {self.currency}, {self.state}"
