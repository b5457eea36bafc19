"""The operator's view of top-up rules and of what was bought by them."""

from typing import Any

from django.contrib import admin

from billing.admin.customers import ModelAdmin
from billing.admin.ledger import ToLookAt
from billing.models import TopUp, TopUpRule


@admin.register(TopUpRule)
class TopUpRuleAdmin(ModelAdmin):
    list_display = ("customer", "below", "amount", "per_month_max", "cool_down_s", "is_active", "updated_at")
    list_filter = ("is_active",)
    list_select_related = ("customer",)
    search_fields = ("customer__name", "customer__external_id")
    autocomplete_fields = ("customer",)


@admin.register(TopUp)
class TopUpAdmin(ToLookAt):
    list_select_related = ("customer",)
    list_display: Any = ("created_at", "customer", "amount", "currency", "state", "reference", "finished_at")
    list_filter = ("state",)
    search_fields = ("customer__name", "customer__external_id", "reference")
