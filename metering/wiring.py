"""Builds the data plane from Django's settings: the store of the default database, the recorder, the meter.

Owns: which database, which routes, which clock. Does not own: anything that happens to a call.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from metering import metrics
from metering.gate import Contribution, Gate
from metering.meter import Meter
from metering.middleware import ASGIApp, MeteringMiddleware
from metering.policy import InvalidPolicy, WhoPays
from metering.recorder import Recorder
from metering.routes import DEFAULT_ROUTES, RouteTable
from metering.spool import Spool
from metering.store import Store
from metering.store.postgres import PostgresStore
from metering.store.sqlite import SqliteStore
from pricing import clock
from pricing.pricelist import CurrentCard

_PASSED_ON = (
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "options",
    "service",
    "passfile",
    "target_session_attrs",
)


SPOOL_MAX_MB = 256
_books: Contribution | None = None


def keep_books(books: Contribution) -> None:
    """Have `books` move balances wherever a hold ends or a charge changes. The app that owns the balances says so, once,
    when Django starts: a job that sweeps or corrects has no gate to ask."""
    global _books  # noqa: PLW0603  (one ledger per process is the point)
    _books = books


def open_store(database: Mapping[str, Any]) -> Store:
    """The store for one entry of Django's DATABASES. Raises ImproperlyConfigured for any other engine."""
    engine = str(database["ENGINE"])
    if "postgresql" in engine:
        options = database.get("OPTIONS") or {}
        named = {
            "dbname": database["NAME"], "user": database.get("USER"), "password": database.get("PASSWORD"),
            "host": database.get("HOST") or options.get("host"), "port": database.get("PORT"),
        }  # fmt: skip
        conninfo = {name: value for name, value in named.items() if value}
        conninfo |= {name: options[name] for name in _PASSED_ON if name in options}
        return PostgresStore(conninfo, _books)
    if "sqlite" in engine:
        return SqliteStore(str(database["NAME"]), _books)
    raise ImproperlyConfigured(f"metering needs PostgreSQL or SQLite, not {engine}")


def current_store() -> Store:
    """A store on Django's default database as it is configured now (a test database counts)."""
    from django.db import connection

    return open_store(connection.settings_dict)


def route_table() -> RouteTable:
    """The metered routes: the file that METERED_ROUTES names, or the default ones."""
    given = option("METERED_ROUTES", "")
    return RouteTable.from_file(Path(given)) if given else RouteTable.compile(DEFAULT_ROUTES)


def option(name: str, default: Any) -> Any:
    """An entry of the TOLLGATE setting, of which none is required."""
    return getattr(settings, "TOLLGATE", {}).get(name, default)


@cache
def current_card() -> CurrentCard:
    """The one rate card of this process; the refresher swaps its content."""
    return CurrentCard()


def build_meter(gate: Gate, store: Store | None = None) -> Meter:
    """A meter that writes to Django's default database."""
    current = current_card()
    spool = current_spool()
    recorder = Recorder(
        store or current_store(), gate, on_settled=lambda rows: metrics.observe_settled(rows, current.card), spool=spool,
    )  # fmt: skip
    if spool is not None:
        metrics.show_spool(spool)
    return Meter(
        gate=gate, recorder=recorder, card=current, routes=route_table(), now=clock.now, policy=who_pays(),
    )  # fmt: skip


def current_spool() -> Spool | None:
    """The spool under TOLLGATE["SPOOL_DIR"]; None where that is not set: then no call goes out while the database is away."""
    given = option("SPOOL_DIR", "")
    return Spool(Path(given), option("SPOOL_MAX_MB", SPOOL_MAX_MB) * 2**20) if given else None


def who_pays() -> WhoPays:
    """The operator's choices, TOLLGATE["WHO_PAYS"]. Raises ImproperlyConfigured for one that cannot be used."""
    try:
        return WhoPays.from_options(option("WHO_PAYS", {}))
    except InvalidPolicy as error:
        raise ImproperlyConfigured(f'TOLLGATE["WHO_PAYS"]: {error}') from error


def build_middleware(app: ASGIApp, gate: Gate) -> MeteringMiddleware:
    """`app`, metered."""
    return MeteringMiddleware(app, build_meter(gate))
