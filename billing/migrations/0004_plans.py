"""Plans in versions, what they include, and who subscribed to which."""

import django.core.validators
import django.db.models.deletion
from django.db import migrations, models

import billing.models.customer
import metering.ids
import pricing.clock
import pricing.fields


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_billing", "0003_ledger"),
    ]

    operations = [
        migrations.CreateModel(
            name="Plan",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("slug", models.SlugField(help_text="Its name in the API, as in payg.", unique=True)),
                ("name", models.CharField(max_length=100)),
                ("description", models.CharField(blank=True, max_length=500)),
                ("is_public", models.BooleanField(default=True, help_text="Whether customers are shown it.")),
                ("created_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
            ],
            options={
                "db_table": "billing_plans",
                "ordering": ["slug"],
            },
        ),
        migrations.CreateModel(
            name="PlanVersion",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "number",
                    models.PositiveIntegerField(validators=[django.core.validators.MinValueValidator(1)]),
                ),
                (
                    "published_at",
                    models.DateTimeField(blank=True, editable=False, help_text="Empty: a draft.", null=True),
                ),
                (
                    "currency",
                    models.CharField(
                        default=billing.models.customer.default_currency,
                        max_length=3,
                        validators=[billing.models.customer.check_currency],
                    ),
                ),
                (
                    "base_fee",
                    pricing.fields.AmountField(
                        default=0,
                        help_text="Per interval.",
                        validators=[django.core.validators.MinValueValidator(0)],
                    ),
                ),
                (
                    "interval",
                    models.CharField(
                        choices=[
                            ("day", "day"),
                            ("week", "week"),
                            ("month", "month"),
                            ("quarter", "quarter"),
                            ("year", "year"),
                        ],
                        default="month",
                        max_length=8,
                    ),
                ),
                (
                    "trial_days",
                    models.PositiveSmallIntegerField(
                        default=0, validators=[django.core.validators.MaxValueValidator(730)]
                    ),
                ),
                (
                    "charging",
                    models.CharField(
                        choices=[
                            ("arrear", "monthly in arrear"),
                            ("real_time", "per call"),
                            ("prepaid", "from credits"),
                        ],
                        default="arrear",
                        max_length=10,
                    ),
                ),
                (
                    "hard_credits",
                    models.BooleanField(
                        default=False,
                        help_text="On: a call that the credits do not cover is refused. Always on with credits.",
                    ),
                ),
                (
                    "when_short",
                    models.CharField(
                        choices=[("refuse", "refuse the call"), ("cap", "lower max_tokens to what fits")],
                        default="refuse",
                        help_text="What a hard limit does.",
                        max_length=6,
                    ),
                ),
                (
                    "outage",
                    models.CharField(
                        choices=[("open", "let calls through"), ("closed", "refuse calls")],
                        default="open",
                        help_text="While the database is away.",
                        max_length=6,
                    ),
                ),
                (
                    "shows_cost",
                    models.BooleanField(
                        default=False,
                        help_text="Whether the customer sees what the provider charges us.",
                        verbose_name="shows cost",
                    ),
                ),
                (
                    "blocks_unpriced",
                    models.BooleanField(
                        default=False,
                        help_text="On: calls to a model without a price are refused.",
                        verbose_name="block unpriced models",
                    ),
                ),
                (
                    "cost_book",
                    models.SlugField(
                        default="cost", help_text="Price book.", max_length=64, verbose_name="cost book"
                    ),
                ),
                (
                    "list_book",
                    models.SlugField(
                        default="list", help_text="Price book.", max_length=64, verbose_name="list book"
                    ),
                ),
                (
                    "requests_per_minute",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Empty: no limit.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
                (
                    "tokens_per_minute",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Empty: no limit.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
                (
                    "concurrent_calls",
                    models.PositiveIntegerField(
                        blank=True,
                        help_text="Calls in flight at once. Empty: no limit.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(1)],
                    ),
                ),
                ("created_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
                (
                    "plan",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="versions",
                        to="tollgate_billing.plan",
                    ),
                ),
            ],
            options={
                "db_table": "billing_plan_versions",
                "ordering": ["plan__slug", "-number"],
                "constraints": [
                    models.UniqueConstraint(fields=("plan", "number"), name="billing_plan_versions_number"),
                    models.CheckConstraint(
                        condition=models.Q(("number__gte", 1)), name="billing_plan_versions_from_one"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("base_fee__gte", 0)), name="billing_plan_versions_fee"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("trial_days__lte", 730)), name="billing_plan_versions_trial"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("interval__in", ("day", "week", "month", "quarter", "year"))),
                        name="billing_plan_versions_interval",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("charging__in", ["arrear", "real_time", "prepaid"])),
                        name="billing_plan_versions_charging",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("charging", "prepaid"), _negated=True),
                            ("hard_credits", True),
                            _connector="OR",
                        ),
                        name="billing_plan_versions_hard",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("when_short__in", ["refuse", "cap"])),
                        name="billing_plan_versions_when_short",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("outage__in", ["open", "closed"])),
                        name="billing_plan_versions_outage",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("cost_book", ""), _negated=True),
                            models.Q(("list_book", ""), _negated=True),
                        ),
                        name="billing_plan_versions_books",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(
                                ("requests_per_minute", None),
                                ("requests_per_minute__gte", 1),
                                _connector="OR",
                            ),
                            models.Q(
                                ("tokens_per_minute", None), ("tokens_per_minute__gte", 1), _connector="OR"
                            ),
                            models.Q(
                                ("concurrent_calls", None), ("concurrent_calls__gte", 1), _connector="OR"
                            ),
                        ),
                        name="billing_plan_versions_limits",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PlanFeature",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("feature", models.CharField(help_text="As in api_calls.", max_length=64)),
                ("display_name", models.CharField(max_length=100)),
                ("unit", models.CharField(help_text="One of what is counted, as in call.", max_length=32)),
                (
                    "included",
                    pricing.fields.AmountField(
                        blank=True,
                        default=0,
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
                        help_text="Beyond what is included. Empty: as the price book says.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(0)],
                    ),
                ),
                (
                    "version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="features",
                        to="tollgate_billing.planversion",
                    ),
                ),
            ],
            options={
                "db_table": "billing_plan_features",
                "ordering": ["feature"],
                "constraints": [
                    models.UniqueConstraint(fields=("version", "feature"), name="billing_plan_features_once"),
                    models.CheckConstraint(
                        condition=models.Q(("feature", ""), _negated=True), name="billing_plan_features_named"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("included", None), ("included__gte", 0), _connector="OR"),
                        name="billing_plan_features_included",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("unit_price", None), ("unit_price__gte", 0), _connector="OR"),
                        name="billing_plan_features_price",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("reset_period__in", ["day", "week", "month", "billing"])),
                        name="billing_plan_features_reset",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Subscription",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("started_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(blank=True, help_text="Empty: it runs.", null=True)),
                ("anchor", models.DateTimeField(help_text="Where its periods start to be counted.")),
                ("created_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="subscriptions",
                        to="tollgate_billing.customer",
                    ),
                ),
                (
                    "plan_version",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="subscriptions",
                        to="tollgate_billing.planversion",
                    ),
                ),
            ],
            options={
                "db_table": "billing_subscriptions",
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(fields=["customer", "started_at"], name="billing_subscriptions_time")
                ],
                "constraints": [
                    models.UniqueConstraint(
                        condition=models.Q(("ended_at", None)),
                        fields=("customer",),
                        name="billing_subscriptions_one_runs",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("ended_at", None), ("ended_at__gt", models.F("started_at")), _connector="OR"
                        ),
                        name="billing_subscriptions_end",
                    ),
                ],
            },
        ),
    ]
