"""An alias is dated, as a rate is. Those that are there have always been so."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("tollgate_pricing", "0006_rate_thing_index"),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="modelalias",
            name="tollgate_model_aliases_once",
        ),
        migrations.AddField(
            model_name="modelalias",
            name="effective_from",
            field=models.DateTimeField(blank=True, help_text="Empty: it has always been so.", null=True),
        ),
        migrations.AddField(
            model_name="modelalias",
            name="effective_to",
            field=models.DateTimeField(blank=True, editable=False, null=True),
        ),
        migrations.AddConstraint(
            model_name="modelalias",
            constraint=models.UniqueConstraint(
                condition=models.Q(("effective_to", None)),
                fields=("provider", "alias"),
                name="tollgate_model_aliases_open",
            ),
        ),
        migrations.AddConstraint(
            model_name="modelalias",
            constraint=models.UniqueConstraint(
                fields=("provider", "alias", "effective_from"), name="tollgate_model_aliases_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="modelalias",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("effective_to", None),
                    ("effective_from", None),
                    ("effective_to__gt", models.F("effective_from")),
                    _connector="OR",
                ),
                name="tollgate_model_aliases_span",
            ),
        ),
    ]
