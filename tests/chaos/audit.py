"""The auditor: counts again, in plain SQL and Python of its own, what the product says of itself."""

from collections import Counter
from collections.abc import Iterable
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
