"""What a re-rating would change, or has changed, told event by event and added up; as a table for people, as JSON for machines.

Both are written while the events come, so that a run over millions of them needs no more memory than one over a few.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Protocol, TextIO
from uuid import UUID

import msgspec

from metering.reprice import AMOUNTS, Kept
from metering.rerating import Seen
from metering.rows import EventRow
from pricing.money import decimal_string

ZERO = Decimal(0)
_encode = msgspec.json.Encoder(decimal_format="string").encode


class Sums(msgspec.Struct):
    """Of the events that differ: how many, and what they cost and are charged before and after. Unknown adds nothing."""

    events: int = 0
    cost_old: Decimal = ZERO
    cost_new: Decimal = ZERO
    charge_old: Decimal = ZERO
    charge_new: Decimal = ZERO

    def add(self, old: EventRow, new: EventRow) -> None:
        self.events += 1
        self.cost_old += old.cost_total or ZERO
        self.cost_new += new.cost_total or ZERO
        self.charge_old += old.charge_total or ZERO
        self.charge_new += new.charge_total or ZERO

    def document(self) -> dict[str, Any]:
        """By name, amounts as text."""
        found = msgspec.structs.asdict(self)
        return {
            name: decimal_string(value) if isinstance(value, Decimal) else value
            for name, value in found.items()
        }


class Tally:
    """Adds up what is seen: by customer and currency, and over all by currency."""

    def __init__(self) -> None:
        self.seen = 0
        self.kept: Counter[str] = Counter()
        self.customers: dict[tuple[UUID, str], Sums] = {}
        self.totals: dict[str, Sums] = {}

    def add(self, seen: Seen) -> None:
        self.seen += 1
        if isinstance(seen.outcome, Kept):
            self.kept[seen.outcome.why] += 1
        if seen.differs:
            old, new = seen.old, seen.new
            self.customers.setdefault((old.customer_id, old.currency), Sums()).add(old, new)
            self.totals.setdefault(old.currency, Sums()).add(old, new)


class Report(Protocol):
    """Takes pages of one customer each, then the end."""

    def page(self, seen: Sequence[Seen]) -> None: ...

    def end(self, outcome: dict[str, Any]) -> None:
        """`outcome`: whether it was applied, the run, events that were refused."""


class Table:
    """For people: a line for each event that differs, under its customer."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._tally = out, Tally()
        self._customer: UUID | None = None

    def page(self, seen: Sequence[Seen]) -> None:
        for one in seen:
            self._tally.add(one)
            if one.differs:
                self._event(one.old, one.new)

    def end(self, outcome: dict[str, Any]) -> None:
        tally, write = self._tally, self._out.write
        if tally.customers:
            write("\nBy customer\n")
        for (customer, currency), sums in tally.customers.items():
            write(f"  {customer}  {_told(sums, currency)}\n")
        write("\nIn all\n")
        for currency, sums in tally.totals.items():
            write(f"  {_told(sums, currency)}\n")
        write(f"  {tally.seen} events looked at, {sum(s.events for s in tally.totals.values())} differ\n")
        for why, count in tally.kept.items():
            write(f"  {count} cannot be rated again: {why}\n")

    def _event(self, old: EventRow, new: EventRow) -> None:
        if old.customer_id != self._customer:
            self._customer = old.customer_id
            self._out.write(f"\ncustomer {old.customer_id}\n")
        self._out.write(
            f"  {old.occurred_at:%Y-%m-%d %H:%M:%S}  {old.id}  {old.provider}/{old.model}  "
            f"charge {_amount(old.charge_total)} → {_amount(new.charge_total)}  "
            f"cost {_amount(old.cost_total)} → {_amount(new.cost_total)} {old.currency}  "
            f"{old.pricing_status} → {new.pricing_status}  rates {_ids(old.rate_ids)} → {_ids(new.rate_ids)}\n"
        )


class Document:
    """For machines: one JSON document, an event a line."""

    def __init__(self, out: TextIO) -> None:
        self._out, self._tally = out, Tally()
        self._separator = '{"events": [\n'

    def page(self, seen: Sequence[Seen]) -> None:
        for one in seen:
            self._tally.add(one)
            if one.differs:
                self._out.write(self._separator + _encode(_document(one.old, one.new)).decode())
                self._separator = ",\n"

    def end(self, outcome: dict[str, Any]) -> None:
        tally = self._tally
        if not tally.totals:
            self._out.write(self._separator)
        rest = {
            "customers": [
                {"customer": customer, "currency": currency, **sums.document()}
                for (customer, currency), sums in tally.customers.items()
            ],
            "totals": [{"currency": currency, **sums.document()} for currency, sums in tally.totals.items()],
            "seen": tally.seen,
            "kept": tally.kept,
            **outcome,
        }
        self._out.write("\n], " + _encode(rest).decode()[1:] + "\n")


def _document(old: EventRow, new: EventRow) -> dict[str, Any]:
    return {
        "event": old.id, "customer": old.customer_id, "occurred_at": old.occurred_at, "provider": old.provider,
        "model": old.model, "currency": old.currency, "old": _priced(old), "new": _priced(new),
    }  # fmt: skip


def _priced(event: EventRow) -> dict[str, Any]:
    amounts = ((name, getattr(event, name)) for name in AMOUNTS)
    return {
        **{name: None if value is None else decimal_string(value) for name, value in amounts},
        "pricing_status": event.pricing_status,
        "rate_ids": event.rate_ids,
    }


def _told(sums: Sums, currency: str) -> str:
    return (
        f"{sums.events} events, charge {_moved(sums.charge_old, sums.charge_new)}, "
        f"cost {_moved(sums.cost_old, sums.cost_new)} {currency}"
    )


def _moved(old: Decimal, new: Decimal) -> str:
    difference = new - old
    sign = "+" if difference > 0 else ""
    return f"{decimal_string(old)} → {decimal_string(new)} ({sign}{decimal_string(difference)})"


def _amount(value: Decimal | None) -> str:
    return "unknown" if value is None else decimal_string(value)


def _ids(rates: Iterable[int]) -> str:
    return ",".join(map(str, rates)) or "none"
