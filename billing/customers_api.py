"""`/v1/customers`: customers, their API keys and their subscriptions. For operators; a customer sees its own, and its owner and
admins issue and revoke its keys."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

import msgspec
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import subscriptions
from billing.api import single_parameters
from billing.authentication import customer_of, customers_seen_by, is_operator, manager_only, operator_only
from billing.bodies import body_of
from billing.idempotency import once
from billing.models import ApiKey, Customer, Subscription
from billing.models.plans import TRIAL_DAYS_MAX
from billing.pages import page_of
from billing.periods import Period
from billing.plans import default_slug
from billing.problems import Refused, bad_request, not_found
from billing.subscriptions import SubscriptionChanged, SubscriptionError
from metering.ids import uuid7
from metering.problem import Refusal
from pricing import clock
from pricing.money import decimal_string

PAGE = ("cursor", "limit")
YEAR_MIN, YEAR_MAX = 1970, 9000  # any zone of whose instants both databases hold
SHOWN_ONCE = (
    "The key itself was shown once, in the first answer. If that was lost, revoke this one and issue another."
)


class CustomerBody(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    email: str = ""
    company: str = ""
    external_id: str | None = None  # the id that it gets
    plan: str | None = None  # the default one, without a subscription


class KeyBody(msgspec.Struct, forbid_unknown_fields=True):
    label: str = ""
    requests_per_minute: int | None = None  # these three: limits of this key alone, beside the plan's
    tokens_per_minute: int | None = None
    concurrent_calls: int | None = None


class SubscriptionBody(msgspec.Struct, forbid_unknown_fields=True):
    plan: str
    when: Literal["now", "period_end"] = "now"
    trial_days: int | None = None  # the plan's, for who was never on it
    anchor: datetime | None = None  # where its periods start to be counted: the instant at which it starts


class CancelBody(msgspec.Struct, forbid_unknown_fields=True):
    when: Literal["now", "period_end"] = "period_end"


class CustomersView(APIView):
    """Those that the caller sees, newest first; a new one by an operator."""

    def get(self, request: Request) -> Response:
        single_parameters(request, PAGE)
        page = page_of(request, customers_seen_by(request))
        return Response({"data": customer_documents(page.rows, request), "next_cursor": page.next_cursor})

    def post(self, request: Request) -> Response:
        operator_only(request)
        body, now = body_of(request, CustomerBody), clock.now()
        made, is_new = once(request, "customers", body, now, lambda: _add(body, now))
        document = customer_documents([Customer.objects.get(pk=made)], request)[0]
        return Response(document, 201 if is_new else 200)


class CustomerView(APIView):
    def get(self, request: Request, customer: str) -> Response:
        single_parameters(request, ())
        return Response(customer_documents([customer_of(request, customer)], request)[0])


class KeysView(APIView):
    """The customer's keys, newest first, the revoked ones among them; a new one, whose plaintext is answered once."""

    def get(self, request: Request, customer: str) -> Response:
        single_parameters(request, PAGE)
        page = page_of(request, ApiKey.objects.filter(customer=customer_of(request, customer)))
        return Response({"data": [key_document(one) for one in page.rows], "next_cursor": page.next_cursor})

    def post(self, request: Request, customer: str) -> Response:
        payer = customer_of(request, customer)
        manager_only(request, payer)
        body, now = body_of(request, KeyBody), clock.now()
        given = msgspec.structs.asdict(body)
        _check(ApiKey(customer=payer, **given), *given)
        secrets: list[str] = []

        def issue() -> UUID:
            key, secret = ApiKey.issue(payer, **given)
            secrets.append(secret)
            return key.pk

        made, is_new = once(request, "keys", body, now, issue, of=payer.pk)
        document = key_document(ApiKey.objects.get(pk=made))
        said = {"key": secrets[0]} if is_new else {"key": None, "detail": SHOWN_ONCE}
        return Response(document | said, 201 if is_new else 200, headers={"Cache-Control": "no-store"})


