"""The tables of metering. The hot ones are made by `metering.schema`: customer first in the key, events by month."""

from django.db import migrations, models

import pricing.fields
from metering.schema import CreateHotTable


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="QuarantinedRow",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("customer_id", models.UUIDField()),
                ("created_at", models.DateTimeField()),
                ("kind", models.CharField(max_length=16)),
                ("reason", models.CharField(max_length=500)),
                ("row", models.TextField(help_text="the row as JSON, mended so that it can be stored")),
            ],
            options={
                "db_table": "usage_quarantine",
            },
        ),
        migrations.CreateModel(
            name="Writer",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                (
                    "seq",
                    models.BigIntegerField(
                        help_text="number of the last applied batch; NULL is refused, which refuses the batch"
                    ),
                ),
                ("beat", models.BigIntegerField(default=0)),
                ("fenced_at", models.DateTimeField(null=True)),
                (
                    "seen_beat",
                    models.BigIntegerField(help_text="the beat at the sweeper's last look", null=True),
                ),
                (
                    "looks",
                    models.IntegerField(default=0, help_text="how many looks in a row saw that same beat"),
                ),
                ("looked_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "usage_writers",
            },
        ),
        CreateHotTable(
            name="DailyUsage",
            primary_key=("customer_id", "period_start", "day", "feature", "provider", "model", "api_key_id"),
            replaces="daily_usage_key",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("customer_id", models.UUIDField()),
                ("period_start", models.DateTimeField()),
                ("day", models.DateField(help_text="UTC day")),
                ("feature", models.CharField(max_length=64)),
                ("provider", models.CharField(blank=True, max_length=64)),
                ("model", models.CharField(blank=True, max_length=200)),
                ("api_key_id", models.UUIDField()),
                ("currency", models.CharField(max_length=3)),
                ("events", models.BigIntegerField()),
                ("quantity", pricing.fields.AmountField()),
                ("tokens_input", models.BigIntegerField()),
                ("tokens_output", models.BigIntegerField()),
                ("tokens_total", models.BigIntegerField()),
                ("cost_total", pricing.fields.AmountField()),
                ("charge_total", pricing.fields.AmountField()),
                ("unpriced_events", models.BigIntegerField()),
                ("estimated_events", models.BigIntegerField()),
            ],
            options={
                "verbose_name_plural": "daily usage",
                "db_table": "daily_usage",
                "constraints": [
                    models.UniqueConstraint(
                        fields=(
                            "customer_id",
                            "period_start",
                            "day",
                            "feature",
                            "provider",
                            "model",
                            "api_key_id",
                        ),
                        name="daily_usage_key",
                    )
                ],
            },
        ),
        CreateHotTable(
            name="Hold",
            primary_key=("customer_id", "id"),
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("customer_id", models.UUIDField()),
                ("writer_id", models.UUIDField()),
                ("created_at", models.DateTimeField()),
                ("period_start", models.DateTimeField()),
                ("amount", pricing.fields.AmountField()),
                ("currency", models.CharField(max_length=3)),
                ("plan", models.CharField(blank=True, max_length=64)),
                ("api_key_id", models.UUIDField()),
                ("api_key_hash", models.CharField(blank=True, max_length=64)),
                ("user_id", models.CharField(blank=True, max_length=256)),
                ("task_type", models.CharField(blank=True, max_length=64)),
                ("endpoint", models.CharField(blank=True, max_length=256)),
                ("method", models.CharField(blank=True, max_length=16)),
                ("feature", models.CharField(blank=True, max_length=64)),
                ("provider", models.CharField(blank=True, max_length=64)),
                ("model", models.CharField(blank=True, max_length=200)),
                ("tokens_input", models.BigIntegerField(null=True)),
                ("request_id", models.CharField(blank=True, max_length=128)),
            ],
            options={
                "db_table": "usage_holds",
                "indexes": [
                    models.Index(fields=["writer_id", "customer_id", "id"], name="usage_holds_writer")
                ],
            },
        ),
        CreateHotTable(
            name="IdempotencyKey",
            primary_key=("customer_id", "key_hash"),
            replaces="idempotency_keys_once",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("customer_id", models.UUIDField()),
                ("key_hash", models.BinaryField(max_length=16)),
                ("payload_hash", models.BinaryField(max_length=16)),
                ("event_id", models.UUIDField()),
                ("occurred_at", models.DateTimeField()),
            ],
            options={
                "db_table": "idempotency_keys",
                "constraints": [
                    models.UniqueConstraint(fields=("customer_id", "key_hash"), name="idempotency_keys_once")
                ],
            },
        ),
        CreateHotTable(
            name="UsageCorrection",
            primary_key=("customer_id", "event_id", "revision"),
            replaces="usage_corrections_once",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("customer_id", models.UUIDField()),
                ("event_id", models.UUIDField()),
                (
                    "revision",
                    models.IntegerField(
                        help_text="1, 2, … for one event; a repeated act finds its revision taken"
                    ),
                ),
                ("created_at", models.DateTimeField()),
                ("reason", models.CharField(max_length=64)),
                ("run", models.UUIDField(help_text="the re-rating that wrote it, if one did", null=True)),
                ("changed", models.JSONField(help_text="names of the columns that differ")),
                ("old", models.JSONField()),
                ("new", models.JSONField()),
                ("period_start", models.DateTimeField()),
                ("day", models.DateField(help_text="the UTC day it counts on")),
                ("feature", models.CharField(max_length=64)),
                ("provider", models.CharField(blank=True, max_length=64)),
                ("model", models.CharField(blank=True, max_length=200)),
                ("api_key_id", models.UUIDField()),
                ("currency", models.CharField(max_length=3)),
                ("events", models.BigIntegerField()),
                ("quantity", pricing.fields.AmountField()),
                ("tokens_input", models.BigIntegerField()),
                ("tokens_output", models.BigIntegerField()),
                ("tokens_total", models.BigIntegerField()),
                ("cost_total", pricing.fields.AmountField()),
                ("charge_total", pricing.fields.AmountField()),
                ("unpriced_events", models.BigIntegerField()),
                ("estimated_events", models.BigIntegerField()),
            ],
            options={
                "db_table": "usage_corrections",
                "indexes": [models.Index(fields=["customer_id", "day"], name="usage_corrections_day")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("customer_id", "event_id", "revision"), name="usage_corrections_once"
                    )
                ],
            },
        ),
        CreateHotTable(
            name="UsageEvent",
            primary_key=("customer_id", "created_at", "id"),
            partition_by="created_at",
            fields=[
                ("id", models.UUIDField(primary_key=True, serialize=False)),
                ("customer_id", models.UUIDField()),
                ("created_at", models.DateTimeField()),
                ("occurred_at", models.DateTimeField()),
                ("late", models.BooleanField()),
                ("api_key_id", models.UUIDField()),
                ("api_key_hash", models.CharField(blank=True, max_length=64)),
                ("user_id", models.CharField(blank=True, max_length=256)),
                ("execution_id", models.CharField(blank=True, max_length=128)),
                ("task_type", models.CharField(blank=True, max_length=64)),
                ("endpoint", models.CharField(blank=True, max_length=256)),
                ("method", models.CharField(blank=True, max_length=16)),
                ("feature", models.CharField(max_length=64)),
                ("quantity", pricing.fields.AmountField()),
                ("tokens_input", models.BigIntegerField(null=True)),
                ("tokens_output", models.BigIntegerField(null=True)),
                ("tokens_total", models.BigIntegerField(null=True)),
                ("buckets", models.JSONField()),
                ("provider", models.CharField(blank=True, max_length=64)),
                ("model", models.CharField(blank=True, max_length=200)),
                ("model_requested", models.CharField(blank=True, max_length=200)),
                ("model_cost_input", pricing.fields.AmountField(null=True)),
                ("model_cost_output", pricing.fields.AmountField(null=True)),
                ("cost_input", pricing.fields.AmountField(null=True)),
                ("cost_output", pricing.fields.AmountField(null=True)),
                ("cost_total", pricing.fields.AmountField(null=True)),
                ("charge_total", pricing.fields.AmountField(null=True)),
                ("currency", models.CharField(max_length=3)),
                ("rate_ids", models.JSONField()),
                ("posting_id", models.UUIDField(null=True)),
                ("execution_time", models.IntegerField(help_text="milliseconds", null=True)),
                ("latency", models.IntegerField(help_text="milliseconds to the first byte", null=True)),
                ("status", models.CharField(max_length=32)),
                ("status_code", models.SmallIntegerField(null=True)),
                ("usage_source", models.CharField(max_length=20)),
                ("pricing_status", models.CharField(max_length=16)),
                ("consistency", models.CharField(max_length=64)),
                ("raw_usage", models.JSONField(null=True)),
                ("extractor", models.CharField(blank=True, max_length=40)),
                ("tags", models.JSONField()),
                ("metadata", models.JSONField()),
                ("idempotency_key", models.CharField(blank=True, max_length=255)),
            ],
            options={
                "db_table": "usage_events",
                "indexes": [
                    models.Index(fields=["customer_id", "occurred_at"], name="usage_events_customer_time"),
                    models.Index(fields=["api_key_hash"], name="usage_events_api_key_hash"),
                    models.Index(fields=["created_at"], name="usage_events_created_at"),
                    models.Index(
                        condition=models.Q(("status", "interrupted")),
                        fields=["customer_id", "execution_id"],
                        name="usage_events_interrupted",
                    ),
                ],
            },
        ),
    ]
