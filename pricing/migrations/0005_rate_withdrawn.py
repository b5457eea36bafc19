"""A correction may say that there was no such price."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("tollgate_pricing", "0004_one_rate_at_a_time")]

    operations = [
        migrations.AddField(
            model_name="rate",
            name="withdrawn",
            field=models.BooleanField(
                default=False, editable=False, help_text="where it counts, there is no such price"
            ),
        ),
    ]
