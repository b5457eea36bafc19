"""The auditor: counts again, in plain SQL and Python of its own, what the product says of itself."""

from collections import Counter
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

from django.db import connection

COLUMNS = ("quantity", "tokens_input", "tokens_output", "tokens_total", "cost_total", "charge_total")


def problems(went_out: Iterable[str]) -> list[str]:
    """What is wrong after the sweep; empty when each call that went out is in the books exactly once."""
    with connection.cursor() as cursor:
        cursor.execute("select execution_id from usage_events")
        events = Counter(row[0] for row in cursor.fetchall())
        cursor.execute("select count(*) from usage_holds")
        holds = cursor.fetchone()
        cursor.execute("select count(*) from usage_quarantine")
        quarantined = cursor.fetchone()
    found = [f"call {call} went out and has {events[call]} events" for call in went_out if events[call] != 1]
    found += [f"{call} has {count} events" for call, count in events.items() if count > 1]
    if holds and holds[0]:
        found.append(f"{holds[0]} holds are still open")
    if quarantined and quarantined[0]:
        found.append(f"{quarantined[0]} rows are in quarantine")
    return found + _differences()


def _differences() -> list[str]:
    """Σ events + Σ corrections against Σ daily usage, by customer."""
    counted = _sums("usage_events", "count(*)")
    for customer, sums in _sums("usage_corrections", "coalesce(sum(events), 0)").items():
        counted[customer] = [
            a + b for a, b in zip(counted.get(customer, [Decimal(0)] * len(sums)), sums, strict=True)
        ]
    kept = _sums("daily_usage", "coalesce(sum(events), 0)")
    return [
        f"customer {customer}: events and corrections {counted.get(customer)}, daily usage {kept.get(customer)}"
        for customer in sorted({*counted, *kept})
        if counted.get(customer) != kept.get(customer)
    ]


def _sums(table: str, events: str) -> dict[str, list[Decimal]]:
    sums = ", ".join(f"coalesce(sum({name}), 0)" for name in COLUMNS)
    with connection.cursor() as cursor:
        cursor.execute(f"select customer_id, {events}, {sums} from {table} group by customer_id")
        rows: list[Any] = cursor.fetchall()
    return {str(row[0]).replace("-", ""): [Decimal(value) for value in row[1:]] for row in rows}


class Step:
    """What the stories tell of one call: when its hold and its settle began and ended (ns; 0 and never where unknown)."""

    def __init__(self, customer: str, amount: Decimal, began: int) -> None:
        self.customer, self.amount, self.hold_began = customer, amount, began
        self.hold_ended = self.settled = NEVER
        self.admitted: bool | None = None
        self.charge = Decimal(0)

    def most_until(self, instant: int, since: int) -> Decimal:
        """The most of the customer's credits that the call may have taken at an instant of [since, instant]."""
        if self.hold_began > instant or self.admitted is False:
            return Decimal(0)
        return self.charge if self.settled < since else max(self.amount, self.charge)


NEVER = 2**63


def steps_of(story: Iterable[str]) -> list[Step]:
    """The calls of all stories together; the last line of a process that was killed may be torn."""
    steps: dict[str, Step] = {}
    for line in story:
        at, what, *rest = line.split()
        if what == "hold" and len(rest) == 3:
            steps[rest[0]] = Step(rest[1], Decimal(rest[2]), int(at))
        elif what == "held" and len(rest) == 2:
            steps[rest[0]].hold_ended, steps[rest[0]].admitted = int(at), rest[1] == "1"
        elif what == "settle" and len(rest) == 2:
            steps[rest[0]].charge = Decimal(rest[1])
        elif what == "settled" and len(rest) == 1:
            steps[rest[0]].settled = int(at)
    return list(steps.values())


def phantom_refusals(steps: Iterable[Step], granted: Mapping[str, Decimal]) -> list[str]:
    """Refusals that cannot have been right at any instant between question and answer, whatever order the others came in."""
    by_customer: dict[str, list[Step]] = {}
    for step in steps:
        by_customer.setdefault(step.customer, []).append(step)
    found = []
    for customer, calls in by_customer.items():
        for refused in (call for call in calls if call.admitted is False):
            taken = sum(call.most_until(refused.hold_ended, refused.hold_began) for call in calls)
            if granted[customer] - taken >= refused.amount:
                found.append(
                    f"{customer} had {granted[customer] - taken} free and was refused {refused.amount}"
                )
    return found
