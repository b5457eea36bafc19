"""What limits read: daily usage by end user, the days of one customer, and the most that a call in flight can come to."""

from django.db import migrations, models

import pricing.fields
from metering.schema import CreateHotTable


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_metering", "0006_alive_writers"),
    ]

    operations = [
        CreateHotTable(
            name="DailyUserUsage",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("customer_id", models.UUIDField()),
                ("period_start", models.DateTimeField()),
                ("day", models.DateField(help_text="UTC day")),
                ("user_id", models.CharField(max_length=256)),
                ("currency", models.CharField(max_length=3)),
                ("events", models.BigIntegerField()),
                ("quantity", pricing.fields.AmountField()),
                ("tokens_total", models.BigIntegerField()),
                ("charge_total", pricing.fields.AmountField()),
            ],
            options={
                "verbose_name_plural": "daily usage by end user",
                "db_table": "daily_user_usage",
                "constraints": [
                    models.UniqueConstraint(
                        fields=["customer_id", "user_id", "period_start", "day"], name="daily_user_usage_key"
                    ),
                ],
            },
            primary_key=["customer_id", "user_id", "period_start", "day"],
            replaces="daily_user_usage_key",
        ),
        migrations.AddField(
            model_name="hold",
            name="charge_most",
            field=pricing.fields.AmountField(
                help_text="the most that it can cost, where a limit asks", null=True
            ),
        ),
        migrations.AddField(
            model_name="hold",
            name="tokens_most",
            field=models.BigIntegerField(help_text="the most that it can use, where a limit asks", null=True),
        ),
        migrations.AddIndex(
            model_name="dailyusage",
            index=models.Index(fields=["customer_id", "day"], name="daily_usage_day"),
        ),
    ]
