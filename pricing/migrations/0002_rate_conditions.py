"""Conditions of rates, and the number of the line that each rate continues."""

from typing import Any

import django.db.models.deletion
from django.db import migrations, models

from pricing.conditions import EXACT, Conditions, line_key


def number_lines(apps: Any, schema_editor: Any) -> None:
    """Rates that are there already have one condition at most, the length of the context."""
    rates = apps.get_model("tollgate_pricing", "Rate").objects.using(schema_editor.connection.alias)
    for rate in rates.iterator():
        conditions = Conditions(input_above=rate.input_above)
        number = line_key(rate.book_id, rate.provider, rate.model, EXACT, rate.bucket, conditions)
        rates.filter(pk=rate.pk).update(line=number)


class Migration(migrations.Migration):
    dependencies = [("tollgate_pricing", "0001_initial")]

    operations = [
        migrations.RemoveConstraint(model_name="rate", name="tollgate_rates_once"),
        migrations.AddField(
            model_name="rate",
            name="match",
            field=models.CharField(
                choices=[("exact", "exact name"), ("prefix", "beginning of a name")],
                default="exact",
                max_length=8,
            ),
        ),
        migrations.AddField(
            model_name="rate",
            name="byok",
            field=models.BooleanField(
                default=False,
                help_text="only for calls that the caller's own upstream key pays for",
                verbose_name="own key",
            ),
        ),
        migrations.AddField(
            model_name="rate",
            name="batch",
            field=models.BooleanField(default=False, help_text="only for calls of a batch"),
        ),
        migrations.AddField(
            model_name="rate",
            name="service_tier",
            field=models.CharField(
                blank=True,
                default="",
                help_text="flex, priority, …; empty: any, here and below",
                max_length=32,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="rate",
            name="speed",
            field=models.CharField(blank=True, default="", help_text="fast, …", max_length=32),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="rate",
            name="region",
            field=models.CharField(blank=True, default="", help_text="us, eu, …", max_length=32),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="rate",
            name="weekdays",
            field=models.CharField(blank=True, default="", help_text="mon,tue or mon-fri", max_length=27),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="rate",
            name="time_from",
            field=models.TimeField(blank=True, help_text="of the day; may be later than its end", null=True),
        ),
        migrations.AddField(
            model_name="rate",
            name="time_to",
            field=models.TimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name="rate",
            name="time_zone",
            field=models.CharField(
                blank=True,
                default="",
                help_text="by whose clock, with weekdays or times: Asia/Shanghai",
                max_length=64,
            ),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="rate",
            name="line",
            field=models.BigIntegerField(default=0, editable=False),
            preserve_default=False,
        ),
        migrations.AddField(
            model_name="rate",
            name="revision",
            field=models.PositiveSmallIntegerField(
                default=0,
                editable=False,
                help_text="of rates of one line that hold at the same time the highest counts",
            ),
        ),
        migrations.AddField(
            model_name="rate",
            name="corrects",
            field=models.ForeignKey(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="corrected_by",
                to="tollgate_pricing.rate",
            ),
        ),
        migrations.AlterField(
            model_name="rate",
            name="bucket",
            field=models.CharField(
                help_text="in_uncached, in_cache_read, out_visible, web_search, request, …", max_length=64
            ),
        ),
        migrations.RunPython(number_lines, migrations.RunPython.noop),
        migrations.AddConstraint(
            model_name="rate",
            constraint=models.UniqueConstraint(
                fields=("line", "revision", "effective_from"), name="tollgate_rates_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="rate",
            constraint=models.CheckConstraint(
                condition=models.Q(("match__in", ["exact", "prefix"])), name="tollgate_rates_match"
            ),
        ),
    ]
