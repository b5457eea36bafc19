"""Alerts: thresholds, what has fired, and the messages that say so; how full a balance was when it was last added to."""

import django.core.validators
import django.db.models.deletion
from django.db import migrations, models

import metering.ids
import pricing.clock
import pricing.fields


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_billing", "0005_limits"),
    ]

    operations = [
        migrations.AddField(
            model_name="balance",
            name="full",
            field=pricing.fields.AmountField(
                default=0, help_text="What was available right after credits were last added."
            ),
        ),
        migrations.AddField(
            model_name="balance",
            name="full_since",
            field=models.DateTimeField(blank=True, help_text="When that was.", null=True),
        ),
        migrations.CreateModel(
            name="Alert",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "subject",
                    models.CharField(
                        choices=[
                            ("allowance", "an allowance"),
                            ("budget", "a budget"),
                            ("credit", "the credits"),
                        ],
                        max_length=9,
                    ),
                ),
                (
                    "about",
                    models.CharField(
                        help_text="Which of them: a feature, a budget and its end user.", max_length=360
                    ),
                ),
                ("threshold", models.CharField(help_text="As in 80% or 5.", max_length=40)),
                ("period_start", models.DateTimeField(help_text="Of credits: when they were last added to.")),
                ("period_end", models.DateTimeField(null=True)),
                ("used", pricing.fields.AmountField()),
                ("limit", pricing.fields.AmountField()),
                (
                    "exhausted_at",
                    models.DateTimeField(help_text="At this pace; empty: not in this period.", null=True),
                ),
                ("created_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="alerts",
                        to="tollgate_billing.customer",
                    ),
                ),
            ],
            options={
                "db_table": "billing_alerts",
                "ordering": ["-created_at", "-id"],
                "indexes": [models.Index(fields=["customer", "created_at"], name="billing_alerts_by_time")],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("customer", "subject", "about", "threshold", "period_start"),
                        name="billing_alerts_once",
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="AlertThreshold",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                (
                    "subject",
                    models.CharField(
                        choices=[
                            ("allowance", "an allowance"),
                            ("budget", "a budget"),
                            ("credit", "the credits"),
                        ],
                        max_length=9,
                    ),
                ),
                (
                    "percent",
                    pricing.fields.AmountField(
                        blank=True,
                        help_text="Used, of all there is.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(0)],
                    ),
                ),
                (
                    "amount",
                    pricing.fields.AmountField(
                        blank=True,
                        help_text="Used so much; of credits: so much is left.",
                        null=True,
                        validators=[django.core.validators.MinValueValidator(0)],
                    ),
                ),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="alert_thresholds",
                        to="tollgate_billing.customer",
                    ),
                ),
            ],
            options={
                "db_table": "billing_alert_thresholds",
                "ordering": ["customer", "subject", "percent", "amount"],
                "constraints": [
                    models.UniqueConstraint(
                        fields=("customer", "subject", "percent"), name="billing_alert_thresholds_percent"
                    ),
                    models.UniqueConstraint(
                        fields=("customer", "subject", "amount"), name="billing_alert_thresholds_once"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("amount", None), ("percent__gt", 0)),
                            models.Q(("amount__gte", 0), ("percent", None)),
                            _connector="OR",
                        ),
                        name="billing_alert_thresholds_either",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("subject__in", ["allowance", "budget", "credit"])),
                        name="billing_alert_thresholds_subject",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="OutboxMessage",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=metering.ids.uuid7, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("kind", models.CharField(help_text="As in usage.threshold_reached.", max_length=64)),
                ("payload", models.JSONField()),
                ("created_at", models.DateTimeField(default=pricing.clock.now, editable=False)),
                ("mail_to", models.EmailField(blank=True, max_length=254)),
                ("mail_subject", models.CharField(blank=True, max_length=200)),
                ("mail_text", models.TextField(blank=True)),
                (
                    "mail_due_at",
                    models.DateTimeField(
                        help_text="Empty: there is nothing to send, or it was sent.", null=True
                    ),
                ),
                ("mail_tries", models.PositiveSmallIntegerField(default=0)),
                ("mailed_at", models.DateTimeField(null=True)),
                ("mail_error", models.CharField(blank=True, max_length=300)),
                (
                    "customer",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="messages",
                        to="tollgate_billing.customer",
                    ),
                ),
            ],
            options={
                "db_table": "billing_outbox",
                "ordering": ["-created_at", "-id"],
                "indexes": [
                    models.Index(fields=["customer", "created_at"], name="billing_outbox_by_time"),
                    models.Index(
                        condition=models.Q(("mail_due_at__isnull", False)),
                        fields=["mail_due_at"],
                        name="billing_outbox_to_mail",
                    ),
                ],
            },
        ),
    ]
