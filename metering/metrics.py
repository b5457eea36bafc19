"""Counters of the data plane, in the process's default registry. Names are fixed in the documentation."""

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple

from prometheus_client import Counter, Gauge, Histogram

from metering.rows import EventRow
from metering.spool import Spool
from pricing.pricelist import RateCard

OTHER = "other"  # instead of a model that the catalogue does not name
_MICRO = 10**6
_FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

usage_events = Counter("tollgate_usage_events", "Usage events committed", ["feature", "plan", "status"])
usage_units = Counter("tollgate_usage_units", "Quantity of usage committed", ["feature", "plan"])
tokens = Counter("tollgate_tokens", "Tokens committed", ["provider", "model", "kind"])
cost = Counter("tollgate_cost", "Provider cost committed, by currency", ["currency"])
charge = Counter("tollgate_charge", "Charges committed, by currency", ["currency"])
gate_refusals = Counter("tollgate_gate_refusals", "Calls refused before they went out", ["code"])
swept_holds = Counter("tollgate_swept_holds", "Holds of dead processes ended by the sweep")
estimated_events = Counter("tollgate_estimated_events", "Events whose usage is wholly or partly an estimate")
inconsistent_events = Counter("tollgate_inconsistent_events", "Events whose counters contradict each other")
unpriced_events_seen = Counter("tollgate_unpriced_events_committed", "Events committed without a full price")
unpriced_events = Gauge(
    "tollgate_unpriced_events", "Events that wait for a rate; NaN while the database cannot be asked"
)
spool_records = Gauge("tollgate_spool_records", "Calls that are spooled and not in the database yet")
spool_age_seconds = Gauge("tollgate_spool_age_seconds", "How long the oldest file of the spool has waited")
hold_seconds = Histogram("tollgate_hold_seconds", "From asking for a hold to its commit", buckets=_FAST)
settle_seconds = Histogram(
    "tollgate_settle_seconds", "From the last frame to the commit of its event", buckets=_FAST
)
commit_batch_size = Histogram(
    "tollgate_commit_batch_size", "Events in one transaction", buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500)
)


class _Series(NamedTuple):
    """The series that events of one kind add to."""

    events: Counter
    units: Counter
    tokens_input: Counter
    tokens_output: Counter
    cost: Counter
    charge: Counter


@lru_cache(4096)
def _series_of(feature: str, plan: str, status: str, provider: str, model: str, currency: str) -> _Series:
    """Looking a series up by its labels costs more than adding to it."""
    return _Series(
        usage_events.labels(feature, plan, status),
        usage_units.labels(feature, plan),
        tokens.labels(provider, model, "input"),
        tokens.labels(provider, model, "output"),
        cost.labels(currency),
        charge.labels(currency),
    )


def show_spool(spool: Spool) -> None:
    """Have the gauges show this process's spool, whenever somebody asks."""
    spool_records.set_function(lambda: spool.status()["records"])
    spool_age_seconds.set_function(lambda: spool.age_s)


def observe_settled(rows: Sequence[EventRow], card: RateCard) -> None:
    """Count a batch that was committed. Exact sums are in the database; these are for watching.

    A model may be any text that a caller made up, priced or not (a refused call costs nothing, a prefix prices what begins so):
    only those that the catalogue names have a series, the others are one.
    """
    if not rows:
        return
    commit_batch_size.observe(len(rows))
    kinds: dict[tuple[str, ...], list[EventRow]] = {}
    for row in rows:
        kind = (row.feature, row.plan, row.status, row.provider, row.model, row.currency)
        kinds.setdefault(kind, []).append(row)
    for (feature, plan, status, provider, model, currency), alike in kinds.items():
        listed = card.listed_name(provider, model) or OTHER
        _count(_series_of(feature, plan, status, provider, listed, currency), alike)
    estimated_events.inc(sum([row.usage_source in ("estimated", "reported_partial") for row in rows]))
    inconsistent_events.inc(sum([row.consistency == "inconsistent" for row in rows]))
    unpriced_events_seen.inc(sum([row.pricing_status in ("unpriced", "partial") for row in rows]))


def _count(series: _Series, rows: Sequence[EventRow]) -> None:
    series.events.inc(len(rows))
    series.units.inc(_approximate(sum([row.quantity for row in rows])))
    series.tokens_input.inc(sum([row.tokens_input or 0 for row in rows]))
    series.tokens_output.inc(sum([row.tokens_output or 0 for row in rows]))
    series.cost.inc(_approximate(sum([row.cost_total or 0 for row in rows])))
    series.charge.inc(_approximate(sum([row.charge_total or 0 for row in rows])))


def _approximate(amount: Decimal | int) -> float:
    # Prometheus counts in binary floating point; a metric is for watching, the books are in the database.
    return max(0, int(amount * _MICRO)) / _MICRO
