"""Budgets, and what single customers get instead of what their plans allow."""

import django.core.validators
import django.db.models.deletion
from django.db import migrations, models

import metering.ids
import pricing.clock
import pricing.fields


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_billing", "0004_plans"),
    ]

    operations = [
        migrations.CreateModel(
            name="Budget",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(blank=True, max_length=100)),
                (
                    "scope",
                    models.CharField(
                        choices=[
                            ("customer", "the customer"),
                            ("api_key", "one API key"),
                            ("end_user", "end users"),
                        ],
                        default="customer",
                        max_length=8,
                    ),
                ),
                (
                    "user_id",
                    models.CharField(
                        blank=True,
                        help_text="Where it is end users': whose. Empty: so much for each of them.",
                        max_length=256,
                    ),
                ),
                (
                    "measure",
                    models.CharField(
                        choices=[("money", "Money"), ("tokens", "Tokens")], default="money", max_length=6
                    ),
                ),
                (
                    "amount",
                    pricing.fields.AmountField(
                        help_text="In the customer's currency, or in tokens.",
                        validators=[django.core.validators.MinValueValidator(0)],
                    ),
                ),
                (
                    "hard",
                    models.BooleanField(
                        default=False, help_text="On: calls beyond it are refused. Off: it only alerts."
                    ),
                ),
                (
                    "reset_period",
                    models.CharField(
                        choices=[
                            ("day", "Day"),
                            ("week", "Week"),
                            ("month", "Month"),
                            ("billing", "billing period"),
                        ],
                        default="month",
                        max_length=8,
                    ),
                ),
                (
                    "by_operator",
                    models.BooleanField(
                        default=True,
                        editable=False,
                        help_text="On: the customer cannot end it.",
                        verbose_name="set by us",
                    ),
                ),
                ("created_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
                (
                    "ended_at",
                    models.DateTimeField(blank=True, editable=False, help_text="Empty: it holds.", null=True),
                ),
                (
                    "api_key",
                    models.ForeignKey(
                        blank=True,
                        help_text="Where it is one key's.",
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        to="tollgate_billing.apikey",
                    ),
                ),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="budgets",
                        to="tollgate_billing.customer",
                    ),
                ),
            ],
            options={
                "db_table": "billing_budgets",
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(
                        condition=models.Q(("ended_at", None)),
                        fields=["customer"],
                        name="billing_budgets_running",
                    )
                ],
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("amount__gte", 0)), name="billing_budgets_amount"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("measure__in", ["money", "tokens"])),
                        name="billing_budgets_measure",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("reset_period__in", ["day", "week", "month", "billing"])),
                        name="billing_budgets_reset",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("api_key", None), ("scope", "customer"), ("user_id", "")),
                            models.Q(("api_key__isnull", False), ("scope", "api_key"), ("user_id", "")),
                            models.Q(("api_key", None), ("scope", "end_user")),
                            _connector="OR",
                        ),
                        name="billing_budgets_scope",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="QuotaOverride",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("feature", models.CharField(help_text="As in api_calls.", max_length=64)),
                (
                    "included",
                    pricing.fields.AmountField(
                        blank=True,
                        help_text="Empty: unlimited.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(0)],
                    ),
                ),
                (
                    "hard",
                    models.BooleanField(
                        default=False, help_text="On: calls beyond what is included are refused."
                    ),
                ),
                (
                    "reset_period",
                    models.CharField(
                        choices=[
                            ("day", "Day"),
                            ("week", "Week"),
                            ("month", "Month"),
                            ("billing", "billing period"),
                        ],
                        default="billing",
                        max_length=8,
                    ),
                ),
                (
                    "unit_price",
                    pricing.fields.AmountField(
                        blank=True,
                        help_text="Beyond what is included.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(0)],
                    ),
                ),
                ("updated_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="quota_overrides",
                        to="tollgate_billing.customer",
                    ),
                ),
            ],
            options={
                "db_table": "billing_quota_overrides",
                "ordering": ["customer", "feature"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("customer", "feature"), name="billing_quota_overrides_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("feature", ""), _negated=True),
                        name="billing_quota_overrides_named",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("included", None), ("included__gte", 0), _connector="OR"),
                        name="billing_quota_overrides_included",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("unit_price", None), ("unit_price__gte", 0), _connector="OR"),
                        name="billing_quota_overrides_price",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("reset_period__in", ["day", "week", "month", "billing"])),
                        name="billing_quota_overrides_reset",
                    ),
                ],
            },
        ),
    ]
