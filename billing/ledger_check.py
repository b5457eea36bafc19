"""The auditor of the ledger: adds every customer's entries, holds, grants and events up again, and says what does not agree.

It shares no code with what writes the ledger. Each page of customers is read from one snapshot in a short transaction.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
from django.db import connection, transaction
from django.db.models import Max, Q, Sum

from billing.models import Balance, Entry, Grant
from metering.models import Hold, UsageEvent

PAGE = 200
SPAN, MARGIN = timedelta(minutes=10), timedelta(minutes=2)
ZERO = Decimal(0)


class Drift(msgspec.Struct, frozen=True):
    """Two figures of a customer that must be one. `what` names them."""

    customer_id: UUID
    what: str
    kept: Decimal
    counted: Decimal


def check_ledger() -> Iterator[Drift]:
    """What does not agree, customer by customer; nothing where all is well."""
    after: UUID | None = None
    while True:
        page = _page(after)
        if not page:
            return
        for drifts in page.values():
            yield from drifts
        after = max(page)


def check_postings(
    since: datetime, until: datetime, *, span: timedelta = SPAN, page: int = PAGE
) -> Iterator[Drift]:
    """Events made in [since, until) whose charges are not what the entries of their posting say.

    A posting is made in one transaction, so its events are of nearly one time, and it belongs to that of its last one. A
    `span` after the other, and of the entries only those of the customers that were charged in it: the ledger is never read
    as a whole, however long it is.
    """
    while since < until:
        end = min(since + span, until)
        charged = _charged(since, end)
        customers = sorted(charged)
        for start in range(0, len(customers), page):
            entered = _entered(customers[start : start + page], since, end)
            for customer in customers[start : start + page]:
                for posting, total in sorted(charged[customer].items()):
                    if total != entered[customer, posting]:
                        yield Drift(customer, f"posting {posting}", entered[customer, posting], total)
        since = end


def _charged(since: datetime, until: datetime) -> dict[UUID, dict[UUID, Decimal]]:
    """By customer: what the events of each posting came to whose last one was made in [since, until)."""
    sums: dict[UUID, dict[UUID, Decimal]] = defaultdict(dict)
    events = UsageEvent.objects.filter(_around(since, until), posting_id__isnull=False).order_by()
    postings = events.values_list("customer_id", "posting_id").annotate(
        total=Sum("charge_total"), last=Max("created_at")
    )
    for customer, posting, total, _ in postings.filter(last__gte=since, last__lt=until):
        sums[customer][posting] = total or ZERO
    return sums


def _entered(customers: Sequence[UUID], since: datetime, until: datetime) -> dict[tuple[UUID, UUID], Decimal]:
    """By customer and posting: what entries have taken from these customers, less what they gave back."""
    sums: dict[tuple[UUID, UUID], Decimal] = defaultdict(lambda: ZERO)
    used = Entry.objects.filter(
        _around(since, until),
        customer_id__in=customers,
        kind__in=(Entry.Kind.USE, Entry.Kind.USE_RETURNED),
    ).order_by()
    for customer, posting, kind, total in used.values_list("customer_id", "posting_id", "kind").annotate(
        total=Sum("amount")
    ):
        sums[customer, posting] += total if kind == Entry.Kind.USE else -total
    return sums


def _around(since: datetime, until: datetime) -> Q:
    return Q(created_at__gte=since - MARGIN, created_at__lt=until + MARGIN)


def _page(after: UUID | None) -> dict[UUID, list[Drift]]:
    with transaction.atomic(durable=False):
        if connection.vendor == "postgresql" and len(connection.savepoint_ids) == 0:
            with connection.cursor() as cursor:
                cursor.execute("set transaction isolation level repeatable read")
        balances = Balance.objects.order_by("pk")
        if after is not None:
            balances = balances.filter(pk__gt=after)
        page = {balance.pk: balance for balance in balances[:PAGE]}
        accounts, held, left = _accounts(page), _held(page), _left(page)
        return {
            customer: _drifts(balance, accounts[customer], held[customer], left[customer])
            for customer, balance in page.items()
        }


def _drifts(balance: Balance, sums: dict[str, Decimal], held: Decimal, left: Decimal) -> list[Drift]:
    """`sums`: what came into each account less what left it."""
    expected = {
        "available": (balance.available, sums["available"]),
        "bought": (balance.bought, -sums["bought"]),
        "granted": (balance.granted, -sums["granted"]),
        "adjusted": (balance.adjusted, -sums["adjustment"]),
        "consumed": (balance.consumed, sums["consumed"]),
        "expired": (balance.expired, sums["expired"]),
        "refunded": (balance.refunded, sums["refunded"]),
        "written_off": (balance.written_off, -sums["written_off"]),
        "receivable": (balance.receivable, -sums["receivable"]),
        "held": (balance.held, held),
        "sum of all accounts": (ZERO, sum(sums.values(), ZERO)),
    }
    drifts = [Drift(balance.pk, what, *pair) for what, pair in expected.items() if pair[0] != pair[1]]
    if (
        left < balance.available
    ):  # what calls consumed may not have been charged to the grants yet, never less
        drifts.append(Drift(balance.pk, "left of the grants", left, balance.available))
    return drifts


def _accounts(page: dict[UUID, Balance]) -> dict[UUID, dict[str, Decimal]]:
    sums: dict[UUID, dict[str, Decimal]] = defaultdict(lambda: defaultdict(lambda: ZERO))
    entries = Entry.objects.filter(customer_id__in=page).order_by()
    for customer, debit, credit, amount in entries.values_list("customer_id", "debit", "credit").annotate(
        total=Sum("amount")
    ):
        sums[customer][debit] -= amount
        sums[customer][credit] += amount
    return sums


def _held(page: dict[UUID, Balance]) -> dict[UUID, Decimal]:
    holds = Hold.objects.filter(customer_id__in=page).order_by().values_list("customer_id", "currency")
    found: dict[UUID, Decimal] = defaultdict(lambda: ZERO)
    for customer, currency, amount in holds.annotate(total=Sum("amount")):
        if currency == page[customer].currency:
            found[customer] += amount
    return found


def _left(page: dict[UUID, Balance]) -> dict[UUID, Decimal]:
    grants = Grant.objects.open().filter(customer_id__in=page).order_by().values_list("customer_id")
    return defaultdict(lambda: ZERO, grants.annotate(total=Sum("remaining")))
