"""Credits over the API: `POST` and `GET /v1/customers/{customer}/credits`, `GET …/balance`, `POST …/credits/{grant}/refund`."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import ledger
from billing.authentication import actor_of, customer_of, operator_only
from billing.bodies import body_of, idempotency_key_of
from billing.models import Balance, Customer, Grant
from billing.pages import page_of
from billing.problems import Refused, bad_request, not_found
from metering.problem import Refusal, idempotency_conflict
from pricing import clock
from pricing.money import AmountTooLarge, decimal_string

REASON_LENGTH_MAX = 300
YEAR_MIN, YEAR_MAX = 1970, 9000  # any zone of whose instants both databases hold


class GrantBody(msgspec.Struct, forbid_unknown_fields=True):
    """`amount` as a string or a number: either way it is read exactly."""

    amount: Decimal
    currency: str | None = None  # the customer's
    kind: Literal["paid", "promotional"] = "paid"
    priority: int = 50
    expires_at: datetime | None = None
    reason: str = ""


class RefundBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    amount: Decimal | None = None  # all that is left


class CreditsView(APIView):
    """The customer's grants, newest first; a new one by an operator."""

    def get(self, request: Request, customer: str) -> Response:
        payer = customer_of(request, customer)
        if Grant.objects.filter(customer=payer).exists():
            ledger.charge_grants(payer, clock.now())
        page = page_of(request, Grant.objects.filter(customer=payer))
        return Response({"data": [grant_document(one) for one in page.rows], "next_cursor": page.next_cursor})

    def post(self, request: Request, customer: str) -> Response:
        operator_only(request)
        payer = customer_of(request, customer)
        body, now = body_of(request, GrantBody), clock.now()
        expires_at = _check(body)
        try:
            grant, new = ledger.grant(
                payer, body.amount, body.currency or payer.currency, key=idempotency_key_of(request) or str(uuid4()), at=now,
                kind=body.kind, priority=body.priority, expires_at=expires_at, reason=body.reason,
                actor=actor_of(request),
            )  # fmt: skip
        except (ledger.LedgerError, AmountTooLarge) as error:
            raise refused(error) from None
        return Response(grant_document(grant) | {"balance": balance_document(payer)}, 201 if new else 200)


class RefundView(APIView):
    """Takes back what is left of a grant, or part of it. The money itself is returned where it was paid."""

    def post(self, request: Request, customer: str, grant: UUID) -> Response:
        operator_only(request)
        payer = customer_of(request, customer)
        body, now = body_of(request, RefundBody), clock.now()
        check_reason(body.reason)
        found = Grant.objects.filter(customer=payer, pk=grant).first()
        if found is None:
            raise not_found("This customer has no such grant.")
        key = idempotency_key_of(request) or str(uuid4())
        try:
            entry, new = ledger.refund(
                found, body.amount, key=key, at=now, reason=body.reason, actor=actor_of(request)
            )
        except (ledger.LedgerError, AmountTooLarge) as error:
            raise refused(error) from None
        document = {
            "entry": str(entry.pk),
            "refunded": decimal_string(entry.amount),
            "currency": entry.currency,
        }
        return Response(document | {"balance": balance_document(payer)}, 201 if new else 200)


class BalanceView(APIView):
    """Where the customer stands."""

    def get(self, request: Request, customer: str) -> Response:
        return Response(balance_document(customer_of(request, customer)))


def balance_document(customer: Customer) -> dict[str, Any]:
    """What is available, what calls in flight hold of it, what is free, and where it all went. Amounts as strings."""
    balance = Balance.objects.filter(customer=customer).first() or Balance(currency=customer.currency)
    totals = ("bought", "granted", "adjusted", "consumed", "expired", "refunded", "written_off", "receivable")
    amounts = {
        "available": balance.available,
        "held": balance.held,
        "free": balance.available - balance.held,
        **{name: getattr(balance, name) for name in totals},
    }
    return {
        "customer": customer.external_id,
        "currency": balance.currency,
        "hard": balance.is_hard,
        **{name: decimal_string(Decimal(amount)) for name, amount in amounts.items()},
    }


def grant_document(grant: Grant) -> dict[str, Any]:
    return {
        "id": str(grant.pk),
        "kind": grant.kind,
        "amount": decimal_string(grant.amount),
        "remaining": decimal_string(grant.remaining),
        "currency": grant.currency,
        "priority": grant.priority,
        "expires_at": grant.expires_at and grant.expires_at.isoformat(),
        "reason": grant.reason,
        "created_at": grant.created_at.isoformat(),
    }


def refused(error: ledger.LedgerError | AmountTooLarge) -> Refused:
    """The answer to an act that the ledger does not allow."""
    if isinstance(error, ledger.EntryConflict):
        return Refused(idempotency_conflict(str(error)))
    if isinstance(error, ledger.NotCovered):
        return Refused(Refusal(409, "insufficient_credits", "Not enough credits", str(error)))
    return bad_request(str(error))


def _check(body: GrantBody) -> datetime | None:
    """Raise Refused (400) for what cannot be granted. When it expires, in UTC."""
    if not 0 <= body.priority <= 100:
        raise bad_request("priority: 0 to 100, lower burns first.")
    check_reason(body.reason)
    if body.expires_at is None:
        return None
    if body.expires_at.tzinfo is None:
        raise bad_request("expires_at needs a time zone, as in 2026-12-31T00:00:00Z.")
    try:
        expires_at = body.expires_at.astimezone(UTC)
    except OverflowError:  # beyond the year 9999 where it is UTC
        raise bad_request("expires_at lies too far away.") from None
    if not YEAR_MIN <= expires_at.year <= YEAR_MAX:
        raise bad_request(f"expires_at: a year from {YEAR_MIN} to {YEAR_MAX}.")
    return expires_at


def check_reason(reason: str) -> None:
    """Raise Refused (400) for a reason that does not fit into the ledger."""
    if len(reason) > REASON_LENGTH_MAX:
        raise bad_request(f"reason: at most {REASON_LENGTH_MAX} characters.")
