"""Events that a rate could still price are listed; and an event names the billing period that it counts in."""

from typing import Any

from django.db import migrations, models

from metering.schema import CreateHotTable

_KEYS = "d.customer_id = e.customer_id and d.feature = e.feature and d.provider = e.provider and d.model = e.model and d.api_key_id = e.api_key_id"
_PERIOD = {
    "postgresql": f"""update usage_events e set period_start = coalesce(
        (select max(d.period_start) from daily_usage d where {_KEYS} and d.period_start <= e.occurred_at
            and d.day = (e.occurred_at at time zone 'UTC')::date),
        date_trunc('month', e.occurred_at at time zone 'UTC') at time zone 'UTC')""",
    "sqlite": f"""update usage_events as e set period_start = coalesce(
        (select max(d.period_start) from daily_usage d where {_KEYS} and d.period_start <= e.occurred_at
            and d.day = date(e.occurred_at)),
        strftime('%%Y-%%m-01 00:00:00', e.occurred_at))""",
}


def _name_the_period(apps: Any, schema_editor: Any) -> None:
    """Of the rows of daily usage that an event can have counted in, the period that began last."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(_PERIOD[schema_editor.connection.vendor], [])


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_metering", "0002_context"),
    ]

    operations = [
        migrations.AddField(
            model_name="usageevent",
            name="period_start",
            field=models.DateTimeField(help_text="of the billing period it counts in", null=True),
        ),
        migrations.RunPython(_name_the_period, migrations.RunPython.noop),
        migrations.AlterField(
            model_name="usageevent",
            name="period_start",
            field=models.DateTimeField(help_text="of the billing period it counts in"),
        ),
        CreateHotTable(
            name="UnpricedEvent",
            primary_key=("customer_id", "event_id"),
            fields=[
                ("event_id", models.UUIDField(primary_key=True, serialize=False)),
                ("customer_id", models.UUIDField()),
                (
                    "created_at",
                    models.DateTimeField(help_text="of the event, which is found by it"),
                ),
                ("occurred_at", models.DateTimeField()),
                ("provider", models.CharField(blank=True, max_length=64)),
                ("model", models.CharField(blank=True, max_length=200)),
                (
                    "missing",
                    models.JSONField(
                        help_text="by price book, the buckets without a rate; none: the model has no rate"
                    ),
                ),
                (
                    "card_version",
                    models.BigIntegerField(
                        help_text="the newest rate card that was asked for a price in vain"
                    ),
                ),
            ],
            options={
                "db_table": "usage_unpriced",
                "indexes": [
                    models.Index(
                        fields=["card_version", "customer_id", "event_id"], name="usage_unpriced_version"
                    )
                ],
            },
        ),
    ]
