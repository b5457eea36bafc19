"""Daily usage on SQLite: what an event or a correction adds to it, by feature and by end user, within its transaction."""

import sqlite3
from collections.abc import Iterable
from typing import Any

from metering.store.sql import (
    DAILY_ADD,
    DAILY_KEY,
    DAILY_KEY_LIST,
    DAILY_SUM_LIST,
    DAILY_SUMS,
    USER_ADD,
    USER_KEY,
    USER_KEY_LIST,
    USER_SUM_LIST,
    USER_SUMS,
    event_sums,
)
from pricing.money import AmountTooLarge

_MEASURED = (
    "quantity", "tokens_input", "tokens_output", "tokens_total", "cost_total", "charge_total", "pricing_status", "usage_source",
)  # fmt: skip
_USER_OF = "select user_id from usage_events where id = :event_id and user_id <> ''"


def roll_event(db: sqlite3.Connection, parameters: dict[str, Any]) -> None:
    """Add an event, given by the parameters of its row."""
    _add(db, _EVENT, parameters)
    if parameters["user_id"]:
        _add(db, _USER_EVENT, parameters)


def roll_correction(db: sqlite3.Connection, parameters: dict[str, Any]) -> None:
    """Add a correction, given by the parameters of its row, where its event counts."""
    _add(db, _CORRECTION, parameters)
    user = db.execute(_USER_OF, parameters).fetchone()
    if user is not None:
        _add(db, _USER_CORRECTION, parameters | {"user_id": user[0]})


def _add(db: sqlite3.Connection, upsert: str, parameters: dict[str, Any]) -> None:
    """Raises AmountTooLarge where a sum no longer fits; the transaction is undone then."""
    if db.execute(upsert, parameters).rowcount != 1:
        raise AmountTooLarge("a sum of daily usage is beyond what SQLite holds exactly")


def _upsert(
    table: str, key: Iterable[str], key_list: str, sum_list: str, add: str, sums: Iterable[str]
) -> str:
    # A sum of integers beyond 64 bits turns into a binary fraction without a word: then nothing is changed, which is noticed.
    fits = " and ".join(f"typeof(t.{name} + excluded.{name}) = 'integer'" for name in sum_list.split(", "))
    # The parser takes "on" for a join constraint after a plain SELECT, hence VALUES.
    return (
        f"insert into {table} as t ({key_list}, currency, {sum_list}) "
        f"values ({', '.join(':' + name for name in key)}, :currency, {', '.join(sums)}) "
        f"on conflict ({key_list}) do update set {add} where {fits}"
    )


def _daily(sums: Iterable[str]) -> str:
    return _upsert("daily_usage", DAILY_KEY, DAILY_KEY_LIST, DAILY_SUM_LIST, DAILY_ADD, sums)


def _by_user(sums: Iterable[str]) -> str:
    return _upsert("daily_user_usage", USER_KEY, USER_KEY_LIST, USER_SUM_LIST, USER_ADD, sums)


def _of_event(name: str) -> str:
    """What an event adds to a sum, computed by SQLite from the named parameters of its row."""
    text = event_sums("")[name]
    for column in _MEASURED:
        text = text.replace(column, ":" + column)
    return text


_EVENT = _daily(map(_of_event, DAILY_SUMS))
_USER_EVENT = _by_user(map(_of_event, USER_SUMS))
_CORRECTION = _daily(":" + name for name in DAILY_SUMS)
_USER_CORRECTION = _by_user(":" + name for name in USER_SUMS)
