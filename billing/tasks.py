"""Jobs of billing. Each is a sweep over the state of the database: it may run twice at once, die anywhere, or lose its
message; the next tick repeats what is left."""

import logging
from datetime import timedelta

from celery import shared_task

from billing import alerts, invoicing, ledger, subscriptions, top_up
from billing.ledger_check import check_ledger, check_postings
from billing.payments import current_payments
from pricing import clock
from pricing.models import ClockOffset

SETTLED_AFTER, LOOKED_BACK = (
    timedelta(minutes=5),
    timedelta(minutes=70),
)  # a little more than from one check to the next

log = logging.getLogger("billing.tasks")


@shared_task(name="billing.expire_credits", ignore_result=True)
def expire_credits() -> int:
    """Expire what is left of grants whose time has come; how many."""
    clock.set_offset(ClockOffset.read())
    return ledger.expire_due(clock.now())


@shared_task(name="billing.check_ledger", ignore_result=True)
def check() -> int:
    """Add the ledger up again, and compare the last hour's events with it; how many figures differ."""
    clock.set_offset(ClockOffset.read())
    until = clock.now() - SETTLED_AFTER
    drifts = [*check_ledger(), *check_postings(until - LOOKED_BACK, until)]
    for drift in drifts:
        log.error("the ledger does not add up: %s", drift)
    return len(drifts)


@shared_task(name="billing.alerts", ignore_result=True)
def raise_alerts() -> int:
    """Say which thresholds were reached; how many. E-mails go out in the same tick."""
    clock.set_offset(ClockOffset.read())
    made = alerts.raise_due(clock.now())
    alerts.send_mails(clock.now())
    return made


@shared_task(name="billing.top_up", ignore_result=True)
def top_up_credits() -> int:
    """Buy credits for customers whose rule says so; how many purchases were paid. Nothing without a way to take money."""
    clock.set_offset(ClockOffset.read())
    payments = current_payments()
    return top_up.top_up_due(payments, clock.now()) if payments is not None else 0


@shared_task(name="billing.invoices", ignore_result=True)
def bill_what_is_over() -> int:
    """Finalise the invoices of periods that are over; how many. Who cannot be billed is parked, and tried again next time."""
    clock.set_offset(ClockOffset.read())
    outcomes = [billed.outcome for billed in invoicing.run(clock.now())]
    if failed := outcomes.count("failed"):
        log.error("%d customers could not be billed; see the parked ones in the admin", failed)
    return outcomes.count("charged")


@shared_task(name="billing.subscriptions", ignore_result=True)
def change_subscriptions() -> int:
    """Carry out the changes of subscriptions whose instant has come; how many."""
    clock.set_offset(ClockOffset.read())
    return subscriptions.carry_out_due(clock.now())
