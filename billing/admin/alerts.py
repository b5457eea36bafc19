"""The operator's view of alerts: what has fired, what was said, and the thresholds that customers want."""

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from billing.admin.customers import ModelAdmin
from billing.models import Alert, AlertThreshold, OutboxMessage


class LookedAt(ModelAdmin):
    """Rows that are made by sweeps, and not by hand."""

    list_select_related = ("customer",)
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Alert)
class AlertAdmin(LookedAt):
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
class OutboxMessageAdmin(LookedAt):
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
