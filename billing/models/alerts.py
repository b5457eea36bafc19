"""Alerts: from which thresholds on a customer wants to hear, which have fired, and the messages that say so."""

from datetime import datetime
from typing import Any, ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import Q

from billing.models.customer import Customer
from metering.ids import uuid7
from pricing import clock
from pricing.fields import AmountField


class Subject(models.TextChoices):
    """What an alert is about."""

    ALLOWANCE = "allowance", "an allowance"
    BUDGET = "budget", "a budget"
    CREDIT = "credit", "the credits"


class AlertThreshold(models.Model):
    """A threshold that one customer wants instead of the default ones of its subject: 80, 90 and 100 percent used."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="alert_thresholds")
    subject = models.CharField(max_length=9, choices=Subject.choices)
    percent = AmountField(
        null=True, blank=True, validators=[MinValueValidator(0)], help_text="Used, of all there is."
    )
    amount = AmountField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="Used so much; of credits: so much is left.",
    )

    class Meta:
        db_table = "billing_alert_thresholds"
        ordering = ["customer", "subject", "percent", "amount"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["customer", "subject", "percent"], name="billing_alert_thresholds_percent"),
            models.UniqueConstraint(fields=["customer", "subject", "amount"], name="billing_alert_thresholds_once"),
            models.CheckConstraint(
                condition=Q(percent__gt=0, amount=None) | Q(percent=None, amount__gte=0), name="billing_alert_thresholds_either"
            ),
            models.CheckConstraint(condition=Q(subject__in=Subject.values), name="billing_alert_thresholds_subject"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return (
            f"{self.subject} {self.percent} %"
            if self.percent is not None
            else f"{self.subject} {self.amount}"
        )

    def clean(self) -> None:
        if (self.percent is None) == (self.amount is None):
            raise ValidationError("Either percent or an amount.")


class Alert(models.Model):
    """A threshold that was reached: once for each period."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="alerts")
    subject = models.CharField(max_length=9, choices=Subject.choices)
    about = models.CharField(max_length=360, help_text="Which of them: a feature, a budget and its end user.")
    threshold = models.CharField(max_length=40, help_text="As in 80% or 5.")
    period_start = models.DateTimeField(help_text="Of credits: when they were last added to.")
    period_end = models.DateTimeField(null=True)
    used = AmountField()
    limit = AmountField()
    exhausted_at = models.DateTimeField(null=True, help_text="At this pace; empty: not in this period.")
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        db_table = "billing_alerts"
        ordering = ["-created_at", "-id"]
        indexes: ClassVar = [models.Index(fields=["customer", "created_at"], name="billing_alerts_by_time")]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["customer", "subject", "about", "threshold", "period_start"],
                name="billing_alerts_once",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.subject} {self.about} {self.threshold}"


class OutboxQuerySet(models.QuerySet["OutboxMessage"]):
    def to_mail(self, at: datetime) -> "OutboxQuerySet":
        """Those whose e-mail is due at `at`."""
        return self.filter(mail_due_at__lte=at)


class OutboxMessage(models.Model):
    """Something that a customer is to be told: written together with the fact, delivered afterwards."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="messages")
    kind = models.CharField(max_length=64, help_text="As in usage.threshold_reached.")
    payload = models.JSONField()
    created_at = models.DateTimeField(default=clock.now, editable=False)
    mail_to = models.EmailField(blank=True)
    mail_subject = models.CharField(max_length=200, blank=True)
    mail_text = models.TextField(blank=True)
    mail_due_at = models.DateTimeField(
        null=True, help_text="Empty: there is nothing to send, or it was sent."
    )
    mail_tries = models.PositiveSmallIntegerField(default=0)
    mailed_at = models.DateTimeField(null=True)
    mail_error = models.CharField(max_length=300, blank=True)

    objects: ClassVar[OutboxQuerySet] = OutboxQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        db_table = "billing_outbox"
        ordering = ["-created_at", "-id"]
        indexes: ClassVar[list[Any]] = [
            models.Index(fields=["customer", "created_at"], name="billing_outbox_by_time"),
            models.Index(
                fields=["mail_due_at"], condition=Q(mail_due_at__isnull=False), name="billing_outbox_to_mail"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"
