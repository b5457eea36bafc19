"""Identifiers whose order is time: UUIDv7.

The first 48 bits are the instant in milliseconds, so the primary keys of holds and events grow at one end of their index,
and the instant of an event can be computed from its id.
"""

import random
import time
from datetime import UTC, datetime, timedelta
from typing import cast
from uuid import UUID

from msgspec import to_builtins

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_VERSION_AND_VARIANT = (0x7 << 76) | (0x2 << 62)
_RANDOM = (0xFFF << 64) | (2**62 - 1)  # the bits around the variant
# Unique, not secret: a generator in memory costs a tenth of asking the kernel. Python seeds it anew in a forked child.
_random_bits = random.getrandbits

NIL = UUID(int=0)


def uuid7(at: datetime | None = None) -> UUID:
    """A UUIDv7 for the instant `at` (aware; default: now), exact to the millisecond, 74 random bits."""
    ms = time.time_ns() // 1_000_000 if at is None else (at - _EPOCH) // _MILLISECOND
    return UUID(int=(ms << 80) | _VERSION_AND_VARIANT | (_random_bits(76) & _RANDOM))


def instant_of(identifier: UUID) -> datetime:
    """The millisecond at which a UUIDv7 was made, as an aware datetime in UTC."""
    seconds, ms = divmod(identifier.int >> 80, 1000)
    return _EPOCH + timedelta(0, seconds, ms * 1000)


def text_of(identifier: UUID) -> str:
    """`str(identifier)`, in a quarter of the time."""
    return cast(str, to_builtins(identifier))
