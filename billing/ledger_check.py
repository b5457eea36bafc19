"""The auditor of the ledger: adds every customer's entries, holds, grants and events up again, and says what does not agree.

It shares no code with what writes the ledger. Each page of customers is read from one snapshot in a short transaction.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

import msgspec
from django.db import connection, transaction
from django.db.models import Max, Q, Sum

from billing.models import Balance, Entry, Grant
from metering.models import Hold, UsageEvent

PAGE = 200
MARGIN = timedelta(minutes=2)
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


def check_postings(since: datetime, until: datetime) -> Iterator[Drift]:
    """Events made in [since, until) whose charges are not what the entries of their posting say. A posting is made in one
    transaction, so its events are of nearly one time."""
    made = Q(created_at__gte=since - MARGIN, created_at__lt=until + MARGIN)
    charged: dict[tuple[UUID, UUID], Decimal] = defaultdict(lambda: ZERO)
    recent = set()
    events = UsageEvent.objects.filter(made, posting_id__isnull=False).values_list(
        "customer_id", "posting_id"
    )
    for customer, posting, total, last in events.annotate(
        total=Sum("charge_total"), last=Max("created_at")
    ).order_by():
        charged[customer, posting] = total or ZERO
        if since <= last < until:
            recent.add((customer, posting))
    entered: dict[tuple[UUID, UUID], Decimal] = defaultdict(lambda: ZERO)
    entries = Entry.objects.filter(made, kind__in=(Entry.Kind.USE, Entry.Kind.USE_RETURNED)).order_by()
    for customer, posting, kind, total in entries.values_list("customer_id", "posting_id", "kind").annotate(
        total=Sum("amount")
    ):
        entered[customer, posting] += total if kind == Entry.Kind.USE else -total
    for key in sorted(recent):
        if charged[key] != entered[key]:
            yield Drift(key[0], f"posting {key[1]}", entered[key], charged[key])


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
