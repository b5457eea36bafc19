"""Sums over several reports: the responses of a session, the lines of a batch. Each report counts once."""

from metering.extract.counts import Counted, Counters
from metering.extract.parts import counted_parts
from pricing.usage import UnknownSide, UsagePart

_REPORTS_KEPT = 50  # as evidence; the sums go on


class Tally:
    """Adds up what each model used. A model of "" is the call's own."""

    __slots__ = ("_buckets", "_counters", "_seen", "_unknown", "reports")

    def __init__(self) -> None:
        self._counters = Counters()
        self._buckets: dict[tuple[str, str], dict[str, int]] = {}
        self._seen: set[str] = set()
        self._unknown: set[UnknownSide] = set()
        self.reports: list[object] = []  # the first of them as they came

    def add(self, counted: Counted, model: str, kind: str, *, key: str = "", raw: object = None) -> None:
        """Counts a report in, unless one with the same `key` was. "" is no key."""
        if key:
            if key in self._seen:
                return
            self._seen.add(key)
        if len(self.reports) < _REPORTS_KEPT:
            self.reports.append(raw)
        self._counters.take(counted)
        self._unknown.update(counted.unknown_sides)
        buckets = self._buckets.setdefault((model, kind), {})
        for bucket, quantity in counted.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + quantity

    def repair(self, rule: str) -> None:
        """Notes that a rule fired; see `Counters`."""
        self._counters.repair(rule)

    @property
    def empty(self) -> bool:
        return not self._buckets

    def counted(self) -> Counted:
        """The sum, by model where there are several, the call's own first."""
        parts = [UsagePart(buckets, model, kind=kind) for (model, kind), buckets in self._buckets.items()]
        counted = counted_parts(self._counters, sorted(parts, key=lambda part: part.model != ""))
        counted.unknown_sides = tuple(side for side in ("input", "output") if side in self._unknown)
        return counted
