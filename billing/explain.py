"""Where a line of an invoice comes from: the daily usage it adds up, the events behind that, the rates they were charged by,
and the arithmetic. What is told adds up to the line, to the last digit, or says by how much it does not."""

from collections.abc import Iterable
from datetime import timedelta
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum

from billing.models import Invoice, InvoiceLine
from metering.models import DailyUsage, UsageCorrection, UsageEvent
from pricing.models import Rate
from pricing.money import decimal_string

ZERO = Decimal(0)
EVENTS_SHOWN = 20
SETTLED_WITHIN = timedelta(days=40)  # after the period in which they were used
Kind = InvoiceLine.Kind


def explain(line: InvoiceLine) -> dict[str, Any]:
    """The line, its arithmetic, and what is behind it."""
    document = {
        "invoice": line.invoice.number, "line": str(line.pk), "kind": line.kind, "description": line.description,
        "quantity": _text(line.quantity), "unit_price": _text(line.unit_price), "exact": _text(line.exact),
        "amount": _text(line.amount), "currency": line.invoice.currency, "formula": line.source.get("text", ""),
        "rounding": f"{decimal_string(line.exact)} and what was left of the lines before it come to {decimal_string(line.amount)}"
        if line.exact != line.amount else None,
        "source": line.source,
    }  # fmt: skip
    of = line.source.get("of", line.kind)
    if of not in (Kind.USAGE, Kind.FEATURE, Kind.TRUE_UP):
        return document
    days = _days(line)
    return document | {"days": [_day(one) for one in days], "events": _events(line)} | _sum(line, of, days)


def _scope(line: InvoiceLine, **more: Any) -> Q:
    found = Q(
        customer_id=line.invoice.customer_id, feature=line.feature, period_start__gte=line.period_start,
        period_start__lt=line.period_end, **more,
    )  # fmt: skip
    if line.source.get("of", line.kind) == Kind.USAGE:
        found &= Q(provider=line.source.get("provider", ""), model=line.source.get("model", ""))
    return found


def _days(line: InvoiceLine) -> list[dict[str, Any]]:
    sums = DailyUsage.objects.filter(_scope(line)).values("day").annotate(
        calls=Sum("events"), used=Sum("quantity"), tokens=Sum("tokens_total"), charge=Sum("charge_total")
    )  # fmt: skip
    return [dict(one) for one in sums.order_by("day")]


def _day(one: dict[str, Any]) -> dict[str, Any]:
    return {
        "day": one["day"].isoformat(), "calls": one["calls"], "quantity": _text(one["used"]), "tokens": one["tokens"],
        "charge": _text(one["charge"]),
    }  # fmt: skip


def _events(line: InvoiceLine) -> dict[str, Any]:
    """How many, what they came to as they were written and by corrections, the newest of them, and their rates."""
    written = (line.period_start, line.period_end + SETTLED_WITHIN)
    events = UsageEvent.objects.filter(_scope(line, created_at__range=written))
    sums = events.aggregate(count=Count("id"), charge=Sum("charge_total"), quantity=Sum("quantity"))
    corrections = UsageCorrection.objects.filter(_scope(line))
    corrected = corrections.aggregate(count=Count("id"), charge=Sum("charge_total"))
    return {
        "count": sums["count"], "charge": _text(sums["charge"] or ZERO), "quantity": _text(sums["quantity"] or ZERO),
        "corrections": corrected["count"], "corrected_by": _text(corrected["charge"] or ZERO),
        "newest": [
            {"id": str(one.pk), "occurred_at": one.occurred_at.isoformat(), "charge": _text(one.charge_total), "rate_ids": one.rate_ids}
            for one in events.order_by("-created_at", "-id")[:EVENTS_SHOWN]
        ],
        "rates": _rates(events),
    }  # fmt: skip


def _rates(events: "QuerySet[UsageEvent]") -> list[dict[str, Any]]:
    """The rates that any of them was charged or costed by, each as it stands: none is ever edited."""
    ids: set[int] = set()
    for rate_ids in _distinct(events):
        ids |= set(rate_ids)
    rates = (
        Rate.objects.filter(pk__in=ids)
        .select_related("book")
        .order_by("book__slug", "model", "bucket", "effective_from")
    )
    return [
        {
            "id": one.pk, "book": one.book.slug, "model": one.model, "bucket": one.bucket, "price": _text(one.price),
            "effective_from": one.effective_from.isoformat(),
            "effective_to": one.effective_to.isoformat() if one.effective_to else None,
        }
        for one in rates
    ]  # fmt: skip


def _distinct(events: "QuerySet[UsageEvent]") -> Iterable[list[int]]:
    return events.order_by().values_list("rate_ids", flat=True).distinct()


def _sum(line: InvoiceLine, of: str, days: list[dict[str, Any]]) -> dict[str, Any]:
    """Whether what is told is what was billed. What the price book priced is the sum of its days; what the plan priced rests on
    their quantity. What came since is on a later invoice."""
    if of == Kind.USAGE and line.kind == Kind.USAGE:
        total = sum((one["charge"] for one in days), ZERO)
        return {"total": _text(total), "since": _text(total - line.exact)}
    return {"total": _text(sum((one["used"] for one in days), ZERO)), "since": None}


def line_of(invoice: Invoice, line_id: Any) -> InvoiceLine | None:
    """A line of this invoice."""
    return invoice.lines.select_related("invoice").filter(pk=line_id).first()


def _text(value: Any) -> str | None:
    return None if value is None else decimal_string(Decimal(value))