class KeyView(APIView):
    """Revokes a key for ever. Again is harmless."""

    def delete(self, request: Request, customer: str, key: UUID) -> Response:
        payer = customer_of(request, customer)
        manager_only(request, payer)
        found = ApiKey.objects.filter(customer=payer, pk=key).first()
        if found is None:
            raise not_found("This customer has no such key.")
        found.revoke(clock.now())
        return Response(status=204)


class SubscriptionView(APIView):
    """An act on the subscription that runs: `cancel`, `keep` (take back what was arranged), `upgrade` (to the newest version)."""

    act: str = ""

    def post(self, request: Request, customer: str, subscription: UUID) -> Response:
        operator_only(request)
        rows = customer_of(request, customer).subscriptions.select_related("plan_version__plan", "customer")
        found, now = rows.filter(pk=subscription).first(), clock.now()
        if found is None:
            raise not_found("This customer has no such subscription.")
        with _told():
            shown = self._do(request, found, now)
        return Response(subscription_document(shown, now))

    def _do(self, request: Request, found: Subscription, now: datetime) -> Subscription:
        if self.act == "upgrade":
            return subscriptions.upgrade(found, now)[0]
        if self.act == "keep":
            subscriptions.keep(found)
        elif body_of(request, CancelBody).when == "now":
            subscriptions.cancel(found, now)
        else:
            subscriptions.change_at_period_end(found, None, now)
        found.refresh_from_db()
        return found


class SubscriptionsView(APIView):
    """The customer's subscriptions, newest first; another plan by an operator."""

    def get(self, request: Request, customer: str) -> Response:
        single_parameters(request, PAGE)
        rows = Subscription.objects.filter(customer=customer_of(request, customer))
        page, now = page_of(request, rows.select_related("plan_version__plan")), clock.now()
        shown = [subscription_document(one, now) for one in page.rows]
        return Response({"data": shown, "next_cursor": page.next_cursor})

    def post(self, request: Request, customer: str) -> Response:
        operator_only(request)
        payer = customer_of(request, customer)
        body, now = body_of(request, SubscriptionBody), clock.now()
        started: list[bool] = []

        def subscribe() -> UUID:
            if body.when == "period_end":
                return _arrange(payer, body.plan, now)
            subscription, is_new = _subscribe(payer, body.plan, now, body.trial_days, _utc(body.anchor))
            started.append(is_new)
            return subscription.pk

        made, _ = once(request, "subscriptions", body, now, subscribe, of=payer.pk)
        subscription = Subscription.objects.select_related("plan_version__plan").get(pk=made)
        return Response(subscription_document(subscription, now), 201 if any(started) else 200)


def customer_documents(customers: list[Customer], request: Request) -> list[dict[str, Any]]:
    """Customers with the plan and the period that each is in. What one is called at Stripe is for operators."""
    rows = Subscription.objects.running().filter(customer__in=customers).select_related("plan_version__plan")
    running, now = {row.customer_id: row for row in rows}, clock.now()
    return [
        _document(customer, running.get(customer.pk), now)
        | ({"stripe_customer_id": customer.stripe_customer_id or None} if is_operator(request) else {})
        for customer in customers
    ]


def _document(customer: Customer, subscription: Subscription | None, at: datetime) -> dict[str, Any]:
    return {
        "id": str(customer.pk),
        "external_id": customer.external_id,
        "name": customer.name,
        "company": customer.company,
        "email": customer.email,
        "plan": subscription.plan_version.plan.slug if subscription else default_slug(),
        "currency": customer.currency,
        "period": _span(subscription.period_at(at) if subscription else customer.month_of(at)),
        "is_active": customer.is_active,
        "payment_overdue": customer.payment_overdue,
        "created_at": customer.created_at.isoformat(),
        "updated_at": customer.updated_at.isoformat(),
    }


def _span(period: Period) -> dict[str, str]:
    return {"start": period.start.isoformat(), "end": period.end.isoformat()}


