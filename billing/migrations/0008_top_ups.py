"""Rules by which credits buy themselves, and what was bought."""

import django.core.validators
import django.db.models.deletion
from django.db import migrations, models

import metering.ids
import pricing.clock
import pricing.fields


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_billing", "0007_key_limits"),
    ]

    operations = [
        migrations.CreateModel(
            name="TopUpRule",
            fields=[
                (
                    "customer",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="top_up_rule",
                        serialize=False,
                        to="tollgate_billing.customer",
                    ),
                ),
                (
                    "below",
                    pricing.fields.AmountField(
                        help_text="Buy when less than this is available.",
                        validators=[django.core.validators.MinValueValidator(0)],
                    ),
                ),
                ("amount", pricing.fields.AmountField(help_text="Buy so much at a time.")),
                (
                    "per_month_max",
                    pricing.fields.AmountField(help_text="And no more than so much in a month."),
                ),
                (
                    "cool_down_s",
                    models.PositiveIntegerField(
                        default=600,
                        help_text="Seconds between two purchases at the least.",
                        validators=[
                            django.core.validators.MinValueValidator(60),
                            django.core.validators.MaxValueValidator(86400),
                        ],
                    ),
                ),
                (
                    "is_active",
                    models.BooleanField(
                        default=True, help_text="Off after three payments in a row were declined."
                    ),
                ),
                ("updated_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
            ],
            options={
                "db_table": "billing_top_up_rules",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount__gt", 0), ("below__gte", 0)),
                        name="billing_top_up_rules_amounts",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("per_month_max__gte", models.F("amount"))),
                        name="billing_top_up_rules_month",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="TopUp",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("amount", pricing.fields.AmountField()),
                ("currency", models.CharField(max_length=3)),
                (
                    "state",
                    models.CharField(
                        choices=[("pending", "Pending"), ("paid", "Paid"), ("declined", "Declined")],
                        default="pending",
                        max_length=8,
                    ),
                ),
                (
                    "reference",
                    models.CharField(
                        blank=True, help_text="The payment's, where it was made.", max_length=255
                    ),
                ),
                ("detail", models.CharField(blank=True, max_length=300)),
                ("created_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
                ("finished_at", models.DateTimeField(null=True)),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="top_ups",
                        to="tollgate_billing.customer",
                    ),
                ),
            ],
            options={
                "db_table": "billing_top_ups",
                "ordering": ["-created_at", "-id"],
                "indexes": [models.Index(fields=["customer", "created_at"], name="billing_top_ups_by_time")],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("state", "pending")),
                        fields=("customer",),
                        name="billing_top_ups_one_pending",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("state__in", ["pending", "paid", "declined"])),
                        name="billing_top_ups_state",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("amount__gt", 0)), name="billing_top_ups_amount"
                    ),
                ],
            },
        ),
    ]
