"""When a threshold is reached, and when what is left will be used up at this pace. Pure."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Literal

import msgspec

from pricing.money import EXACT

Subject = Literal["allowance", "budget", "credit"]


class Threshold(msgspec.Struct, frozen=True):
    """So many percent used, or an amount: used, and of credits left."""

    percent: Decimal | None = None
    amount: Decimal | None = None

    def __str__(self) -> str:
        if self.percent is not None:
            return f"{self.percent.normalize():f}%"
        return f"{(self.amount or Decimal(0)).normalize():f}"

    def reached(self, subject: Subject, used: Decimal, limit: Decimal) -> bool:
        """Whether `used` of `limit` is as much."""
        if self.percent is not None:
            # Without a division: nothing is rounded. Of a limit of nothing all is used at once.
            return EXACT.multiply(used, Decimal(100)) >= EXACT.multiply(limit, self.percent)
        if self.amount is None:
            return False
        return limit - used <= self.amount if subject == "credit" else used >= self.amount


MICROSECOND = timedelta(microseconds=1)
FAR = timedelta(days=3650)  # nobody plans for longer

DEFAULTS = (Threshold(Decimal(80)), Threshold(Decimal(90)), Threshold(Decimal(100)))


def exhausted_at(
    used: Decimal, limit: Decimal, start: datetime, end: datetime | None, at: datetime
) -> datetime | None:
    """When `limit` is used up if usage goes on as it has from `start` to `at`; `at` where it is used up already. None where
    that does not happen before `end`, or where nothing was used."""
    if used >= limit:
        return at
    passed = at - start
    if used <= 0 or passed <= timedelta(0):
        return None
    left = EXACT.multiply(EXACT.subtract(limit, used), Decimal(passed // MICROSECOND))
    more = int(EXACT.divide(left, used))
    if more > FAR // MICROSECOND:
        return None
    when = at + more * MICROSECOND
    return when if end is None or when < end else None
