"""The operator's view of what single customers get instead of their plan's allowances, and of budgets."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from billing.admin.customers import ModelAdmin
from billing.models import Budget, QuotaOverride
from pricing import clock


@admin.register(QuotaOverride)
class QuotaOverrideAdmin(ModelAdmin):
    """Seen by all processes within 5 seconds; deleting one gives the customer its plan's allowance again."""

    list_display = ("customer", "feature", "included", "hard", "reset_period", "unit_price", "updated_at")
    list_filter = ("hard", "feature")
    list_select_related = ("customer",)
    search_fields = ("customer__name", "customer__external_id", "feature")
    autocomplete_fields = ("customer",)


@admin.register(Budget)
class BudgetAdmin(ModelAdmin):
    """A budget is never changed nor deleted: it is ended, and another one set."""

    list_display = ("customer", "name", "scope", "amount", "measure", "hard", "reset_period", "ended_at")
    list_filter = ("scope", "measure", "hard")
    list_select_related = ("customer",)
    search_fields = ("customer__name", "customer__external_id", "name", "user_id")
    autocomplete_fields = ("customer", "api_key")
    actions = ("end",)

    def has_delete_permission(self, request: HttpRequest, obj: Budget | None = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: Budget | None = None) -> list[str]:
        return [] if obj is None else [field.name for field in Budget._meta.fields]

    @admin.action(description="End the selected budgets", permissions=["change"])
    def end(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        ended = Budget.objects.filter(pk__in=queryset.values("pk")).end(clock.now())
        messages.success(request, f"{ended} ended: calls are not refused by them within 5 seconds any more.")
