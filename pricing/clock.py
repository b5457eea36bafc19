"""The clock that everything dated reads: real time plus an offset that tests and simulations move.

The offset is a row of the database (`pricing.models.ClockOffset`); each process takes it over within seconds, so that
every process sees the same time. It is zero in production.
"""

from datetime import UTC, datetime, timedelta

_offset = timedelta(0)


def now() -> datetime:
    """This instant in UTC, aware. Read it once per operation and pass it on."""
    return datetime.now(UTC) + _offset


def offset() -> timedelta:
    """How far `now()` is ahead of real time in this process."""
    return _offset


def set_offset(value: timedelta) -> None:
    """Move the clock of this process only; for all processes use `ClockOffset`."""
    global _offset  # noqa: PLW0603  (one clock per process is the point)
    _offset = value
