"""How the hot tables are made on PostgreSQL: the customer first in the real primary key, events partitioned by month.

Django's state says that one column is the key, so that the ORM and the admin work on both engines; on SQLite that is also
how the table is made.
"""

from collections.abc import Sequence
from typing import Any

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import ProjectState


class CreateHotTable(migrations.CreateModel):
    """CreateModel whose primary key on PostgreSQL is `primary_key`, partitioned by range of `partition_by` if given.

    A unique constraint named `replaces` on the same columns becomes that primary key.
    """

    def __init__(
        self,
        *args: Any,
        primary_key: Sequence[str],
        partition_by: str | None = None,
        replaces: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.primary_key, self.partition_by, self.replaces = tuple(primary_key), partition_by, replaces

    def database_forwards(
        self,
        app_label: str,
        schema_editor: BaseDatabaseSchemaEditor,
        from_state: ProjectState,
        to_state: ProjectState,
    ) -> None:
        if schema_editor.connection.vendor != "postgresql":
            super().database_forwards(app_label, schema_editor, from_state, to_state)
            return
        model = to_state.apps.get_model(app_label, self.name)
        sql, parameters = schema_editor.table_sql(model)
        table, *more = self._statements(sql, model._meta.db_table)
        schema_editor.execute(table, parameters or None)
        for statement in more:
            schema_editor.execute(statement)
        indexes = schema_editor._model_indexes_sql(model)  # type: ignore[attr-defined]  # absent from the stubs
        schema_editor.deferred_sql.extend(indexes)

    def _statements(self, sql: str, table: str) -> list[str]:
        sql = sql.replace(" PRIMARY KEY", "", 1)
        if self.replaces is not None:
            sql = sql.replace(
                f'CONSTRAINT "{self.replaces}" UNIQUE', f'CONSTRAINT "{self.replaces}" PRIMARY KEY', 1
            )
        else:
            columns = ", ".join(f'"{column}"' for column in self.primary_key)
            sql = f"{sql[: sql.rindex(')')]}, PRIMARY KEY ({columns}))"
        if self.partition_by is None:
            # the admin asks by the column that Django takes for the key
            return [sql, f'CREATE INDEX "{table}_id" ON "{table}" ("id")'] if self.replaces else [sql]
        return [
            f'{sql} PARTITION BY RANGE ("{self.partition_by}")',
            f'CREATE TABLE "{table}_default" PARTITION OF "{table}" DEFAULT',
        ]
