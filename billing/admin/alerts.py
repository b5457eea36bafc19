"""The operator's view of alerts: what has fired, what was said, and the thresholds that customers want."""

from typing import Any

from django.contrib import admin

from billing.admin.customers import ModelAdmin
from billing.admin.ledger import ToLookAt
from billing.models import Alert, AlertThreshold, OutboxMessage


@admin.register(Alert)
class AlertAdmin(ToLookAt):
    list_select_related = ("customer",)
    list_display: Any = (
        "created_at",
        "customer",
        "subject",
        "about",
        "threshold",
        "used",
        "limit",
        "exhausted_at",
    )
    list_filter = ("subject",)
    search_fields = ("customer__name", "customer__external_id", "about")


@admin.register(OutboxMessage)
class OutboxMessageAdmin(ToLookAt):
    list_select_related = ("customer",)
    list_display: Any = ("created_at", "customer", "kind", "mail_to", "mailed_at", "mail_tries", "mail_error")
    list_filter = ("kind",)
    search_fields = ("customer__name", "customer__external_id", "mail_to")


@admin.register(AlertThreshold)
class AlertThresholdAdmin(ModelAdmin):
    list_display = ("customer", "subject", "percent", "amount")
    list_filter = ("subject",)
    list_select_related = ("customer",)
    search_fields = ("customer__name", "customer__external_id")
    autocomplete_fields = ("customer",)
