"""The tables of metering. Rows of the hot ones are written by `metering.recorder` alone; Django reads them.

Django knows one column as the key of each table. On PostgreSQL the hot tables are made by `metering.schema` with the
customer first in the real primary key and `usage_events` partitioned by month, so that they can be distributed and pruned.
"""

from typing import Any, ClassVar

from django.db import models
from django.db.models import Q

from pricing.fields import AmountField


class ReadOnlyRows(models.Model):
    """A table that Django reads and never writes."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        raise TypeError(f"{type(self).__name__} rows are written by the recorder only")

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise TypeError(f"{type(self).__name__} rows are append-only")


class UsageEvent(ReadOnlyRows):
    """One metered fact, append-only. Unknown is NULL, never zero. Columns: see `metering.rows.EventRow`."""

    id = models.UUIDField(primary_key=True)
    customer_id = models.UUIDField()
    created_at = models.DateTimeField()
    occurred_at = models.DateTimeField()
    period_start = models.DateTimeField(help_text="of the billing period it counts in")
    late = models.BooleanField()
    api_key_id = models.UUIDField()
    api_key_hash = models.CharField(max_length=64, blank=True)
    user_id = models.CharField(max_length=256, blank=True)
    execution_id = models.CharField(max_length=128, blank=True)
    task_type = models.CharField(max_length=64, blank=True)
    endpoint = models.CharField(max_length=256, blank=True)
    method = models.CharField(max_length=16, blank=True)
    feature = models.CharField(max_length=64)
    quantity = AmountField()
    tokens_input = models.BigIntegerField(null=True)
    tokens_output = models.BigIntegerField(null=True)
    tokens_total = models.BigIntegerField(null=True)
    buckets = models.JSONField()
    provider = models.CharField(max_length=64, blank=True)
    model = models.CharField(max_length=200, blank=True)
    model_requested = models.CharField(max_length=200, blank=True)
    model_cost_input = AmountField(null=True)
    model_cost_output = AmountField(null=True)
    cost_input = AmountField(null=True)
    cost_output = AmountField(null=True)
    cost_total = AmountField(null=True)
    charge_total = AmountField(null=True)
    currency = models.CharField(max_length=3)
    rate_ids = models.JSONField()
    posting_id = models.UUIDField(null=True)
    execution_time = models.IntegerField(null=True, help_text="milliseconds")
    latency = models.IntegerField(null=True, help_text="milliseconds to the first byte")
    status = models.CharField(max_length=32)
    status_code = models.SmallIntegerField(null=True)
    usage_source = models.CharField(max_length=20)
    pricing_status = models.CharField(max_length=16)
    consistency = models.CharField(max_length=64)
    raw_usage = models.JSONField(null=True)
    extractor = models.CharField(max_length=40, blank=True)
    context = models.JSONField(
        default=dict, help_text="what else its price depends on: tier, region, batch, parts …"
    )
    tags = models.JSONField()
    metadata = models.JSONField()
    idempotency_key = models.CharField(max_length=255, blank=True)

    class Meta:
        db_table = "usage_events"
        indexes: ClassVar = [
            models.Index(fields=["customer_id", "occurred_at"], name="usage_events_customer_time"),
            models.Index(fields=["api_key_hash"], name="usage_events_api_key_hash"),
            models.Index(fields=["created_at"], name="usage_events_created_at"),
            # finds the swept event of a call that is settled after all
            models.Index(
                fields=["customer_id", "execution_id"],
                condition=models.Q(status="interrupted"),
                name="usage_events_interrupted",
            ),
        ]

    def __str__(self) -> str:
        return str(self.id)


class UnpricedEvent(ReadOnlyRows):
    """An event that a rate could still price, listed with it in one transaction and taken off when it is rated."""

    event_id = models.UUIDField(primary_key=True)
    customer_id = models.UUIDField()
    created_at = models.DateTimeField(help_text="of the event, which is found by it")
    occurred_at = models.DateTimeField()
    provider = models.CharField(max_length=64, blank=True)
    model = models.CharField(max_length=200, blank=True)
    missing = models.JSONField(
        help_text="by price book, the buckets without a rate; none: the model has no rate"
    )
    card_version = models.BigIntegerField(help_text="the newest rate card that was asked for a price in vain")

    class Meta:
        db_table = "usage_unpriced"
        indexes: ClassVar = [
            models.Index(fields=["card_version", "customer_id", "event_id"], name="usage_unpriced_version")
        ]

    def __str__(self) -> str:
        return str(self.event_id)


class UsageSums(ReadOnlyRows):
    """What daily usage adds up, and a correction changes: unknown amounts are left out and counted beside."""

    events = models.BigIntegerField()
    quantity = AmountField()
    tokens_input = models.BigIntegerField()
    tokens_output = models.BigIntegerField()
    tokens_total = models.BigIntegerField()
    cost_total = AmountField()
    charge_total = AmountField()
    unpriced_events = models.BigIntegerField()
    estimated_events = models.BigIntegerField()

    class Meta:
        abstract = True


class UsageCorrection(UsageSums):
    """What became known of an event after it was written. Σ events + Σ corrections = daily usage."""

    id = models.UUIDField(primary_key=True)
    customer_id = models.UUIDField()
    event_id = models.UUIDField()
    revision = models.IntegerField(help_text="1, 2, … for one event; a repeated act finds its revision taken")
    created_at = models.DateTimeField()
    reason = models.CharField(max_length=64)
    run = models.UUIDField(null=True, help_text="the re-rating that wrote it, if one did")
    changed = models.JSONField(help_text="names of the columns that differ")
    old = models.JSONField()
    new = models.JSONField()
    period_start = models.DateTimeField()
    day = models.DateField(help_text="the UTC day it counts on")
    feature = models.CharField(max_length=64)
    provider = models.CharField(max_length=64, blank=True)
    model = models.CharField(max_length=200, blank=True)
    api_key_id = models.UUIDField()
    currency = models.CharField(max_length=3)

    class Meta:
        db_table = "usage_corrections"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["customer_id", "event_id", "revision"], name="usage_corrections_once"
            ),
        ]
        indexes: ClassVar = [
            models.Index(fields=["customer_id", "day"], name="usage_corrections_day"),
            models.Index(fields=["run"], condition=models.Q(run__isnull=False), name="usage_corrections_run"),
        ]

    def __str__(self) -> str:
        return f"{self.event_id} revision {self.revision}"


class Rerating(models.Model):
    """A re-rating that was applied, or is on its way: who asked for what, how far it has come, and what it changed."""

    class State(models.TextChoices):
        RUNNING = "running"
        DONE = "done"

    id = models.UUIDField(primary_key=True)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    started_by = models.CharField(max_length=200)
    reason = models.CharField(max_length=64)
    arguments = models.JSONField(help_text="which events: from, to, customer, provider, model")
    state = models.CharField(max_length=16, choices=State.choices, default=State.RUNNING)
    card_version = models.BigIntegerField(help_text="of the catalogue whose rates it applies")
    events_seen = models.BigIntegerField(default=0)
    events_kept = models.JSONField(default=dict, help_text="how many could not be rated again, by reason")
    events_refused = models.JSONField(
        default=list, help_text="ids of events that the database refuses to correct"
    )
    totals = models.JSONField(default=list, help_text="what it changed, by currency; written when it is done")
    # The last event that it has dealt with; all before it in the order of customer, time and id are done.
    place_customer = models.UUIDField(null=True)
    place_at = models.DateTimeField(null=True)
    place_event = models.UUIDField(null=True)

    class Meta:
        db_table = "usage_reratings"
        verbose_name = "re-rating"

    def __str__(self) -> str:
        return f"{self.reason} ({self.started_at:%Y-%m-%d %H:%M})"


class DailyUsage(UsageSums):
    """Roll-up of events by customer, day, feature, model and key, moved in the event's own transaction.

    A day that holds a period boundary has a row for each period. Sums leave out what is unknown; `unpriced_events` and
    `estimated_events` say how many events that concerns.
    """

    id = models.BigAutoField(primary_key=True)
    customer_id = models.UUIDField()
    period_start = models.DateTimeField()
    day = models.DateField(help_text="UTC day")
    feature = models.CharField(max_length=64)
    provider = models.CharField(max_length=64, blank=True)
    model = models.CharField(max_length=200, blank=True)
    api_key_id = models.UUIDField()
    currency = models.CharField(max_length=3)

    class Meta:
        db_table = "daily_usage"
        verbose_name_plural = "daily usage"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["customer_id", "period_start", "day", "feature", "provider", "model", "api_key_id"],
                name="daily_usage_key",
            ),
        ]
        # a limit that resets with the calendar reads some days of one customer
        indexes: ClassVar = [models.Index(fields=["customer_id", "day"], name="daily_usage_day")]

    def __str__(self) -> str:
        return f"{self.day} {self.feature} {self.model}"


class DailyUserUsage(ReadOnlyRows):
    """Roll-up of the events of one end user by customer and day, moved as daily usage is; of events that name one."""

    id = models.BigAutoField(primary_key=True)
    customer_id = models.UUIDField()
    period_start = models.DateTimeField()
    day = models.DateField(help_text="UTC day")
    user_id = models.CharField(max_length=256)
    currency = models.CharField(max_length=3)
    events = models.BigIntegerField()
    quantity = AmountField()
    tokens_total = models.BigIntegerField()
    charge_total = AmountField()

    class Meta:
        db_table = "daily_user_usage"
        verbose_name_plural = "daily usage by end user"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["customer_id", "user_id", "period_start", "day"], name="daily_user_usage_key"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.day} {self.user_id}"


class Hold(ReadOnlyRows):
    """A call in flight: committed before the upstream is called, deleted by the settle or the sweep that ends it."""

    id = models.UUIDField(primary_key=True)
    customer_id = models.UUIDField()
    writer_id = models.UUIDField()
    created_at = models.DateTimeField()
    period_start = models.DateTimeField()
    amount = AmountField()
    currency = models.CharField(max_length=3)
    plan = models.CharField(max_length=64, blank=True)
    api_key_id = models.UUIDField()
    api_key_hash = models.CharField(max_length=64, blank=True)
    user_id = models.CharField(max_length=256, blank=True)
    task_type = models.CharField(max_length=64, blank=True)
    endpoint = models.CharField(max_length=256, blank=True)
    method = models.CharField(max_length=16, blank=True)
    feature = models.CharField(max_length=64, blank=True)
    provider = models.CharField(max_length=64, blank=True)
    model = models.CharField(max_length=200, blank=True)
    tokens_input = models.BigIntegerField(null=True)
    request_id = models.CharField(max_length=128, blank=True)
    tokens_most = models.BigIntegerField(null=True, help_text="the most that it can use, where a limit asks")
    charge_most = AmountField(null=True, help_text="the most that it can cost, where a limit asks")

    class Meta:
        db_table = "usage_holds"
        indexes: ClassVar = [
            models.Index(fields=["writer_id", "customer_id", "id"], name="usage_holds_writer")
        ]

    def __str__(self) -> str:
        return str(self.id)


class Writer(models.Model):
    """One connection of one process that writes: its last applied batch, its beat, and whether it was declared dead."""

    id = models.UUIDField(primary_key=True)
    seq = models.BigIntegerField(
        help_text="number of the last applied batch; NULL is refused, which refuses the batch"
    )
    beat = models.BigIntegerField(default=0)
    fenced_at = models.DateTimeField(null=True)
    seen_beat = models.BigIntegerField(null=True, help_text="the beat at the sweeper's last look")
    looks = models.IntegerField(default=0, help_text="how many looks in a row saw that same beat")
    looked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "usage_writers"
        indexes: ClassVar = [
            models.Index(fields=["id"], condition=Q(fenced_at=None), name="usage_writers_alive")
        ]

    def __str__(self) -> str:
        return str(self.id)


class QuarantinedRow(models.Model):
    """A row that the database refused, alone, whatever was tried; kept with the reason so that nothing is lost."""

    id = models.UUIDField(primary_key=True)
    customer_id = models.UUIDField()
    created_at = models.DateTimeField()
    kind = models.CharField(max_length=16)
    reason = models.CharField(max_length=500)
    row = models.TextField(help_text="the row as JSON, mended so that it can be stored")

    class Meta:
        db_table = "usage_quarantine"

    def __str__(self) -> str:
        return f"{self.kind} {self.id}"


class IdempotencyKey(models.Model):
    """What an idempotency key stands for; kept for ever (hashes only). The unique key decides between duplicates.

    Of an ingested event it says which one. Of a call, which may have been sent several times under it, the event of the
    attempt that answered, and the most that one attempt came to: see `metering.store.claims`. Of an act over the API, the
    id of what it made. The hashes of the kinds differ, so that one text may name an event, a call and an act.
    """

    id = models.BigAutoField(primary_key=True)
    customer_id = models.UUIDField()
    key_hash = models.BinaryField(max_length=16)
    payload_hash = models.BinaryField(max_length=16)
    event_id = models.UUIDField(null=True, help_text="none as long as no attempt has answered")
    occurred_at = models.DateTimeField()
    charged = AmountField(null=True, help_text="of a call: the dearest attempt so far")
    counted = AmountField(null=True, help_text="of a call: the same of its quantity")

    class Meta:
        db_table = "idempotency_keys"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["customer_id", "key_hash"], name="idempotency_keys_once"),
        ]

    def __str__(self) -> str:
        return f"{self.customer_id} {bytes(self.key_hash).hex()}"
