"""Rates that were there before a migration are the same afterwards."""

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from pricing.models import PriceBook, Rate

APP = "tollgate_pricing"
JANUARY, JULY = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 7))


def migrate(name: str) -> Any:
    """Bring the app to the state of one migration; its models as they were then."""
    executor = MigrationExecutor(connection)
    executor.migrate([(APP, name)])
    return MigrationExecutor(connection).loader.project_state([(APP, name)]).apps


@pytest.fixture
def newest(transactional_db: None) -> Iterator[str]:
    """The name of the last migration, at which the test leaves the database."""
    name = max(name for app, name in MigrationExecutor(connection).loader.graph.leaf_nodes(APP))
    yield name
    migrate(name)


def test_rates_get_the_number_of_their_line(newest: str) -> None:
    then = migrate("0001_initial")
    book = then.get_model(APP, "PriceBook").objects.create(slug="own", name="Ours")
    old = then.get_model(APP, "Rate").objects
    known = {"book": book, "provider": "acme", "model": "large", "bucket": "in_uncached", "price": Decimal(2)}
    old.create(**known, effective_from=JANUARY, effective_to=JULY)
    old.create(**known, effective_from=JULY)
    old.create(**known, effective_from=JANUARY, input_above=200_000)
    migrate(newest)
    rates = list(Rate.objects.order_by("id"))
    assert [rate.line for rate in rates] == [rate.line_key() for rate in rates]
    assert rates[0].line == rates[1].line != rates[2].line
    assert rates[0].price == 2 and rates[0].match == "exact"
    successor = rates[1].supersede(Decimal(3), datetime(2026, 8, 1, tzinfo=UTC))
    assert successor.line == rates[0].line
    Rate.objects.all()._raw_delete(connection.alias)
    PriceBook.objects.all().delete()
