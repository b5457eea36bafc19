"""Credits that buy themselves when they run low: a sweep that never buys twice.

A purchase is written as pending before anybody is asked for money, under a lock on the rule, and at most one of a customer's
is pending: the database refuses a second. The payment has the purchase's id for its key, so a sweep that died is resumed
without paying again; the grant has it too. What was decided is not decided again because a payment takes its time.
"""

import logging
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import F, Sum

from billing import ledger
from billing.models import Balance, TopUp, TopUpRule
from billing.payments import Payment, Payments
from metering.ids import NIL, uuid7

log = logging.getLogger("billing.top_up")

DECLINED_MAX = 3  # in a row, and the rule is switched off
PAGE = 200
COMMENT = "bought by the top-up rule"


def top_up_due(payments: Payments, at: datetime, *, page: int = PAGE) -> int:
    """Finish what is pending, and buy for whoever is low; how many purchases were paid. Those of which nobody can say whether
    they were paid keep no other from its turn."""
    for rule in _low():
        _begin(rule, at)
    return sum(_finish(purchase, payments, at) for purchase in _pending(page))


def _pending(page: int) -> Iterator[TopUp]:
    """The oldest first, in pages."""
    after = NIL
    while True:
        waiting = TopUp.objects.filter(state=TopUp.State.PENDING, pk__gt=after)
        found = list(waiting.order_by("pk")[:page])
        yield from found
        if len(found) < page:
            return
        after = found[-1].pk


def _low() -> list[UUID]:
    """Customers who have less than their rule wants and nothing pending."""
    low = TopUpRule.objects.filter(
        is_active=True, customer__is_active=True, customer__balance__available__lt=F("below")
    )
    waiting = TopUp.objects.filter(state=TopUp.State.PENDING).values("customer_id")
    return list(
        low.exclude(customer_id__in=waiting).order_by("customer_id").values_list("customer_id", flat=True)
    )


def _begin(customer_id: UUID, at: datetime) -> TopUp | None:
    """Decide once more, alone, and write the purchase; None where there is none to make."""
    try:
        with transaction.atomic():
            rule = TopUpRule.objects.select_for_update().get(pk=customer_id)
            balance = Balance.objects.get(pk=customer_id)
            if not rule.is_active or balance.available >= rule.below or not _may(rule, at):
                return None
            return TopUp.objects.create(
                id=uuid7(at),
                customer_id=customer_id,
                amount=rule.amount,
                currency=balance.currency,
                created_at=at,
            )
    except (IntegrityError, TopUpRule.DoesNotExist):  # another sweep was first; the rule is gone
        return None


def _may(rule: TopUpRule, at: datetime) -> bool:
    """Whether the rule may buy again: the last purchase was long enough ago, and the month has room."""
    made = TopUp.objects.filter(customer_id=rule.pk)
    if made.filter(created_at__gt=at - timedelta(seconds=rule.cool_down_s)).exists():
        return False
    month = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    this_month = made.filter(created_at__gte=month).exclude(state=TopUp.State.DECLINED)
    bought = this_month.aggregate(total=Sum("amount"))["total"] or Decimal(0)
    return bool(bought + rule.amount <= rule.per_month_max)


def _finish(purchase: TopUp, payments: Payments, at: datetime) -> bool:
    """Ask for the money, and book what became of it. True where it was paid."""
    try:
        payment = payments.charge(
            purchase.customer_id, purchase.amount, purchase.currency, key=f"top-up/{purchase.pk}"
        )
    except Exception:  # nothing is known of it: it stays pending, and is asked for again under the same key
        log.exception("nothing is known of the payment of top-up %s", purchase.pk)
        return False
    if payment.state == "pending":
        return False
    with transaction.atomic():
        changed = TopUp.objects.filter(pk=purchase.pk, state=TopUp.State.PENDING).update(
            state=payment.state,
            reference=payment.reference[:255],
            detail=payment.detail[:300],
            finished_at=at,
        )
        if not changed:  # another sweep has booked it
            return False
        if payment.state == "paid":
            ledger.grant(
                purchase.customer,
                purchase.amount,
                purchase.currency,
                key=f"top-up/{purchase.pk}",
                at=at,
                reason=COMMENT,
            )
            return True
    _switch_off_if_hopeless(purchase, payment)
    return False


def _switch_off_if_hopeless(purchase: TopUp, payment: Payment) -> None:
    last = TopUp.objects.filter(customer_id=purchase.customer_id).values_list("state", flat=True)[
        :DECLINED_MAX
    ]
    log.warning("top-up %s was declined: %s", purchase.pk, payment.detail)
    if list(last) == [TopUp.State.DECLINED] * DECLINED_MAX:
        TopUpRule.objects.filter(pk=purchase.customer_id).update(is_active=False)
