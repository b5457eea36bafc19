"""`ENGINE = "metering.sqlite_backend"`: Django's SQLite backend whose writers take turns with the recorder."""

from typing import Any

from django.db.backends.sqlite3 import base

from metering.turnstile import Turnstile

_READS = ("SELECT", "EXPLAIN", "PRAGMA", "SAVEPOINT", "RELEASE", "ROLLBACK", "BEGIN")


class TurnstileCursor(base.SQLiteCursorWrapper):
    """A cursor that queues for a write outside a transaction. Inside one, BEGIN has queued already."""

    wrapper: "DatabaseWrapper"

    def execute(self, query: str, params: Any = None) -> Any:
        with self.wrapper.turn_for(query):
            return super().execute(query, params)

    def executemany(self, query: str, param_list: Any) -> Any:
        with self.wrapper.turn_for(query):
            return super().executemany(query, param_list)


class _Turn:
    """Holds the turnstile for one statement, where asked to."""

    def __init__(self, turnstile: Turnstile | None) -> None:
        self._turnstile = turnstile

    def __enter__(self) -> None:
        if self._turnstile is not None:
            self._turnstile.acquire()

    def __exit__(self, *exc: object) -> None:
        if self._turnstile is not None:
            self._turnstile.release()


class DatabaseWrapper(base.DatabaseWrapper):
    """One connection with a turnstile of its own."""

    def get_connection_params(self) -> dict[str, Any]:
        options = self.settings_dict["OPTIONS"]
        options.setdefault("transaction_mode", "IMMEDIATE")
        options.setdefault("timeout", 20)
        options.setdefault("init_command", "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;")
        params: dict[str, Any] = super().get_connection_params()
        return params

    def init_connection_state(self) -> None:
        super().init_connection_state()
        name = str(self.settings_dict["NAME"])
        in_memory = ":memory:" in name or "mode=memory" in name
        self.turnstile = None if in_memory else Turnstile(name)

    def create_cursor(self, name: str | None = None) -> TurnstileCursor:
        cursor: TurnstileCursor = self.connection.cursor(factory=TurnstileCursor)
        cursor.wrapper = self
        return cursor

    def turn_for(self, query: str) -> _Turn:
        """The turn that a statement needs: none for a read, nor within a transaction that has it already."""
        turnstile = self.turnstile
        if turnstile is None or turnstile.held or query.lstrip()[:9].upper().startswith(_READS):
            return _Turn(None)
        return _Turn(turnstile)

    def _start_transaction_under_autocommit(self) -> None:
        if self.turnstile is not None:
            self.turnstile.acquire()
        try:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]  # absent from the stubs
        except BaseException:
            self._let_the_next_through()
            raise

    def _commit(self) -> None:
        try:
            super()._commit()  # type: ignore[misc]  # absent from the stubs
        finally:
            if not self.connection or not self.connection.in_transaction:
                self._let_the_next_through()

    def _rollback(self) -> None:
        try:
            super()._rollback()  # type: ignore[misc]  # absent from the stubs
        finally:
            self._let_the_next_through()

    def _close(self) -> None:
        try:
            super()._close()  # type: ignore[misc]  # absent from the stubs
        finally:
            if getattr(self, "turnstile", None) is not None:
                self.turnstile.close()  # type: ignore[union-attr]

    def _let_the_next_through(self) -> None:
        if self.turnstile is not None:
            self.turnstile.release()
