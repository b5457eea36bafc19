"""Events with what was corrected of them: the one place that reads an event as it counts now."""

from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
from django.db.models import QuerySet

from metering.corrections import Written, as_corrected, event_from
from metering.models import UsageCorrection
from metering.rows import EVENT_COLUMNS, EventRow

# An event is made after its use, at most so much later; bounds the partitions that are read.
LATENESS_MAX = timedelta(days=35)


class History(msgspec.Struct, frozen=True):
    """One event: as it was written, its corrections in order, and as it counts now."""

    event: EventRow
    written: tuple[Written, ...]
    now: EventRow

    @property
    def revision(self) -> int:
        """The revision of its latest correction; 0 where there is none."""
        return self.written[-1].revision if self.written else 0


def histories(events: QuerySet[Any], columns: Sequence[str] = EVENT_COLUMNS) -> list[History]:
    """The histories of these events, in their order; two queries, however many they are. `columns`: what is read of an event;
    the others have their defaults."""
    rows = [event_from(dict(zip(columns, values, strict=True))) for values in events.values_list(*columns)]
    written = _written(rows)
    return [_history(row, written.get((row.customer_id, row.id), ())) for row in rows]


def _history(event: EventRow, written: Sequence[Written]) -> History:
    return History(event, tuple(written), as_corrected(event, [one.new for one in written]))


def _written(rows: Iterable[EventRow]) -> dict[tuple[UUID, UUID], list[Written]]:
    """The corrections of these events by customer and event, in the order of their revisions."""
    customers, events = {row.customer_id for row in rows}, [row.id for row in rows]
    found = UsageCorrection.objects.filter(customer_id__in=customers, event_id__in=events)
    written: dict[tuple[UUID, UUID], list[Written]] = {}
    for customer, event, *rest in found.order_by("event_id", "revision").values_list(
        "customer_id", "event_id", "revision", "reason", "new"
    ):
        written.setdefault((customer, event), []).append(Written(*rest))
    return written
