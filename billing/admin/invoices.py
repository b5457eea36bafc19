"""Invoices in Django's admin: to look at and to move on. Nobody edits one. Who could not be billed, with a button to try again."""

import json
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from billing import invoice_states, invoicing
from billing.admin.ledger import TabularInline, ToLookAt
from billing.explain import explain
from billing.invoice_states import InvoiceError
from billing.models import Invoice, InvoiceLine, ParkedBilling
from pricing import clock


class LineInline(TabularInline):
    """Each line with its arithmetic; its page says where it comes from."""

    model = InvoiceLine
    fields = readonly_fields = ("position", "kind", "description", "arithmetic", "amount", "tax")
    extra = 0
    show_change_link = True
    can_delete = False

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    @admin.display(description="arithmetic")
    def arithmetic(self, line: InvoiceLine) -> str:
        return str(line.source.get("text", ""))


@admin.register(Invoice)
class InvoiceAdmin(ToLookAt):
    list_display = (
        "number",
        "kind",
        "state",
        "customer",
        "period_start",
        "period_end",
        "total",
        "currency",
        "due_at",
    )
    list_filter = ("state", "kind", "currency")
    list_select_related = ("customer",)
    search_fields = ("number", "customer__external_id", "customer__name")
    date_hierarchy = "created_at"
    exclude = ("seen", "overrides")
    inlines = (LineInline,)
    actions = ("mark_paid",)

    @admin.action(description="Mark as paid", permissions=["view"])
    def mark_paid(self, request: HttpRequest, queryset: QuerySet[Invoice]) -> None:
        if not request.user.has_perm("tollgate_billing.change_invoice"):
            self.message_user(request, "You may not change invoices.", messages.ERROR)
            return
        for invoice in queryset:
            try:
                invoice_states.pay(invoice, clock.now())
            except InvoiceError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self.message_user(request, f"{invoice.number} is paid.")


@admin.register(InvoiceLine)
class InvoiceLineAdmin(ToLookAt):
    """Reached from its invoice: the days, events and rates behind a line."""

    fields = readonly_fields = (
        *("invoice", "kind", "feature", "description", "quantity", "unit_price", "exact", "amount", "tax_percent", "tax"),
        "explanation",
    )  # fmt: skip

    def has_module_permission(self, request: HttpRequest) -> bool:
        return False

    @admin.display(description="where it comes from")
    def explanation(self, line: InvoiceLine) -> str:
        return format_html("<pre>{}</pre>", json.dumps(explain(line), indent=2, ensure_ascii=False))


@admin.register(ParkedBilling)
class ParkedBillingAdmin(ToLookAt):
    list_display = ("customer", "period_start", "reason", "attempts", "first_at", "last_at")
    list_select_related = ("customer",)
    actions = ("try_again",)

    @admin.action(description="Try again", permissions=["view"])
    def try_again(self, request: HttpRequest, queryset: QuerySet[ParkedBilling]) -> None:
        if not request.user.has_perm("tollgate_billing.add_invoice"):
            self.message_user(request, "You may not bill customers.", messages.ERROR)
            return
        for parked in queryset.select_related("customer"):
            for billed in invoicing.run(clock.now(), customer=parked.customer):
                level = messages.ERROR if billed.outcome == "failed" else messages.SUCCESS
                said = billed.reason or (billed.invoice.number if billed.invoice else "")
                self.message_user(request, f"{billed.customer}: {billed.outcome} {said}", level)
