"""What opens the door: API keys of customers, and tokens of operators. Kept as SHA-256, shown once, revocable."""

from datetime import datetime
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q

from billing import keys
from billing.models.customer import Customer
from billing.models.plans import limit_field
from metering.ids import uuid7
from pricing import clock


class Revocable(models.Model):
    """A secret that a caller shows. The row knows its digest and its first characters."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    label = models.CharField(max_length=100, blank=True, help_text="What it is for.")
    prefix = models.CharField(max_length=24, editable=False)
    sha256 = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="To the minute.")
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return f"{self.prefix}… {self.label}".strip()

    @property
    def is_live(self) -> bool:
        return self.revoked_at is None

    def keep(self, secret: str) -> None:
        """Take over what may be kept of a secret."""
        self.prefix, self.sha256 = keys.recognisable(secret), keys.digest(secret)

    def revoke(self, at: datetime | None = None) -> bool:
        """End it for ever, seen by every process within 5 seconds. False where it had ended already."""
        at = at or clock.now()
        changed = type(self)._default_manager.filter(pk=self.pk, revoked_at=None).update(revoked_at=at)
        self.refresh_from_db(fields=["revoked_at"])
        return changed == 1


class ApiKey(Revocable):
    """A customer's key for the API that is metered. Its own limits hold beside those of the customer's plan."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="api_keys")
    requests_per_minute = limit_field("With this key. Empty: no limit of its own.")
    tokens_per_minute = limit_field("With this key. Empty: no limit of its own.")
    concurrent_calls = limit_field("Calls in flight at once with this key. Empty: no limit of its own.")

    class Meta:
        db_table = "billing_api_keys"
        verbose_name = "API key"
        ordering = ["-created_at", "id"]
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=(Q(requests_per_minute=None) | Q(requests_per_minute__gte=1))
                & (Q(tokens_per_minute=None) | Q(tokens_per_minute__gte=1))
                & (Q(concurrent_calls=None) | Q(concurrent_calls__gte=1)),
                name="billing_api_keys_limits",
            )
        ]

    @classmethod
    def issue(
        cls, customer: Customer, label: str = "", *, secret: str | None = None, **limits: Any
    ) -> tuple[Self, str]:
        """A new key and its plaintext, which nobody can show again. `limits` are its own (`requests_per_minute` …)."""
        secret = secret or keys.new_secret(keys.API_KEY_START)
        key = cls(customer=customer, label=label, **limits)
        key.keep(secret)
        key.save(force_insert=True)
        return key, secret


class OperatorToken(Revocable):
    """A token for the administrative API: names any customer."""

    class Meta:
        db_table = "billing_operator_tokens"
        ordering = ["-created_at", "id"]

    @classmethod
    def issue(cls, label: str = "", *, secret: str | None = None) -> tuple[Self, str]:
        """A new token and its plaintext, which nobody can show again."""
        secret = secret or keys.new_secret(keys.OPERATOR_TOKEN_START)
        token = cls(label=label)
        token.keep(secret)
        token.save(force_insert=True)
        return token, secret
