"""Events, daily usage, and what the recorder keeps beside them."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from metering.admin.readonly import ReadOnlyAdmin, WindowFilter, shown, table, told, uuid_in
from metering.corrections import CHANGEABLE, differences
from metering.histories import histories
from metering.ids import instant_of
from metering.models import DailyUsage, Hold, QuarantinedRow, UsageCorrection, UsageEvent, Writer
from pricing import clock


class ChoiceFilter(admin.SimpleListFilter):
    """A filter whose choices are known without asking the table."""

    options: ClassVar[tuple[str, ...]] = ()

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return [(value, value) for value in self.options]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(**{str(self.parameter_name): self.value()}) if self.value() else queryset


class StatusFilter(ChoiceFilter):
    title, parameter_name = "status", "status"
    options = ("ok", "error", "error_after_output", "interrupted", "client_disconnected", "timeout")


class PricingStatusFilter(ChoiceFilter):
    title, parameter_name = "pricing status", "pricing_status"
    options = ("priced", "unpriced", "partial", "by_plan")


class UsageSourceFilter(ChoiceFilter):
    title, parameter_name = "usage source", "usage_source"
    options = ("reported", "reported_partial", "estimated", "none")


@admin.register(UsageEvent)
class UsageEventAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at", "customer_id", "endpoint", "model", "tokens_input", "tokens_output", "cost_total", "charge_total",
        "status", "usage_source", "pricing_status",
    )  # fmt: skip
    list_filter = (WindowFilter, StatusFilter, PricingStatusFilter, UsageSourceFilter)
    search_fields = ("id",)
    search_help_text = "An event id, customer id, API key id, key hash, execution id or end user, in full."
    ordering = ("-created_at",)
    readonly_fields = ("corrected",)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Exact identifiers only: each is answered by an index, within the window for those that have none."""
        term = search_term.strip()
        if not term:
            return queryset, False
        identifier = uuid_in(term)
        if identifier is None:
            return queryset.filter(Q(api_key_hash=term) | Q(execution_id=term) | Q(user_id=term)), False
        made = (
            Q(id=identifier, created_at=instant_of(identifier))
            if identifier.version == 7
            else Q(id=identifier)
        )
        own = Q(customer_id=identifier)
        recent = Q(created_at__gte=clock.now() - timedelta(days=31))
        called = (
            Q(execution_id=str(identifier), created_at__gte=instant_of(identifier))
            if identifier.version == 7
            else Q(pk=None)
        )
        return queryset.filter(made | own | (recent & Q(api_key_id=identifier)) | called), False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> UsageEvent | None:
        """By id and by the instant that the id carries, so that one partition is read."""
        identifier = uuid_in(object_id)
        return None if identifier is None else event_rows(identifier).first()

    @admin.display(description="corrected afterwards")
    def corrected(self, event: UsageEvent) -> str:
        """What became known of it after it was written, and as what it counts by now."""
        found = UsageCorrection.objects.filter(customer_id=event.customer_id, event_id=event.id).order_by(
            "revision"
        )
        if not found:
            return "Never: it counts as it stands here."
        (history,) = histories(event_rows(event.id))
        now = differences(history.event, history.now, CHANGEABLE)
        rows = [(name, *map(shown, both)) for name, both in now.items()]
        return told(found) + table(("column", "written", "counts as"), rows)


@admin.register(DailyUsage)
class DailyUsageAdmin(ReadOnlyAdmin):
    list_display = (
        "day", "customer_id", "feature", "provider", "model", "events", "tokens_input", "tokens_output", "cost_total",
        "charge_total", "unpriced_events",
    )  # fmt: skip
    ordering = ("-day", "customer_id")
    search_fields = ("customer_id",)
    search_help_text = "A customer id, in full."

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not search_term.strip():
            return queryset, False
        customer = uuid_in(search_term)
        return (queryset.filter(customer_id=customer) if customer else queryset.none()), False


@admin.register(Hold)
class HoldAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "customer_id", "endpoint", "model", "amount", "writer_id")
    ordering = ("-created_at",)


@admin.register(Writer)
class WriterAdmin(ReadOnlyAdmin):
    list_display = ("id", "seq", "beat", "looks", "looked_at", "fenced_at")
    ordering = ("-looked_at",)


@admin.register(QuarantinedRow)
class QuarantinedRowAdmin(ReadOnlyAdmin):
    list_display = ("created_at", "kind", "customer_id", "reason")
    ordering = ("-created_at",)


def event_rows(identifier: UUID) -> QuerySet[UsageEvent]:
    """The event of that id, in the one partition that it can be in."""
    return UsageEvent.objects.filter(id=identifier, created_at=instant_of(identifier))
