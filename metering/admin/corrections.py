"""What was corrected, what was rated again, and what waits for a rate."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from metering import unpriced
from metering.admin.readonly import COUNT_MAX, ReadOnlyAdmin, WindowFilter, table, told, uuid_in
from metering.admin.usage import event_rows
from metering.models import Rerating, UnpricedEvent, UsageCorrection
from metering.unpriced import Lack
from pricing.models import PriceBook
from pricing.money import decimal_string

SHOWN_MAX = 100


@admin.register(UsageCorrection)
class UsageCorrectionAdmin(ReadOnlyAdmin):
    list_display = (
        "created_at", "customer_id", "event", "revision", "reason", "run", "day", "model", "cost_total", "charge_total",
    )  # fmt: skip
    list_filter = (WindowFilter,)
    ordering = ("-created_at",)
    search_fields = ("id",)
    search_help_text = "An event id, a customer id or the id of a re-rating, in full."
    exclude = ("changed", "old", "new")
    readonly_fields = ("event", "difference")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Exact identifiers only. An event names its customer, who comes first in the key of its corrections."""
        if not search_term.strip():
            return queryset, False
        identifier = uuid_in(search_term)
        if identifier is None:
            return queryset.none(), False
        event = event_rows(identifier).first()
        if event is not None:
            return queryset.filter(customer_id=event.customer_id, event_id=event.id), False
        return queryset.filter(Q(customer_id=identifier) | Q(run=identifier)), False

    @admin.display(description="event")
    def event(self, correction: UsageCorrection) -> SafeString:
        return _event_link(correction.event_id)

    @admin.display(description="difference")
    def difference(self, correction: UsageCorrection) -> str:
        return told([correction])


@admin.register(Rerating)
class ReratingAdmin(ReadOnlyAdmin):
    list_display = ("started_at", "reason", "started_by", "span", "state", "events_seen", "changed")
    list_filter = ("state",)
    ordering = ("-started_at",)
    exclude = ("totals", "place_customer", "place_at", "place_event")
    readonly_fields = ("changed", "by_customer", "difference")

    @admin.display(description="events used in")
    def span(self, run: Rerating) -> str:
        return f"{run.arguments['start']} … {run.arguments['end']}"

    @admin.display(description="changed")
    def changed(self, run: Rerating) -> str:
        if run.state == Rerating.State.RUNNING:
            return f"running; to go on: manage.py rerate --resume {run.pk}"
        return "; ".join(_moved(row) for row in run.totals) or "nothing"

    @admin.display(description="by customer")
    def by_customer(self, run: Rerating) -> str:
        """From the first ten thousand of its corrections."""
        sums: dict[tuple[UUID, str], list[Any]] = {}
        rows = UsageCorrection.objects.filter(run=run.pk).order_by()[:COUNT_MAX]
        seen = 0
        for customer, currency, cost, charge in rows.values_list(
            "customer_id", "currency", "cost_total", "charge_total"
        ):
            found = sums.setdefault((customer, currency), [0, 0, 0])
            found[0], found[1], found[2] = found[0] + 1, found[1] + cost, found[2] + charge
            seen += 1
        return table(
            ("customer", "currency", "corrections", "cost", "charge"),
            [
                (*key, count, decimal_string(cost), decimal_string(charge))
                for key, (count, cost, charge) in sums.items()
            ],
            f"Of its first {COUNT_MAX:,} corrections:" if seen == COUNT_MAX else "",
        )

    @admin.display(description="difference")
    def difference(self, run: Rerating) -> str:
        """The first of its corrections, and the way to all of them."""
        rows = UsageCorrection.objects.filter(run=run.pk).order_by()[:SHOWN_MAX]
        everything = (
            reverse("admin:tollgate_metering_usagecorrection_changelist")
            + "?"
            + urlencode({"q": str(run.pk)})
        )
        return table(
            ("event", "model", "charge", "cost", "rates"),
            [
                (_event_link(row.event_id), row.model, *(_both(row, name) for name in ("charge_total", "cost_total", "rate_ids")))
                for row in rows
            ],
        ) + format_html('<p><a href="{}">All of its corrections</a></p>', everything)  # fmt: skip


@admin.register(UnpricedEvent)
class UnpricedEventAdmin(ReadOnlyAdmin):
    """What waits for a rate: what is missing, by book and model, and every single event."""

    change_list_template = "admin/tollgate/unpriced.html"
    list_display = ("event", "occurred_at", "customer_id", "provider", "model", "missing")
    list_display_links = None
    ordering = ("customer_id", "event_id")
    search_fields = ("customer_id",)
    search_help_text = "A customer id, in full."

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        lacks = unpriced.lacks()
        books = dict(PriceBook.objects.values_list("slug", "pk"))
        may_add = request.user.has_perm("tollgate_pricing.add_rate")
        note = "" if lacks else "Everything that was used has a price."
        if unpriced.count_open() > unpriced.LISTED_MAX:
            note = f"Of {unpriced.LISTED_MAX:,} of the events:"
        waits = table(
            ("book", "provider", "model", "without a rate", "events", "since (UTC)"),
            [_lack_row(lack, books, may_add) for lack in lacks],
            note,
        )
        return super().changelist_view(
            request, {"lacks": waits, "title": "What waits for a rate", **(extra_context or {})}
        )

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if not search_term.strip():
            return queryset, False
        customer = uuid_in(search_term)
        return (queryset.filter(customer_id=customer) if customer else queryset.none()), False

    @admin.display(description="event")
    def event(self, entry: UnpricedEvent) -> SafeString:
        return _event_link(entry.event_id)


def _lack_row(lack: Lack, books: dict[str, int], may_add: bool) -> Sequence[Any]:
    names = lack.buckets or ("",)
    cells: Iterator[Any] = (
        (_add_rate(lack, name, books) if may_add else name or "any bucket",) for name in names
    )
    return (
        lack.book, lack.provider, lack.model, format_html_join(", ", "{}", cells), lack.events, f"{lack.since:%Y-%m-%d %H:%M:%S}",
    )  # fmt: skip


def _add_rate(lack: Lack, bucket: str, books: dict[str, int]) -> SafeString:
    """The form for a rate that would price it from the first event on. A bucket may belong to another model of the call."""
    model, separator, own = bucket.rpartition(": ")
    given = {
        "book": books.get(lack.book), "provider": lack.provider, "model": model if separator else lack.model, "bucket": own,
        "effective_from": lack.since.isoformat(),
    }  # fmt: skip
    url = (
        reverse("admin:tollgate_pricing_rate_add")
        + "?"
        + urlencode({name: value for name, value in given.items() if value})
    )
    return format_html('<a href="{}">{}</a>', url, f"add a rate for {bucket}" if bucket else "add a rate")


def _event_link(event_id: UUID) -> SafeString:
    url = reverse("admin:tollgate_metering_usageevent_change", args=[event_id])
    return format_html('<a href="{}">{}</a>', url, event_id)


def _both(row: UsageCorrection, column: str) -> str:
    return f"{row.old.get(column)} → {row.new[column]}" if column in row.new else "as before"


def _moved(row: dict[str, Any]) -> str:
    return f"{row['corrections']} events, cost {row['cost']}, charge {row['charge']} {row['currency']}"
