"""What the pages share: read-only, counted no further than ten thousand, filtered by what is known without asking."""

import json
from collections.abc import Iterable, Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.template.loader import render_to_string
from django.utils.safestring import SafeString

from metering.models import UsageCorrection
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
    """How far back rows are shown; the newest day where nothing is chosen."""

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
        if uuid_in(request.GET.get("q", "")):  # an identifier finds its row whenever it was made
            return queryset
        _, span = self.WINDOWS[self.value() or self.default]
        return queryset.filter(created_at__gte=clock.now() - span)


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], note: str = "") -> SafeString:
    """A table on a page: its cells are escaped, unless they are marked safe."""
    return render_to_string("admin/tollgate/table.html", {"head": head, "rows": list(rows), "note": note})


def told(corrections: Iterable[UsageCorrection]) -> SafeString:
    """Corrections column by column, in the order given."""
    return table(
        ("revision", "when", "reason", "column", "old", "new"),
        [
            (one.revision, f"{one.created_at:%Y-%m-%d %H:%M:%S}", one.reason, name, shown(one.old.get(name)), shown(one.new[name]))
            for one in corrections
            for name in one.changed
        ],
    )  # fmt: skip


def shown(value: Any) -> str:
    """A value of a correction as a cell shows it."""
    return "unknown" if value is None else value if isinstance(value, str) else json.dumps(value)


def uuid_in(text: str) -> UUID | None:
    """The identifier that somebody typed, if it is one."""
    try:
        return UUID(text.strip())
    except ValueError:
        return None
