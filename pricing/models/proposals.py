"""What the catalogues say against our rates: the policy of taking it over, each comparison, and each difference found."""

from decimal import Decimal
from typing import Any, ClassVar, Self

import msgspec
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Q

from pricing.compare import Guard
from pricing.conditions import EXACT, Conditions, describe, line_key
from pricing.fields import AmountField
from pricing.models.catalogue import ONE_ROW, PriceBook, Rate
from pricing.money import decimal_string
from pricing.sources import Line

OPEN, APPROVED, REJECTED, OUTDATED, ROLLED_BACK = "open", "approved", "rejected", "outdated", "rolled_back"
BOOK = "cost"  # what providers charge us is what catalogues know; what we charge is ours to say


class SyncPolicy(models.Model):
    """How catalogues are compared with our rates, and what of it may be taken over without a person. One row."""

    id = models.SmallIntegerField(primary_key=True, default=ONE_ROW, editable=False)
    price_map = models.CharField(
        max_length=500,
        blank=True,
        help_text="file or https URL of a price map in LiteLLM's form; empty: only genai-prices",
    )
    providers = models.CharField(
        max_length=500, blank=True, help_text="compared, separated by commas; empty: those we have rates of"
    )
    auto_approve = models.BooleanField(
        default=False,
        help_text="apply what two catalogues agree on, within the bounds below, without a person",
    )
    takes_new = models.BooleanField(default=False, help_text="also prices where we have none")
    change_max = AmountField(
        default=Decimal(10),
        help_text="percent, up or down, within 30 days; what differs more always waits for a person",
    )

    class Meta:
        db_table = "tollgate_sync_policy"
        verbose_name = "policy of catalogue comparison"
        verbose_name_plural = "policy of catalogue comparison"

    def __str__(self) -> str:
        return "applied by policy" if self.auto_approve else "everything waits for a person"

    @classmethod
    def current(cls) -> Self:
        """The row, or the defaults where nobody has set anything."""
        return cls.objects.filter(id=ONE_ROW).first() or cls()

    @property
    def guard(self) -> Guard:
        return Guard(change_max=self.change_max, takes_new=self.takes_new)

    def clean(self) -> None:
        change: Any = self.change_max
        if isinstance(change, Decimal) and not (change.is_finite() and 0 <= change <= 100):
            raise ValidationError({"change_max": "a percentage from 0 to 100"})

    def followed(self) -> frozenset[str]:
        """The providers that are compared."""
        named = frozenset(filter(None, (name.strip().lower() for name in self.providers.split(","))))
        return named or frozenset(
            Rate.objects.filter(book__slug=BOOK).order_by().values_list("provider", flat=True).distinct()
        )


class PriceSync(models.Model):
    """One comparison: which catalogues, and what came of it."""

    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    sources = models.JSONField(default=dict, help_text="catalogue: its version")
    confirmed = models.IntegerField(default=0, help_text="prices that every catalogue confirms")
    opened = models.IntegerField(default=0)
    outdated = models.IntegerField(default=0)
    applied = models.IntegerField(default=0, help_text="by policy")
    problems = models.JSONField(default=list, help_text="what could not be understood; the first 200")

    class Meta:
        db_table = "tollgate_price_syncs"
        verbose_name = "catalogue comparison"
        ordering: ClassVar = ["-started_at"]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M}"


class PriceProposal(models.Model):
    """One difference between a rate of ours and the catalogues. It changes nothing until it is approved."""

    KINDS: ClassVar = [(kind, kind) for kind in ("new", "changed", "disagreement", "withdrawn")]
    STATUSES: ClassVar = [
        (OPEN, "open"), (APPROVED, "approved"), (REJECTED, "rejected"), (OUTDATED, "outdated"),
        (ROLLED_BACK, "rolled back"),
    ]  # fmt: skip

    kind = models.CharField(max_length=16, choices=KINDS)
    status = models.CharField(max_length=16, choices=STATUSES, default=OPEN)
    book = models.ForeignKey(PriceBook, on_delete=models.PROTECT, related_name="+")
    provider = models.CharField(max_length=64)
    model = models.CharField(max_length=200)
    bucket = models.CharField(max_length=64)
    conditions = models.JSONField(default=dict, help_text="those that are set")
    line = models.BigIntegerField(editable=False)
    price = AmountField(null=True, help_text="proposed; empty: there is none to propose")
    per = models.BigIntegerField()
    old_price = AmountField(null=True, help_text="ours when it was found, for as many")
    change_percent = AmountField(null=True)
    rate = models.ForeignKey(
        Rate, on_delete=models.PROTECT, null=True, related_name="+", help_text="ours, which it is about"
    )
    statements = models.JSONField(help_text="[catalogue, its version, its price]")
    guard = models.CharField(max_length=200, blank=True, help_text="why it waits for a person")
    first_seen = models.DateTimeField()
    last_seen = models.DateTimeField()
    decided_at = models.DateTimeField(null=True)
    decided_by = models.CharField(max_length=200, blank=True)
    reason = models.CharField(max_length=500, blank=True)
    effective_from = models.DateTimeField(null=True)
    result = models.ForeignKey(
        Rate, on_delete=models.PROTECT, null=True, related_name="+", help_text="the rate that came of it"
    )

    class Meta:
        db_table = "tollgate_price_proposals"
        ordering: ClassVar = ["provider", "model", "bucket", "-first_seen"]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["line"], condition=Q(status=OPEN), name="tollgate_price_proposals_one_open"
            ),
        ]
        indexes: ClassVar = [models.Index(fields=["status", "line"], name="tollgate_price_proposals_line")]

    def __str__(self) -> str:
        conditions = describe(msgspec.convert(self.conditions, Conditions, strict=False))
        return f"{self.provider}/{self.model} {self.bucket}{f' ({conditions})' if conditions else ''}"

    @property
    def price_text(self) -> str:
        return price_text(self.price)

    @property
    def old_price_text(self) -> str:
        return price_text(self.old_price)

    @property
    def prices(self) -> dict[str, Decimal]:
        """By catalogue, the price that it states; the last where it contradicts itself."""
        return {source: Decimal(price) for source, _, price in self.statements}


def conditions_document(line: Line) -> dict[str, Any]:
    """The conditions that are set, as a document."""
    unset = Conditions()
    said: dict[str, Any] = msgspec.to_builtins(line.conditions)
    return {
        name: value for name, value in said.items() if getattr(line.conditions, name) != getattr(unset, name)
    }


def number_of(book: PriceBook, line: Line) -> int:
    """The number of the line that a rate for it has."""
    return line_key(book.pk, line.provider, line.model, EXACT, line.bucket, line.conditions)


def price_text(price: Decimal | None) -> str:
    return "–" if price is None else decimal_string(price)
