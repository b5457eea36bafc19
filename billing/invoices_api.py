"""Invoices over the API: `GET /v1/invoices`, `…/draft`, `…/{id}`, `…/{id}/lines/{line}/explain`; `POST /v1/invoices/run`,
`…/{id}/pay`, `/void`, `/uncollectible`, `/notes` for operators."""

from collections import Counter, defaultdict
from collections.abc import Callable
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing import invoice_states, invoicing
from billing.api import single_parameters
from billing.authentication import customer_of, customers_seen_by, operator_only
from billing.bodies import body_of
from billing.drafts import document_of, draft_of, next_period
from billing.explain import explain, line_of
from billing.invoice_states import InvoiceError
from billing.models import Invoice, InvoiceLine
from billing.pages import page_of
from billing.problems import Refused, not_found
from metering.problem import Refusal
from pricing import clock
from pricing.money import decimal_string

PAGE = ("customer", "limit", "cursor")
SHOWN_MAX = 1000


class RunBody(msgspec.Struct, forbid_unknown_fields=True):
    customer: str = ""  # all of them
    dry_run: bool = False


class ReasonBody(msgspec.Struct, forbid_unknown_fields=True):
    reason: str


class NoteBody(msgspec.Struct, forbid_unknown_fields=True):
    """`amount` without tax: below 0 takes back, above 0 adds."""

    amount: Decimal
    reason: str


class InvoicesView(APIView):
    """Newest first; those of one customer with `?customer=`."""

    def get(self, request: Request) -> Response:
        single_parameters(request, PAGE)
        rows = Invoice.objects.filter(customer__in=customers_seen_by(request))
        named = request.query_params.get("customer", "")
        if named:
            rows = rows.filter(customer=customer_of(request, named))
        page = page_of(request, rows.select_related("customer", "plan_version__plan", "corrects"))
        return Response(
            {"data": [invoice_document(one) for one in page.rows], "next_cursor": page.next_cursor}
        )


class DraftView(APIView):
    """What the first period that is not billed yet comes to by now."""

    def get(self, request: Request) -> Response:
        single_parameters(request, ("customer",))
        customer = customer_of(request, request.query_params.get("customer", ""))
        return Response(document_of(draft_of(customer, next_period(customer))))


class InvoiceView(APIView):
    def get(self, request: Request, invoice: UUID) -> Response:
        single_parameters(request, ())
        found = _seen(request, invoice)
        lines = [line_document(line) for line in found.lines.all()]
        return Response(invoice_document(found) | {"lines": lines})


class ExplainView(APIView):
    """From a line to its days, its events and their rates."""

    def get(self, request: Request, invoice: UUID, line: UUID) -> Response:
        found = line_of(_seen(request, invoice), line)
        if found is None:
            raise not_found("This invoice has no such line.")
        return Response(explain(found))


class RunView(APIView):
    """Bill what is over; with `dry_run` only tell."""

    def post(self, request: Request) -> Response:
        operator_only(request)
        body = body_of(request, RunBody)
        customer = customer_of(request, body.customer) if body.customer else None
        counts: Counter[str] = Counter()
        totals: defaultdict[str, Decimal] = defaultdict(Decimal)
        shown: list[dict[str, Any]] = []
        for billed in invoicing.run(clock.now(), customer=customer, dry_run=body.dry_run):
            counts[billed.outcome] += 1
            if billed.outcome == "charged":
                totals[billed.customer.currency] += billed.total
            if len(shown) < SHOWN_MAX:
                shown.append(_billed_document(billed))
        told = {currency: decimal_string(total) for currency, total in totals.items()}
        return Response({"dry_run": body.dry_run, "counts": dict(counts), "totals": told, "data": shown})


class StateView(APIView):
    """An act on one invoice: `pay`, `void`, `uncollectible`."""

    act: str = ""

    def post(self, request: Request, invoice: UUID) -> Response:
        operator_only(request)
        found, now = _seen(request, invoice), clock.now()
        acts: dict[str, Callable[[], bool]] = {
            "pay": lambda: invoice_states.pay(found, now),
            "void": lambda: invoice_states.void(found, now, reason=_reason(request)),
            "uncollectible": lambda: invoice_states.give_up(found, now, reason=_reason(request)),
        }
        try:
            acts[self.act]()
        except InvoiceError as error:
            raise _conflict(error) from None
        return Response(invoice_document(found))


class NotesView(APIView):
    def post(self, request: Request, invoice: UUID) -> Response:
        operator_only(request)
        found, body = _seen(request, invoice), body_of(request, NoteBody)
        try:
            made = invoice_states.note(found, body.amount, clock.now(), reason=body.reason)
        except InvoiceError as error:
            raise _conflict(error) from None
        return Response(invoice_document(made), 201)


def invoice_document(invoice: Invoice) -> dict[str, Any]:
    """An invoice or a note. Amounts as text; `carried` goes to the next invoice."""
    return {
        "id": str(invoice.pk), "number": invoice.number, "kind": invoice.kind, "state": invoice.state,
        "customer": invoice.customer.external_id,
        "plan": invoice.plan_version.plan.slug if invoice.plan_version else None,
        "corrects": invoice.corrects.number if invoice.corrects else None, "currency": invoice.currency,
        "period": {"start": invoice.period_start.isoformat(), "end": invoice.period_end.isoformat()},
        "subtotal": decimal_string(invoice.subtotal), "tax": decimal_string(invoice.tax),
        "total": decimal_string(invoice.total), "carried": decimal_string(invoice.carried),
        "created_at": invoice.created_at.isoformat(), "due_at": invoice.due_at.isoformat(),
        "closed_at": invoice.closed_at.isoformat() if invoice.closed_at else None, "reason": invoice.reason or None,
    }  # fmt: skip


def line_document(line: InvoiceLine) -> dict[str, Any]:
    return {
        "id": str(line.pk), "kind": line.kind, "feature": line.feature or None, "description": line.description,
        "quantity": None if line.quantity is None else decimal_string(line.quantity),
        "unit_price": None if line.unit_price is None else decimal_string(line.unit_price),
        "exact": decimal_string(line.exact), "amount": decimal_string(line.amount),
        "tax_percent": decimal_string(line.tax_percent), "tax": decimal_string(line.tax),
        "period": {"start": line.period_start.isoformat(), "end": line.period_end.isoformat()}, "source": line.source,
    }  # fmt: skip


def _billed_document(billed: invoicing.Billed) -> dict[str, Any]:
    return {
        "customer": billed.customer.external_id, "outcome": billed.outcome, "total": decimal_string(billed.total),
        "currency": billed.customer.currency, "invoice": billed.invoice.number if billed.invoice else None,
        "period": {"start": billed.period.start.isoformat(), "end": billed.period.end.isoformat()},
        "reason": billed.reason or None,
    }  # fmt: skip


def _seen(request: Request, invoice: UUID) -> Invoice:
    rows = Invoice.objects.filter(customer__in=customers_seen_by(request))
    found = rows.select_related("customer", "plan_version__plan", "corrects").filter(pk=invoice).first()
    if found is None:
        raise not_found("There is no such invoice.")
    return found


def _reason(request: Request) -> str:
    return body_of(request, ReasonBody).reason


def _conflict(error: InvoiceError) -> Refused:
    return Refused(Refusal(409, "invoice_conflict", "Invoice conflict", str(error)))
