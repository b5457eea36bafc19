"""The operator's view of what was used. Read-only: these rows are written by the recorder alone.

Every page reads a bounded slice, however large the tables are: events of a time window over the index on `created_at`,
counts that stop at ten thousand, search by identifiers only.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.http import HttpRequest

from metering.ids import instant_of
from metering.models import DailyUsage, Hold, QuarantinedRow, UsageCorrection, UsageEvent, Writer
from pricing import clock

COUNT_MAX = 10_000


if TYPE_CHECKING:  # the stubs know these as generic, Django at run time does not
    AnyPaginator = Paginator[Any]
    AnyAdmin = admin.ModelAdmin[Any]
else:
    AnyPaginator, AnyAdmin = Paginator, admin.ModelAdmin


class BoundedPaginator(AnyPaginator):
    """Counts no further than ten thousand rows."""

    @cached_property
    def count(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by()[:COUNT_MAX].count())


class ReadOnlyAdmin(AnyAdmin):
    """Shows rows and changes none."""

    show_full_result_count = False
    paginator = BoundedPaginator
    list_per_page = 50
    actions = None

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class WindowFilter(admin.SimpleListFilter):
    """How far back events are shown; the newest day where nothing is chosen."""

    title = "made within"
    parameter_name = "within"
    WINDOWS: ClassVar[dict[str, tuple[str, timedelta]]] = {
        "1h": ("the last hour", timedelta(hours=1)),
        "1d": ("the last day", timedelta(days=1)),
        "7d": ("the last 7 days", timedelta(days=7)),
        "31d": ("the last 31 days", timedelta(days=31)),
    }
    default = "1d"

    def lookups(self, request: HttpRequest, model_admin: Any) -> Sequence[tuple[str, str]]:
        return [(key, label) for key, (label, _) in self.WINDOWS.items() if key != self.default]

    def choices(self, changelist: Any) -> Any:
        first, *rest = super().choices(changelist)
        return [{**first, "display": self.WINDOWS[self.default][0]}, *rest]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if _is_uuid(request.GET.get("q", "")):  # an identifier finds its row whenever it was made
            return queryset
        _, span = self.WINDOWS[self.value() or self.default]
        return queryset.filter(created_at__gte=clock.now() - span)


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

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Exact identifiers only: each is answered by an index, within the window for those that have none."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if not _is_uuid(term):
            return queryset.filter(Q(api_key_hash=term) | Q(execution_id=term) | Q(user_id=term)), False
        identifier = UUID(term)
        made = Q(id=identifier, created_at=_made(identifier)) if identifier.version == 7 else Q(id=identifier)
        own = Q(customer_id=identifier)
        recent = Q(created_at__gte=clock.now() - timedelta(days=31))
        called = (
            Q(execution_id=str(identifier), created_at__gte=_made(identifier))
            if identifier.version == 7
            else Q(pk=None)
        )
        return queryset.filter(made | own | (recent & Q(api_key_id=identifier)) | called), False

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> UsageEvent | None:
        """By id and by the instant that the id carries, so that one partition is read."""
        if not _is_uuid(object_id):
            return None
        identifier = UUID(object_id)
        return UsageEvent.objects.filter(id=identifier, created_at=_made(identifier)).first()


@admin.register(UsageCorrection)
class UsageCorrectionAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at",
        "customer_id",
        "event_id",
        "revision",
        "reason",
        "day",
        "cost_total",
        "charge_total",
    )
    list_filter = (WindowFilter,)
    ordering = ("-created_at",)


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
        term = search_term.strip()
        if not term:
            return queryset, False
        return (queryset.filter(customer_id=UUID(term)) if _is_uuid(term) else queryset.none()), False


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


def _made(identifier: UUID) -> datetime:
    return instant_of(identifier)


def _is_uuid(text: str) -> bool:
    try:
        UUID(text)
    except ValueError:
        return False
    return True
