"""Whether two rates could price one and the same call at the same time with nothing to choose between them.

Of rates that set different conditions one is always the more specific, and of rates that set the same ones to different
values no call fits both. What remains are rates with the same conditions: their spans of time, or their hours of the week,
must not meet.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from pricing.conditions import Conditions
from pricing.hours import first_shared


class DatedRate(Protocol):
    """What of a rate decides it. Rates of the database are such."""

    book_id: Any
    provider: Any
    model: Any
    match: Any
    bucket: Any
    line: Any
    revision: Any
    effective_from: Any
    effective_to: Any

    @property
    def conditions(self) -> Conditions: ...


class Conflict(NamedTuple):
    """`rate` and `other` both hold at `instant` (the first of its kind) for the same calls."""

    rate: Any
    other: Any
    instant: datetime

    @property
    def is_same_line(self) -> bool:
        """Whether they are for the same thing under the same conditions."""
        return bool(self.rate.line == self.other.line)


def conflicts(rates: Iterable[DatedRate], known: Iterable[DatedRate]) -> Iterator[Conflict]:
    """The conflicts of `rates` with each other and with those that are `known` already."""
    contests: dict[tuple[Any, ...], list[DatedRate]] = defaultdict(list)
    for rate in known:
        contests[_contest(rate)].append(rate)
    for rate in rates:
        contest = contests[_contest(rate)]
        for other in contest:
            if (instant := _meeting(rate, other)) is not None:
                yield Conflict(rate, other, instant)
        contest.append(rate)


def _contest(rate: DatedRate) -> tuple[Any, ...]:
    """Equal for rates that are equally specific and may fit the same call."""
    asked = rate.conditions
    return (
        rate.book_id, rate.provider, rate.model, rate.match, rate.bucket,
        asked.byok, asked.batch, asked.service_tier, asked.speed, asked.region, asked.input_above,
        bool(asked.weekdays), asked.time_from is not None,
    )  # fmt: skip


def _meeting(one: DatedRate, other: DatedRate) -> datetime | None:
    """An instant at which both hold; None where there is none, or a later revision takes the place of the earlier."""
    start: datetime = max(one.effective_from, other.effective_from)
    ends: list[datetime] = [rate.effective_to for rate in (one, other) if rate.effective_to is not None]
    end = min(ends, default=None)
    if end is not None and start >= end:
        return None
    if one.line == other.line:
        return start if one.revision == other.revision else None
    hours, others = one.conditions.hours, other.conditions.hours
    if hours is None or others is None:  # two lines by a digest that is not theirs
        return start
    return first_shared(hours, others, start, end)
