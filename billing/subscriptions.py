"""Which plan a customer is on: the acts that start and end subscriptions.

SubscriptionError
├─ UnknownPlan          there is no such plan, or nothing of it is published
├─ OtherCurrency        the plan charges in another currency than the customer pays in
└─ SubscriptionChanged  somebody else changed it meanwhile, or it would start before what is known already
"""

from datetime import datetime

from django.db import IntegrityError, transaction

from billing import ledger
from billing.models import Balance, Customer, Plan, PlanVersion, Subscription
from billing.plans import default_slug


class SubscriptionError(Exception):
    """A subscription that cannot be. Nothing was changed; the text says why."""


class UnknownPlan(SubscriptionError):
    """There is no such plan, or nothing of it is published."""


class OtherCurrency(SubscriptionError):
    """The plan charges in another currency than the customer pays in."""


class SubscriptionChanged(SubscriptionError):
    """Somebody else changed it meanwhile, or it would start before what is known already."""


def subscribe(customer: Customer, plan_slug: str, at: datetime) -> tuple[Subscription, bool]:
    """Put the customer on the plan from `at` on, and say whether that is new; what ran until then ends.

    On the plan already: that subscription stands, whatever version of the plan it is on. Of two at once one wins, and the
    other is told so unless it wanted the same. Raises a SubscriptionError.
    """
    version = _offered(customer, plan_slug)
    with transaction.atomic():
        running = _running(customer)
        if running is not None and running.plan_version.plan_id == version.plan_id:
            return running, False
        if _end(customer, running, at):
            started = _start(customer, version, at)
            if started is not None:
                _set_hard(customer, hard=version.hard_credits)
                return started, True
        winner = _running(customer)
        if winner is not None and winner.plan_version.plan_id == version.plan_id:
            return winner, False
        now_on = f"It is on {winner.plan_version.plan.slug} by now." if winner else "It is on no plan by now."
        raise SubscriptionChanged(
            f"The subscription of {customer.external_id} has changed meanwhile. {now_on}"
        )


def plan_of(customer: Customer) -> str:
    """The slug of the plan that the customer is on."""
    running = _running(customer)
    return running.plan_version.plan.slug if running is not None else default_slug()


def version_of(customer: Customer) -> PlanVersion | None:
    """The version of the plan that the customer is on: its subscription's, or the default plan's current one."""
    running = _running(customer)
    if running is not None:
        return running.plan_version
    default = Plan.objects.filter(slug=default_slug()).first()
    return default.current if default is not None else None


def _offered(customer: Customer, plan_slug: str) -> PlanVersion:
    plan = Plan.objects.filter(slug=plan_slug).first()
    version = plan.current if plan is not None else None
    if version is None:
        raise UnknownPlan(f"There is no plan {plan_slug!r}.")
    if version.currency != customer.currency:
        raise OtherCurrency(
            f"{version} is in {version.currency}, and the customer pays in {customer.currency}."
        )
    return version


def _running(customer: Customer) -> Subscription | None:
    return customer.subscriptions.running().select_related("plan_version__plan").first()


def _end(customer: Customer, running: Subscription | None, at: datetime) -> bool:
    """End what runs. False where somebody else did."""
    last = customer.subscriptions.order_by("-started_at").first()
    known_until = (
        max((one for one in (last.started_at, last.ended_at) if one), default=None) if last else None
    )
    if (known_until is not None and at < known_until) or (running is not None and at <= running.started_at):
        raise SubscriptionChanged(
            f"A subscription that starts at {at.isoformat()} comes before one that is known already."
        )
    if running is None:
        return True
    return Subscription.objects.filter(pk=running.pk, ended_at=None).update(ended_at=at) == 1


def _start(customer: Customer, version: PlanVersion, at: datetime) -> Subscription | None:
    """The new one; None where another runs already."""
    try:
        with transaction.atomic():
            return Subscription.objects.create(
                customer=customer, plan_version=version, started_at=at, anchor=at, created_at=at
            )
    except IntegrityError:
        return None


def _set_hard(customer: Customer, *, hard: bool) -> None:
    """Have the ledger refuse what credits do not cover, as the plan says. Who never had credits needs no balance for a soft one."""
    if hard or Balance.objects.filter(pk=customer.pk, is_hard=True).exists():
        ledger.set_hard(customer, hard=hard)
