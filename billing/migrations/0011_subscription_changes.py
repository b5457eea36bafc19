"""Trials, and changes of subscriptions that are arranged for the end of a period."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_billing", "0010_invoices"),
    ]

    operations = [
        migrations.AddField(
            model_name="subscription",
            name="changes_at",
            field=models.DateTimeField(
                blank=True, help_text="When it ends by arrangement, or gives way to another.", null=True
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="changes_to",
            field=models.ForeignKey(
                blank=True,
                help_text="Empty: it just ends.",
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="+",
                to="tollgate_billing.planversion",
            ),
        ),
        migrations.AddField(
            model_name="subscription",
            name="trial_ends_at",
            field=models.DateTimeField(blank=True, help_text="Until then there is no base fee.", null=True),
        ),
        migrations.AddIndex(
            model_name="subscription",
            index=models.Index(
                condition=models.Q(("changes_at__isnull", False), ("ended_at", None)),
                fields=["changes_at"],
                name="billing_subscriptions_due",
            ),
        ),
        migrations.AddConstraint(
            model_name="subscription",
            constraint=models.CheckConstraint(
                condition=models.Q(("changes_to", None), ("changes_at__isnull", False), _connector="OR"),
                name="billing_subscriptions_change",
            ),
        ),
    ]
