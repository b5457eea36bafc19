"""PostgreSQL itself refuses a second rate of a line for the same time. A range of one number needs no extension."""

from typing import Any

from django.db import migrations

ADD = """
alter table tollgate_rates add constraint tollgate_rates_one_at_a_time exclude using gist (
    int8range(line, line, '[]') with &&,
    int4range(revision, revision, '[]') with &&,
    tstzrange(effective_from, effective_to) with &&
)"""
DROP = "alter table tollgate_rates drop constraint tollgate_rates_one_at_a_time"


def only_postgresql(statement: str) -> Any:
    """Runs `statement` where the engine has such constraints; SQLite has none and only one writer at a time."""

    def run(apps: Any, schema_editor: Any) -> None:
        if schema_editor.connection.vendor == "postgresql":
            schema_editor.execute(statement)

    return run


class Migration(migrations.Migration):
    dependencies = [("tollgate_pricing", "0003_proposals")]

    operations = [migrations.RunPython(only_postgresql(ADD), only_postgresql(DROP))]
