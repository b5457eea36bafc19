"""The writers that live are found without reading the fenced ones."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_metering", "0005_rerating"),
    ]

    operations = [
        migrations.AddIndex(
            model_name="writer",
            index=models.Index(
                condition=models.Q(("fenced_at", None)), fields=["id"], name="usage_writers_alive"
            ),
        ),
    ]
