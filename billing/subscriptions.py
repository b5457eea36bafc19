"""Which plan a customer is on: the acts that start, change and end subscriptions.

A change takes effect at once, or at the end of the period: then it is arranged on the row (`changes_at`, `changes_to`) and
carried out by a sweep, within ten seconds of the instant while a worker runs, and as of the instant. A change at once keeps the
anchor where the interval stays the same, so that periods go on as they were.

SubscriptionError
├─ UnknownPlan          there is no such plan, or nothing of it is published
├─ OtherCurrency        the plan charges in another currency than the customer pays in
└─ SubscriptionChanged  somebody else changed it meanwhile, or it would start before what is known already
"""

from datetime import datetime, timedelta

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


def subscribe(
    customer: Customer,
    plan_slug: str,
    at: datetime,
    *,
    trial_days: int | None = None,
    anchor: datetime | None = None,
) -> tuple[Subscription, bool]:
    """Put the customer on the plan from `at` on, and say whether that is new; what ran until then ends.

    On the plan already: that subscription stands, whatever version of the plan it is on. Of two at once one wins, and the
    other is told so unless it wanted the same. `trial_days`: instead of the plan's; a customer tries a plan once. `anchor`: where
    its periods start to be counted. Raises a SubscriptionError.
    """
    version = _offered(customer, plan_slug)
    with transaction.atomic():
        running = _running(customer)
        if running is not None and running.plan_version.plan_id == version.plan_id:
            return running, False
        if _end(customer, running, at):
            days = _trial_of(customer, version) if trial_days is None else trial_days
            trial_ends_at = at + timedelta(days=days) if days else None
            started = _start(customer, version, at, anchor or _anchor(running, version, at), trial_ends_at)
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


def upgrade(subscription: Subscription, at: datetime) -> tuple[Subscription, bool]:
    """Move a subscription to the newest version of its plan, at once. Raises a SubscriptionError."""
    customer = subscription.customer
    version = _offered(customer, subscription.plan_version.plan.slug)
    with transaction.atomic():
        running = _running(customer)
        if running is None or running.plan_version.plan_id != version.plan_id:
            raise SubscriptionChanged("It does not run any more.")
        if running.plan_version_id == version.pk:
            return running, False
        if _end(customer, running, at):
            started = _start(customer, version, at, _anchor(running, version, at), running.trial_ends_at)
            if started is not None:
                _set_hard(customer, hard=version.hard_credits)
                return started, True
    raise SubscriptionChanged("It has changed meanwhile.")


def change_at_period_end(subscription: Subscription, plan_slug: str | None, at: datetime) -> datetime:
    """Arrange that it gives way to the plan (None: that it ends) when the period of `at` ends; that instant. In the place of
    what was arranged before. Raises a SubscriptionError."""
    version = _offered(subscription.customer, plan_slug) if plan_slug is not None else None
    if version is not None and version.pk == subscription.plan_version_id:
        raise SubscriptionChanged("It is on that plan.")
    end = subscription.period_at(at).end
    if not Subscription.objects.filter(pk=subscription.pk, ended_at=None).update(
        changes_at=end, changes_to=version
    ):
        raise SubscriptionChanged("It does not run any more.")
    return end


def keep(subscription: Subscription) -> bool:
    """Take back what was arranged; whether anything was. Raises SubscriptionChanged once it has ended."""
    running = Subscription.objects.filter(pk=subscription.pk, ended_at=None)
    if not running.exists():
        raise SubscriptionChanged("It does not run any more.")
    return running.exclude(changes_at=None).update(changes_at=None, changes_to=None) > 0


def cancel(subscription: Subscription, at: datetime) -> bool:
    """End it at once; whether it ran. Its customer is on the default plan then. Raises SubscriptionChanged for an instant
    before its start."""
    if at <= subscription.started_at:
        raise SubscriptionChanged("It has not begun before that.")
    return _end_by(subscription, at)


def carry_out_due(at: datetime, *, page: int = 200) -> int:
    """Carry out what was arranged for an instant that has come; how many. A sweep: two at once do nothing twice, and what one
    leaves behind the next one finds."""
    done = 0
    while True:
        due = Subscription.objects.running().filter(changes_at__lte=at).order_by("changes_at", "pk")
        found = list(due.select_related("customer", "changes_to", "plan_version")[:page])
        for subscription in found:
            done += _carry_out(subscription)
        if len(found) < page:
            return done


def _carry_out(subscription: Subscription) -> bool:
    version, at = subscription.changes_to, subscription.changes_at
    if at is None:
        return False
    with transaction.atomic():
        arranged = Subscription.objects.filter(
            pk=subscription.pk, ended_at=None, changes_at=at, changes_to=version
        )
        if not arranged.update(ended_at=at):
            return False
        if version is not None:
            days = _trial_of(subscription.customer, version)
            _start(
                subscription.customer,
                version,
                at,
                _anchor(subscription, version, at),
                at + timedelta(days=days),
            )
        _set_hard(subscription.customer, hard=version is not None and version.hard_credits)
    return True


def _end_by(subscription: Subscription, at: datetime) -> bool:
    with transaction.atomic():
        ended = Subscription.objects.filter(pk=subscription.pk, ended_at=None).update(
            ended_at=at, changes_at=None, changes_to=None
        )
        if ended:
            default = Plan.objects.filter(slug=default_slug()).first()
            version = default.current if default is not None else None
            _set_hard(subscription.customer, hard=version is not None and version.hard_credits)
    return bool(ended)


def _anchor(running: Subscription | None, version: PlanVersion, at: datetime) -> datetime:
    """Periods go on as they were where they are as long."""
    same = running is not None and running.plan_version.interval == version.interval
    return running.anchor if same and running is not None else at


def _trial_of(customer: Customer, version: PlanVersion) -> int:
    """The plan's trial, for who was never on the plan."""
    tried = customer.subscriptions.filter(plan_version__plan_id=version.plan_id).exists()
    return 0 if tried else version.trial_days


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


def _start(
    customer: Customer, version: PlanVersion, at: datetime, anchor: datetime, trial_ends_at: datetime | None
) -> Subscription | None:
    """The new one; None where another runs already. A trial that was begun goes on until it ends."""
    trial_ends_at = trial_ends_at if trial_ends_at and trial_ends_at > at else None
    try:
        with transaction.atomic():
            return Subscription.objects.create(
                customer=customer,
                plan_version=version,
                started_at=at,
                anchor=anchor,
                trial_ends_at=trial_ends_at,
                created_at=at,
            )
    except IntegrityError:
        return None


def _set_hard(customer: Customer, *, hard: bool) -> None:
    """Have the ledger refuse what credits do not cover, as the plan says. Who never had credits needs no balance for a soft one."""
    if hard or Balance.objects.filter(pk=customer.pk, is_hard=True).exists():
        ledger.set_hard(customer, hard=hard)
