"""Which plan a customer is on, and since when."""

from datetime import datetime
from typing import ClassVar, cast

from django.db import models
from django.db.models import F, Q

from billing import periods
from billing.models.customer import Customer
from billing.models.plans import PlanVersion
from metering.ids import uuid7
from pricing import clock


class SubscriptionQuerySet(models.QuerySet["Subscription"]):
    def running(self) -> "SubscriptionQuerySet":
        return self.filter(ended_at=None)

    def running_at(self, at: datetime) -> "SubscriptionQuerySet":
        return self.filter(Q(ended_at=None) | Q(ended_at__gt=at), started_at__lte=at)


class Subscription(models.Model):
    """A customer's time on one version of a plan, `[started_at, ended_at)`. At most one of a customer's runs."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    customer = models.ForeignKey(Customer, on_delete=models.PROTECT, related_name="subscriptions")
    plan_version = models.ForeignKey(PlanVersion, on_delete=models.PROTECT, related_name="subscriptions")
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True, help_text="Empty: it runs.")
    anchor = models.DateTimeField(help_text="Where its periods start to be counted.")
    trial_ends_at = models.DateTimeField(null=True, blank=True, help_text="Until then there is no base fee.")
    changes_at = models.DateTimeField(
        null=True, blank=True, help_text="When it ends by arrangement, or gives way to another."
    )
    changes_to = models.ForeignKey(
        PlanVersion,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="+",
        help_text="Empty: it just ends.",
    )
    created_at = models.DateTimeField(default=clock.now, editable=False)

    objects: ClassVar[SubscriptionQuerySet] = SubscriptionQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        db_table = "billing_subscriptions"
        ordering = ["-created_at", "-id"]
        indexes: ClassVar = [
            models.Index(fields=["customer", "started_at"], name="billing_subscriptions_time"),
            models.Index(
                fields=["changes_at"],
                condition=Q(ended_at=None, changes_at__isnull=False),
                name="billing_subscriptions_due",
            ),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["customer"], condition=Q(ended_at=None), name="billing_subscriptions_one_runs"),
            models.CheckConstraint(condition=Q(ended_at=None) | Q(ended_at__gt=F("started_at")), name="billing_subscriptions_end"),
            models.CheckConstraint(condition=Q(changes_to=None) | Q(changes_at__isnull=False), name="billing_subscriptions_change"),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.customer} on {self.plan_version}"

    def period_at(self, at: datetime) -> periods.Period:
        """The billing period that the instant `at` lies in."""
        return periods.period_at(self.anchor, cast(periods.Interval, self.plan_version.interval), at)
