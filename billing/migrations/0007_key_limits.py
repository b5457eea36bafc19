"""An API key may have limits of its own, beside those of its customer's plan."""

import django.core.validators
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_billing", "0006_alerts"),
    ]

    operations = [
        migrations.AddField(
            model_name="apikey",
            name="concurrent_calls",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="Calls in flight at once with this key. Empty: no limit of its own.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="requests_per_minute",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="With this key. Empty: no limit of its own.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AddField(
            model_name="apikey",
            name="tokens_per_minute",
            field=models.PositiveIntegerField(
                blank=True,
                help_text="With this key. Empty: no limit of its own.",
                null=True,
                validators=[django.core.validators.MinValueValidator(1)],
            ),
        ),
        migrations.AddConstraint(
            model_name="apikey",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("requests_per_minute", None), ("requests_per_minute__gte", 1), _connector="OR"),
                    models.Q(("tokens_per_minute", None), ("tokens_per_minute__gte", 1), _connector="OR"),
                    models.Q(("concurrent_calls", None), ("concurrent_calls__gte", 1), _connector="OR"),
                ),
                name="billing_api_keys_limits",
            ),
        ),
    ]
