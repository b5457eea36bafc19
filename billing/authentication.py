"""Who calls the API: a customer's key, an operator's token, or a person with a session. For REST framework."""

from typing import Any

from rest_framework import authentication, exceptions
from rest_framework.request import Request

from billing import keys
from billing.accounts import USED_NOTED_EVERY, note_use
from billing.models import ApiKey, Customer, Membership, OperatorToken
from billing.models.customer import CustomerQuerySet
from billing.problems import Refused, bad_request, forbidden, not_found
from metering.problem import customer_suspended
from pricing import clock

HEADERS = ("X-Api-Key", "X-Goog-Api-Key")


class KeyHolder:
    """The caller behind a key or a token: no person."""

    is_authenticated = True
    is_active = True
    is_anonymous = False
    pk = None


class KeyAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer`, `x-api-key` or `x-goog-api-key`. `request.auth` is the ApiKey or the OperatorToken."""

    def authenticate(self, request: Request) -> tuple[KeyHolder, ApiKey | OperatorToken] | None:
        secret = _secret_in(request)
        if secret is None:
            return None
        digest = keys.digest(secret)
        found = _operator_token(digest) if secret.startswith(keys.OPERATOR_TOKEN_START) else _api_key(digest)
        if found is None:
            raise exceptions.AuthenticationFailed
        return KeyHolder(), found

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class PersonAuthentication(authentication.SessionAuthentication):
    """A person who is logged in to the portal or the admin."""


def customer_of(request: Request, named: str = "") -> Customer:
    """The customer that the caller asks about; `named` is its id or external id, "" where the caller names none.

    A key knows its own customer only, a person those it belongs to, an operator all. Raises Refused; a customer that is
    none of the caller's looks the same as one that does not exist.
    """
    if is_operator(request):
        return _any_customer(named)
    own = [request.auth.customer] if isinstance(request.auth, ApiKey) else list(customers_of(request.user))
    if not named and len(own) == 1:
        return own[0]
    if not named:
        raise (
            forbidden("You belong to no customer.")
            if not own
            else bad_request("Say which customer: customer=…")
        )
    for customer in own:
        if named in (str(customer.pk), customer.external_id):
            return customer
    raise forbidden(f"{named!r} is not a customer of yours.")


def operator_only(request: Request) -> None:
    """Raise Refused unless the caller has an operator's token, or is a superuser who is logged in."""
    if not is_operator(request):
        raise forbidden("This takes an operator's token.")


def manager_only(request: Request, customer: Customer) -> None:
    """Raise Refused unless the caller is an operator, or a person who is the customer's owner or admin. A key is neither."""
    if is_operator(request):
        return
    roles = (Membership.Role.OWNER, Membership.Role.ADMIN)
    if (
        request.user.pk is None
        or not customer.memberships.filter(user_id=request.user.pk, role__in=roles).exists()
    ):
        raise forbidden("This takes an operator's token, or an owner or admin of the customer.")


def is_operator(request: Request) -> bool:
    """Whether the caller has an operator's token, or is a superuser who is logged in."""
    return isinstance(request.auth, OperatorToken) or bool(getattr(request.user, "is_superuser", False))


def customers_seen_by(request: Request) -> CustomerQuerySet:
    """All customers for an operator, its own for a key, those that it belongs to for a person."""
    if is_operator(request):
        return Customer.objects.all()
    if isinstance(request.auth, ApiKey):
        return Customer.objects.filter(pk=request.auth.customer_id)
    return customers_of(request.user)


def actor_of(request: Request) -> str:
    """Who acts, for the records: the operator's token by its first characters, or the person."""
    if isinstance(request.auth, OperatorToken):
        return str(request.auth)[:150]
    return str(request.user)[:150]


def customers_of(user: Any) -> CustomerQuerySet:
    """The customers that a person belongs to."""
    return Customer.objects.filter(memberships__user_id=user.pk)


def _any_customer(named: str) -> Customer:
    if not named:
        raise bad_request("Say which customer: customer=… (its id or its external id)")
    customer = Customer.objects.named(named)
    if customer is None:
        raise not_found(f"There is no customer {named!r}.")
    return customer


def _secret_in(request: Request) -> str | None:
    scheme, _blank, bearer = request.headers.get("Authorization", "").partition(" ")
    candidates = [bearer.strip() if scheme.lower() == "bearer" else ""]
    candidates += [request.headers.get(name, "").strip() for name in HEADERS]
    given = [candidate for candidate in candidates if candidate]
    ours = [one for one in given if one.startswith(("tg_", keys.OPERATOR_TOKEN_START))]
    return next(iter(ours or given), None)


def _api_key(digest: str) -> ApiKey | None:
    key = ApiKey.objects.select_related("customer").filter(sha256=digest, revoked_at=None).first()
    if key is not None and not key.customer.is_active:
        raise Refused(customer_suspended())
    if key is not None and (key.last_used_at is None or key.last_used_at < clock.now() - USED_NOTED_EVERY):
        note_use([key.pk])
    return key


def _operator_token(digest: str) -> OperatorToken | None:
    token = OperatorToken.objects.filter(sha256=digest, revoked_at=None).first()
    now = clock.now()
    if token is not None and (token.last_used_at is None or token.last_used_at < now - USED_NOTED_EVERY):
        OperatorToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token
