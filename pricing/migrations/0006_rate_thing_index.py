"""An index for the look-up of rates for the same thing."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_pricing", "0005_rate_withdrawn"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="rate",
            index=models.Index(fields=["provider", "model", "book"], name="tollgate_rates_thing"),
        ),
    ]
