"""The turnstile: writers of SQLite take turns, ours and Django's."""

import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction

from metering.turnstile import Turnstile


def test_who_waits_gets_through_after_who_holds(tmp_path: Path) -> None:
    first, second = Turnstile(str(tmp_path / "db")), Turnstile(str(tmp_path / "db"))
    order = []
    first.acquire()

    def wait() -> None:
        second.acquire()
        order.append("second")
        second.close()

    thread = threading.Thread(target=wait)
    thread.start()
    order.append("first")
    first.release()
    thread.join(10)
    assert order == ["first", "second"]
    first.close()


def test_releasing_twice_or_unheld_does_nothing(tmp_path: Path) -> None:
    turnstile = Turnstile(str(tmp_path / "db"))
    turnstile.release()
    turnstile.acquire()
    turnstile.close()
    turnstile.close()
    assert turnstile.held is False


@pytest.mark.engine("sqlite")
@pytest.mark.django_db(transaction=True)
def test_django_holds_the_turnstile_for_a_transaction_and_for_a_single_write() -> None:
    connection.ensure_connection()
    turnstile: Any = connection.turnstile  # type: ignore[attr-defined]
    with transaction.atomic():
        assert turnstile.held
    assert not turnstile.held
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        raise ZeroDivisionError
    assert not turnstile.held
    with connection.cursor() as cursor:
        cursor.execute("create table t (n integer)")
        cursor.execute("drop table t")
    assert not turnstile.held


def test_a_connection_of_the_recorder_is_durable(tmp_path: Path) -> None:
    from metering.store.sqlite import connect

    db: sqlite3.Connection = connect(str(tmp_path / "db"))
    assert db.execute("pragma journal_mode").fetchone() == ("wal",)
    assert db.execute("pragma synchronous").fetchone() == (2,), "FULL"
    db.close()