def key_document(key: ApiKey) -> dict[str, Any]:
    """What may be shown of a key again and again."""
    return {
        "id": str(key.pk),
        "label": key.label,
        "prefix": key.prefix,
        "requests_per_minute": key.requests_per_minute,
        "tokens_per_minute": key.tokens_per_minute,
        "concurrent_calls": key.concurrent_calls,
        "created_at": key.created_at.isoformat(),
        "last_used_at": key.last_used_at and key.last_used_at.isoformat(),
        "revoked_at": key.revoked_at and key.revoked_at.isoformat(),
    }


def subscription_document(subscription: Subscription, at: datetime) -> dict[str, Any]:
    """The subscription, what it costs, and its period at the instant `at` while it runs."""
    version = subscription.plan_version
    return {
        "id": str(subscription.pk),
        "plan": version.plan.slug,
        "version": version.number,
        "charging": version.charging,
        "base_fee": decimal_string(version.base_fee),
        "currency": version.currency,
        "interval": version.interval,
        "started_at": subscription.started_at.isoformat(),
        "ended_at": subscription.ended_at and subscription.ended_at.isoformat(),
        "trial_ends_at": subscription.trial_ends_at and subscription.trial_ends_at.isoformat(),
        "changes_at": subscription.changes_at and subscription.changes_at.isoformat(),
        "changes_to": subscription.changes_to.plan.slug if subscription.changes_to else None,
        "period": _span(subscription.period_at(at)) if subscription.ended_at is None else None,
    }


def _add(body: CustomerBody, at: datetime) -> UUID:
    made = uuid7(at)
    customer = Customer(
        pk=made, name=body.name, email=body.email, company=body.company,
        external_id=str(made) if body.external_id is None else body.external_id, created_at=at,
    )  # fmt: skip
    _check(customer)
    try:
        with transaction.atomic():
            customer.save(force_insert=True)
    except IntegrityError:
        told = f"There is a customer {customer.external_id!r}."
        raise Refused(Refusal(409, "already_exists", "Already there", told)) from None
    if body.plan is not None:
        _subscribe(customer, body.plan, at)
    return made


def _subscribe(
    customer: Customer, plan: str, at: datetime, trial_days: int | None = None, anchor: datetime | None = None
) -> tuple[Subscription, bool]:
    if trial_days is not None and not 0 <= trial_days <= TRIAL_DAYS_MAX:
        raise bad_request(f"trial_days: 0 to {TRIAL_DAYS_MAX}.")
    with _told():
        return subscriptions.subscribe(customer, plan, at, trial_days=trial_days, anchor=anchor)


def _utc(anchor: datetime | None) -> datetime | None:
    if anchor is None:
        return None
    if anchor.tzinfo is None or not YEAR_MIN <= anchor.year <= YEAR_MAX:
        raise bad_request(f"anchor: an instant with its time zone, from {YEAR_MIN} to {YEAR_MAX}.")
    return anchor.astimezone(UTC)


def _arrange(customer: Customer, plan: str | None, at: datetime) -> UUID:
    running = customer.subscriptions.running().select_related("plan_version").first()
    if running is None:
        raise bad_request("It has no subscription whose period could end: when has to be now.")
    with _told():
        subscriptions.change_at_period_end(running, plan, at)
    return running.pk


@contextmanager
def _told() -> Iterator[None]:
    """What cannot be is told to whoever asked. Raises Refused."""
    try:
        yield
    except SubscriptionChanged as error:
        raise Refused(Refusal(409, "subscription_changed", "Subscription changed", str(error))) from None
    except SubscriptionError as error:
        raise bad_request(str(error)) from None


def _check(row: Customer | ApiKey, *fields: str) -> None:
    """Raise Refused (400) unless the row's fields can be kept as they are."""
    left_out = {field.name for field in row._meta.fields if fields and field.name not in fields}
    try:
        row.clean_fields(exclude=left_out)
    except ValidationError as error:
        told = "; ".join(f"{name}: {' '.join(said)}" for name, said in error.message_dict.items())
        raise bad_request(told) from None
