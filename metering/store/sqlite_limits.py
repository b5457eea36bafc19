"""Limits on SQLite: asked row by row, within a transaction in which nobody else can write."""

import sqlite3
from decimal import Decimal
from typing import Any
from uuid import UUID

from metering.limits import Exceeded, Limit, part_of
from metering.rows import HoldRow
from pricing.money import from_scaled

_SCOPE = (
    """(:feature = '' or {t}.feature = :feature) and (:api_key_id is null or {t}.api_key_id = :api_key_id)"""
)
_PERIOD = "t.period_start = :since"
_DAYS = "t.day >= date(:since) and t.day < date(:until)"
_COLUMNS = {"tokens": "tokens_total", "charge": "charge_total", "quantity": "quantity"}
_MOST = {"tokens": "coalesce(o.tokens_most, 0)", "charge": "coalesce(o.charge_most, 0)"}
_SCALED = frozenset({"charge"})


class Rooms:
    """What is left under each limit, as this transaction sees it: read once, then less by what it takes itself."""

    def __init__(self, db: sqlite3.Connection, adapted: Any) -> None:
        self._db, self._adapted = db, adapted
        self._left: dict[tuple[UUID, Limit], Decimal] = {}

    def exceeded(self, row: HoldRow) -> Exceeded | None:
        """The first of the hold's limits that it does not fit under."""
        for limit in row.limits:
            room = self.under(row.customer_id, limit)
            if part_of(limit, row) > room:
                return Exceeded(limit, room)
        return None

    def take(self, row: HoldRow) -> None:
        """The hold was admitted."""
        for limit in row.limits:
            self._left[row.customer_id, limit] = self.under(row.customer_id, limit) - part_of(limit, row)

    def under(self, customer_id: UUID, limit: Limit) -> Decimal:
        """What there is left under a limit."""
        left = self._left.get((customer_id, limit))
        if left is None:
            values = {
                name: self._adapted(getattr(limit, name))
                for name in ("since", "until", "feature", "api_key_id", "user_id")
            }
            values["customer_id"] = customer_id.hex
            left = limit.most - self._used(limit, values) - self._in_flight(limit, values)
            self._left[customer_id, limit] = left
        return left

    def _used(self, limit: Limit, values: dict[str, Any]) -> Decimal:
        column = _COLUMNS.get(limit.measure)
        if column is None:
            return Decimal(0)
        when = _PERIOD if limit.by_period else _DAYS
        if limit.user_id:
            source = (
                f"daily_user_usage t where t.customer_id = :customer_id and t.user_id = :user_id and {when}"
            )
        else:
            source = f"daily_usage t where t.customer_id = :customer_id and {when} and {_SCOPE.format(t='t')}"
        found = self._db.execute(f"select coalesce(sum({column}), 0) from {source}", values).fetchone()[0]
        return Decimal(found) if limit.measure == "tokens" else from_scaled(found)

    def _in_flight(self, limit: Limit, values: dict[str, Any]) -> Decimal:
        most = _MOST.get(limit.measure, "1")
        found = self._db.execute(
            f"""select coalesce(sum({most}), 0) from usage_holds o where o.customer_id = :customer_id
            and {_SCOPE.format(t="o")} and (:user_id = '' or o.user_id = :user_id)
            and (:since is null or o.created_at >= :since and o.created_at < :until)""",
            values,
        ).fetchone()[0]
        return from_scaled(found) if limit.measure in _SCALED else Decimal(found)
