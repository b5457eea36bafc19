"""The bill of a period, as a value: every line of it, in coins, with taxes. Right at any time: it is made anew from what is
known whenever somebody asks. Finalising writes exactly this (`billing.invoicing`).

    lines    base fees · what the plan prices · what the price book priced · what came late to earlier periods
             − what credits have paid · − what a hard limit wrote off · what the last invoice left over
    equation Σ of all lines before they are rounded = Σ of the lines as they are shown + what is carried to the next invoice
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
from django.db.models import Q, QuerySet, Sum

from billing.models import Balance, Customer, Entry, Invoice, InvoiceLine, PlanVersion, Subscription
from billing.period_rating import Item, rate_period, said_then
from billing.periods import Period
from billing.subscriptions import version_of
from metering import reports
from pricing.money import EXACT, decimal_string, in_coins, round_amount

ZERO, HUNDRED = Decimal(0), Decimal(100)
LATE_WITHIN = timedelta(days=400)  # what comes later than that to a period is billed by hand
Kind = InvoiceLine.Kind
Key = tuple[str, str, str, str]
_USAGE = (Kind.FEATURE, Kind.TRUE_UP, Kind.USAGE)


class Line(msgspec.Struct, frozen=True):
    """An item as the bill shows it: without tax, in the smallest coin."""

    item: Item
    amount: Decimal
    tax: Decimal


class Draft(msgspec.Struct, frozen=True):
    """A bill. `carried` is what is left for the next one: less than a coin, or what would make this one negative."""

    customer: Customer
    version: PlanVersion | None
    period: Period
    currency: str
    tax_percent: Decimal
    lines: tuple[Line, ...]
    carried: Decimal
    seen: dict[str, list[str]]

    @property
    def bills_something(self) -> bool:
        """Whether it says anything that the last invoice has not said. What that one left over waits."""
        return any(line.item.kind != Kind.CARRIED for line in self.lines)

    @property
    def subtotal(self) -> Decimal:
        return sum((line.amount for line in self.lines), ZERO)

    @property
    def tax(self) -> Decimal:
        return sum((line.tax for line in self.lines), ZERO)

    @property
    def total(self) -> Decimal:
        return self.subtotal + self.tax


def draft_of(customer: Customer, period: Period) -> Draft:
    """The bill of a period of the customer, as far as it is known by now."""
    version = _version_at_end(customer, period)
    earlier = list(_earlier(customer, period))
    items = rate_period(customer, version, period)
    late, seen = _late(customer, period, earlier)
    items += [*late, *_paid_otherwise(customer, period), *_left_over(customer, period)]
    percent = ZERO if customer.tax_exempt else customer.tax_percent
    lines, carried = _in_coins(items, customer, percent, period)
    return Draft(customer, version, period, customer.currency, percent, lines, carried, seen)


def next_period(customer: Customer) -> Period:
    """The first period of the customer that is not billed yet. Another grid (a subscription that starts with an anchor of its
    own, or ends) ends a period early."""
    start = customer.billed_until or _first_start(customer)
    end = customer.period_at(start).end
    changes = Q(started_at__gt=start, started_at__lt=end) | Q(ended_at__gt=start, ended_at__lt=end)
    cuts: set[datetime] = set()
    for subscription in customer.subscriptions.filter(changes):
        cuts |= {at for at in (subscription.started_at, subscription.ended_at) if at and start < at < end}
    for cut in sorted(cuts):
        if customer.period_at(cut).start == cut:
            return Period(start, cut)
    return Period(start, end)


def _first_start(customer: Customer) -> datetime:
    """Where there is something to bill for the first time: a subscription or use; else the period in which it came."""
    begun = customer.subscriptions.order_by("started_at").values_list("started_at", flat=True).first()
    used = reports.first_period(customer.pk)
    return min((at for at in (begun, used) if at), default=customer.period_at(customer.created_at).start)


def _version_at_end(customer: Customer, period: Period) -> PlanVersion | None:
    """The plan that ran last in the period."""
    ran = Subscription.objects.filter(customer=customer, started_at__lt=period.end).exclude(
        ended_at__lte=period.start
    )
    last = ran.select_related("plan_version__plan").order_by("-started_at").first()
    if last is not None:
        return last.plan_version
    return version_of(customer) if not customer.subscriptions.exists() else None


def _invoices_of(customer: Customer) -> "QuerySet[Invoice]":
    return Invoice.objects.counting().filter(customer=customer, kind=Invoice.Kind.INVOICE)


def _earlier(customer: Customer, period: Period) -> "QuerySet[Invoice]":
    """Those to whose periods something may still come."""
    lately = _invoices_of(customer).filter(period_start__gte=period.start - LATE_WITHIN)
    return lately.filter(period_end__lte=period.start).order_by("period_start")


def _late(
    customer: Customer, period: Period, earlier: Sequence[Invoice]
) -> tuple[list[Item], dict[str, list[str]]]:
    """What has come to earlier periods since they were billed, and what daily usage comes to by now."""
    since = earlier[0].period_start if earlier else period.start
    now: dict[str, list[str]] = {}
    for start, events, quantity, charge in reports.sums_by_period(customer.pk, since, period.end):
        now[start.isoformat()] = [str(events), decimal_string(quantity), decimal_string(charge)]
    known: dict[str, list[str]] = {}
    for invoice in earlier:
        known |= invoice.seen
    items: list[Item] = []
    for invoice in earlier:
        billed = Period(invoice.period_start, invoice.period_end)
        starts = [start for start in now if datetime.fromisoformat(start) in billed]
        if any(now[start] != known.get(start) for start in starts):
            items += _late_items(customer, invoice, billed)
    return items, now


def _late_items(customer: Customer, invoice: Invoice, billed: Period) -> Iterator[Item]:
    """By what is charged: what it comes to by now, less what was billed for it."""
    is_of = Q(invoice=invoice, kind__in=_USAGE) | Q(
        invoice__customer=customer, kind=Kind.LATE, period_start=billed.start
    )
    before: dict[Key, Decimal] = {}
    for line in InvoiceLine.objects.filter(is_of).exclude(invoice__state=Invoice.State.VOID):
        key = _key_of(line)
        before[key] = before.get(key, ZERO) + line.exact
    now: dict[Key, tuple[Decimal, Item]] = {}
    for item in rate_period(customer, invoice.plan_version, billed, overrides=said_then(invoice.overrides)):
        if item.kind in _USAGE:
            total, _ = now.get(item.key, (ZERO, item))
            now[item.key] = (total + item.exact, item)
    for key in sorted({*before, *now}):
        difference = now.get(key, (ZERO, None))[0] - before.get(key, ZERO)
        if difference:
            kind, feature, provider, model = key
            yield Item(
                Kind.LATE, f"{model or feature}: came late to {billed.start:%d %b %Y} – {billed.end:%d %b %Y}", difference, billed,
                feature=feature, source={
                    "of": kind, "provider": provider, "model": model, "invoice": invoice.number,
                    "text": f"{decimal_string(now.get(key, (ZERO, None))[0])} by now, less {decimal_string(before.get(key, ZERO))} billed",
                },
            )  # fmt: skip


def _key_of(line: InvoiceLine) -> Key:
    kind = line.source["of"] if line.kind == Kind.LATE else line.kind
    kind = Kind.FEATURE if kind == Kind.TRUE_UP else kind
    return (str(kind), line.feature, line.source.get("provider", ""), line.source.get("model", ""))


def _paid_otherwise(customer: Customer, period: Period) -> Iterator[Item]:
    """What credits have paid of the calls by the end of the period, and what was written off, less what earlier invoices have
    said of that: sums of the ledger, so that over all invoices nothing is left out and nothing told twice."""
    balance = Balance.objects.filter(pk=customer.pk).first()
    if balance is None:
        return
    since = _moved_since(customer, period.end)
    told = dict(
        InvoiceLine.objects.filter(invoice__customer=customer, kind__in=(Kind.CREDITS, Kind.WRITTEN_OFF))
        .exclude(invoice__state=Invoice.State.VOID).values_list("kind").annotate(total=Sum("exact")).order_by()
    )  # fmt: skip
    paid = balance.consumed - balance.written_off - balance.receivable - since["available"]
    written_off = balance.written_off - since["written_off"]
    for kind, amount, words in (
        (Kind.CREDITS, paid, "Paid with credits"),
        (Kind.WRITTEN_OFF, written_off, "Used beyond a hard limit, not charged"),
    ):
        difference = -amount - (told.get(kind) or ZERO)
        if difference:
            text = f"{decimal_string(amount)} by the end of the period, {decimal_string(-(told.get(kind) or ZERO))} of it on earlier invoices"
            yield Item(kind, words, difference, period, source={"text": text})


def _moved_since(customer: Customer, at: datetime) -> dict[str, Decimal]:
    """What calls have taken from each account since `at`, less what came back. (Of a period that has just ended: a little.)"""
    moved = {"available": ZERO, "written_off": ZERO}
    kinds = (Entry.Kind.USE, Entry.Kind.USE_RETURNED)
    entries = Entry.objects.filter(customer_id=customer.pk, created_at__gte=at, kind__in=kinds).order_by()
    for kind, debit, credit, total in entries.values_list("kind", "debit", "credit").annotate(
        total=Sum("amount")
    ):
        account = debit if kind == Entry.Kind.USE else credit
        if account in moved:
            moved[account] += total if kind == Entry.Kind.USE else -total
    return moved


def _left_over(customer: Customer, period: Period) -> Iterator[Item]:
    """However long ago the last invoice was."""
    last = _invoices_of(customer).filter(period_end__lte=period.start).order_by("period_start").last()
    if last is not None and last.carried:
        yield Item(
            Kind.CARRIED, f"Carried over from {last.number}", last.carried, period,
            source={"invoice": last.number, "text": "what rounding left, or more was given back than charged"},
        )  # fmt: skip


def _in_coins(
    items: Sequence[Item], customer: Customer, percent: Decimal, period: Period
) -> tuple[tuple[Line, ...], Decimal]:
    """The lines in the smallest coin, and what is carried. A bill below nothing is one of nothing: the rest is carried."""
    amounts, left = in_coins((item.exact for item in items), customer.currency)
    lines = [_taxed(item, amount, customer, percent) for item, amount in zip(items, amounts, strict=True)]
    net = sum((line.amount for line in lines), ZERO)
    if net < 0:
        item = Item(
            Kind.CARRIED,
            "Carried to the next invoice",
            -net,
            period,
            source={"text": "nothing is to be paid"},
        )
        lines.append(_taxed(item, -net, customer, percent))
        left = EXACT.add(left, net)
    return tuple(lines), left


def _taxed(item: Item, amount: Decimal, customer: Customer, percent: Decimal) -> Line:
    """The line with its tax, rounded once. Where prices hold the tax already it is taken out of the amount."""
    if not percent:
        return Line(item, amount, ZERO)
    if not customer.tax_inclusive:
        tax = round_amount(EXACT.divide(EXACT.multiply(amount, percent), HUNDRED), coin_of=customer.currency)
        return Line(item, amount, tax)
    net = round_amount(
        EXACT.divide(EXACT.multiply(amount, HUNDRED), HUNDRED + percent), coin_of=customer.currency
    )
    return Line(item, net, amount - net)


def document_of(draft: Draft) -> dict[str, Any]:
    """The draft as the API shows it."""
    return {
        "id": None, "number": None, "kind": "invoice", "state": "draft", "customer": draft.customer.external_id,
        "plan": draft.version.plan.slug if draft.version else None, "currency": draft.currency,
        "period": {"start": draft.period.start.isoformat(), "end": draft.period.end.isoformat()},
        "subtotal": decimal_string(draft.subtotal), "tax": decimal_string(draft.tax), "total": decimal_string(draft.total),
        "carried": decimal_string(draft.carried),
        "lines": [
            {
                "id": None, "kind": line.item.kind, "feature": line.item.feature or None, "description": line.item.description,
                "quantity": None if line.item.quantity is None else decimal_string(line.item.quantity),
                "unit_price": None if line.item.unit_price is None else decimal_string(line.item.unit_price),
                "exact": decimal_string(line.item.exact), "amount": decimal_string(line.amount),
                "tax_percent": decimal_string(draft.tax_percent), "tax": decimal_string(line.tax),
                "period": {"start": line.item.period.start.isoformat(), "end": line.item.period.end.isoformat()},
                "source": line.item.source,
            }
            for line in draft.lines
        ],
    }  # fmt: skip
