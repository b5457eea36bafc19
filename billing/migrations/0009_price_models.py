"""How a plan prices a feature beyond what it includes."""

from typing import Any

import django.core.validators
from django.db import migrations, models

import pricing.fields


def say_how_it_is_priced(apps: Any, schema_editor: Any) -> None:
    """A unit price was all that there was."""
    apps.get_model("tollgate_billing", "PlanFeature").objects.exclude(unit_price=None).update(
        price_model="flat"
    )


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_billing", "0008_top_ups"),
    ]

    operations = [
        migrations.AddField(
            model_name="planfeature",
            name="aggregation",
            field=models.CharField(
                choices=[("sum", "Sum"), ("max", "highest level"), ("last", "last level")],
                default="sum",
                help_text="Levels, as of storage, are not summed.",
                max_length=4,
            ),
        ),
        migrations.AddField(
            model_name="planfeature",
            name="maximum",
            field=pricing.fields.AmountField(
                blank=True,
                help_text="Per billing period.",
                null=True,
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
        migrations.AddField(
            model_name="planfeature",
            name="minimum",
            field=pricing.fields.AmountField(
                blank=True,
                help_text="Per billing period.",
                null=True,
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
        migrations.AddField(
            model_name="planfeature",
            name="package_size",
            field=pricing.fields.AmountField(blank=True, help_text="How many are a package.", null=True),
        ),
        migrations.AddField(
            model_name="planfeature",
            name="percent",
            field=pricing.fields.AmountField(
                blank=True,
                help_text="Of what it cost, 120 is 20 % on top.",
                null=True,
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
        migrations.AddField(
            model_name="planfeature",
            name="price_model",
            field=models.CharField(
                choices=[
                    ("book", "as the price book says, event by event"),
                    ("flat", "each at the unit price"),
                    ("graduated", "each part at the price of its tier"),
                    ("volume", "all at the price of the tier that is reached"),
                    ("package", "by started packages"),
                    ("percentage", "a percentage of what it cost"),
                ],
                default="book",
                help_text="Beyond what is included.",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="planfeature",
            name="tiers",
            field=models.JSONField(
                blank=True,
                default=list,
                help_text='Graduated and volume: [{"up_to": "100", "unit_price": "0.05", "flat_fee": "0"}, {"up_to": null, …}].',
            ),
        ),
        migrations.AlterField(
            model_name="planfeature",
            name="unit_price",
            field=pricing.fields.AmountField(
                blank=True,
                help_text="Flat: of one. Package: of a package. Percentage: of one, beside the percentage.",
                null=True,
                validators=[django.core.validators.MinValueValidator(0)],
            ),
        ),
        migrations.RunPython(say_how_it_is_priced, migrations.RunPython.noop),
        migrations.AddConstraint(
            model_name="planfeature",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("price_model__in", ["book", "graduated", "volume"]),
                    models.Q(("price_model", "flat"), ("unit_price__gte", 0)),
                    models.Q(("package_size__gt", 0), ("price_model", "package"), ("unit_price__gte", 0)),
                    models.Q(("percent__gte", 0), ("price_model", "percentage")),
                    _connector="OR",
                ),
                name="billing_plan_features_model",
            ),
        ),
        migrations.AddConstraint(
            model_name="planfeature",
            constraint=models.CheckConstraint(
                condition=models.Q(("aggregation__in", ["sum", "max", "last"])),
                name="billing_plan_features_aggregation",
            ),
        ),
        migrations.AddConstraint(
            model_name="planfeature",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("minimum", None), ("minimum__gte", 0), _connector="OR"),
                    models.Q(("maximum", None), ("maximum__gte", 0), _connector="OR"),
                    models.Q(
                        ("minimum", None),
                        ("maximum", None),
                        ("maximum__gte", models.F("minimum")),
                        _connector="OR",
                    ),
                ),
                name="billing_plan_features_bounds",
            ),
        ),
    ]
