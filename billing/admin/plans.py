"""Plans in Django's admin. A draft is edited, published once, and stands from then on: its page is to look at."""

from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils.html import format_html

from billing.admin.customers import KeptForever
from billing.models import Plan, PlanFeature, PlanVersion, Subscription
from billing.plans import NothingToPublish, draft_after, publish
from pricing import clock
from pricing.fields import AmountField
from pricing.money import decimal_string

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    TabularInline = admin.TabularInline[Any, Any]
else:
    ModelAdmin, TabularInline = admin.ModelAdmin, admin.TabularInline


class VersionInline(TabularInline):
    """The plan's versions, to look at; each has a page of its own."""

    model = PlanVersion
    extra = 0
    fields = readonly_fields = (
        "number",
        "published_at",
        "currency",
        "fee",
        "interval",
        "charging",
        "subscribers",
    )
    ordering = ("-number",)
    can_delete = False
    show_change_link = True

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return _with_subscribers(super().get_queryset(request))

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description="base fee")
    def fee(self, version: PlanVersion) -> str:
        return _plain(version.base_fee)

    @admin.display(description="subscribers")
    def subscribers(self, version: Any) -> int:
        return int(version.subscribers)


@admin.register(Plan)
class PlanAdmin(KeptForever):
    list_display = ("name", "slug", "is_public", "published", "description")
    list_display_links = ("name", "slug")
    list_filter = ("is_public",)
    search_fields = ("slug", "name", "description")
    readonly_fields = ("created_at", "next_version")
    fields = ("name", "slug", "description", "is_public", "created_at", "next_version")
    inlines = (VersionInline,)

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        """The slug stands: clients and settings name the plan by it."""
        return self.readonly_fields if obj is None else ("slug", *self.readonly_fields)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        of_use = Q(versions__published_at__isnull=False)
        rows: QuerySet[Any] = super().get_queryset(request)
        counted: QuerySet[Any] = rows.annotate(published_versions=Count("versions", filter=of_use))
        return counted

    @admin.display(description="published versions", ordering="published_versions")
    def published(self, plan: Any) -> int:
        return int(plan.published_versions)

    @admin.display(description="to change it")
    def next_version(self, plan: Plan) -> str:
        if plan._state.adding:
            return "–"
        if not plan.versions.exists():
            page = reverse("admin:tollgate_billing_planversion_add")
            query = urlencode({"plan": str(plan.pk), "number": 1})
            return format_html('<a href="{}?{}">Write the first version</a>', page, query)
        page = reverse("admin:tollgate_billing_planversion_changelist")
        query = urlencode({"plan__id__exact": str(plan.pk)})
        return format_html(
            'Choose <a href="{}?{}">one of its versions</a> to write the next one from.', page, query
        )


class PlainAmounts:
    """Amounts in forms without their trailing zeros."""

    def formfield_for_dbfield(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if isinstance(db_field, AmountField):
            kwargs["form_class"] = _AmountInput
        return super().formfield_for_dbfield(db_field, request, **kwargs)  # type: ignore[misc]


class _AmountInput(forms.DecimalField):
    def prepare_value(self, value: Any) -> Any:
        return _plain(value) if isinstance(value, Decimal) else value


_NAMES = ("feature", "display_name", "unit")


def _price_words(feature: PlanFeature) -> str:
    """What is charged beyond what is included, in one line."""
    price = "" if feature.unit_price is None else _plain(feature.unit_price)
    words = {
        "book": "as the price book says",
        "flat": f"{price} each",
        "package": f"{price} for each {_plain(feature.package_size or Decimal(0))}",
        "percentage": f"{_plain(feature.percent or Decimal(0))} % of its cost",
    }
    said = words.get(feature.price_model) or f"{feature.price_model}, {len(feature.tiers)} tiers"
    if feature.minimum is not None:
        said += f", at least {_plain(feature.minimum)}"
    if feature.maximum is not None:
        said += f", at most {_plain(feature.maximum)}"
    return said


class FeatureInline(PlainAmounts, TabularInline):
    """What a version says of each feature; to look at once it is published."""

    model = PlanFeature
    extra = 0
    readonly_fields = ("included_shown", "price_shown")

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if not _is_draft(obj):
            return (*_NAMES, "included_shown", "hard", "reset_period", "aggregation", "price_shown")
        prices = ("price_model", "unit_price", "tiers", "package_size", "percent", "minimum", "maximum")
        return (*_NAMES, "included", "hard", "reset_period", "aggregation", *prices)

    @admin.display(description="included")
    def included_shown(self, feature: PlanFeature) -> str:
        return "unlimited" if feature.included is None else _plain(feature.included)

    @admin.display(description="unit price")
    def price_shown(self, feature: PlanFeature) -> str:
        return _price_words(feature)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _is_draft(obj) and super().has_add_permission(request, obj)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _is_draft(obj) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return _is_draft(obj) and super().has_delete_permission(request, obj)


class PublishedFilter(admin.SimpleListFilter):
    """Those that customers agreed to, or those that are being written."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("published", "Published"), ("draft", "Draft")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in ("published", "draft"):
            return queryset
        return queryset.filter(published_at__isnull=self.value() == "draft")


@admin.register(PlanVersion)
class PlanVersionAdmin(PlainAmounts, ModelAdmin):
    list_display = (
        "__str__",
        "published_at",
        "fee",
        "currency",
        "interval",
        "charging",
        "hard_credits",
        "subscribers",
    )
    list_filter = (PublishedFilter, "charging", "plan")
    list_select_related = ("plan",)
    search_fields = ("plan__slug", "plan__name", "id")
    readonly_fields = ("published_at", "fee")
    inlines = (FeatureInline,)
    actions = ("publish", "start_next")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return _with_subscribers(super().get_queryset(request))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fee = "base_fee" if _is_draft(obj) else "fee"
        return (
            (None, {"fields": ("plan", "number", "published_at")}),
            (
                "Price",
                {"fields": ("currency", fee, "interval", "trial_days", "charging", "cost_book", "list_book")},
            ),
            ("Who may spend", {"fields": ("hard_credits", "when_short", "outage", "blocks_unpriced")}),
            ("Rate limits", {"fields": ("requests_per_minute", "tokens_per_minute", "concurrent_calls")}),
            ("What customers see", {"fields": ("shows_cost",)}),
        )

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.readonly_fields if obj is None else ("plan", "number", *self.readonly_fields)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """A published one is shown, and not changed. The list (None) is for whoever may change drafts."""
        return (obj is None or _is_draft(obj)) and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return obj is not None and _is_draft(obj) and super().has_delete_permission(request, obj)

    @admin.display(description="base fee", ordering="base_fee")
    def fee(self, version: PlanVersion) -> str:
        return _plain(version.base_fee)

    @admin.display(description="subscribers", ordering="subscribers")
    def subscribers(self, version: Any) -> int:
        return int(version.subscribers)

    @admin.action(description="Publish: from then on it stands", permissions=["change"])
    def publish(self, request: HttpRequest, queryset: QuerySet[PlanVersion]) -> None:
        now = clock.now()
        for version in queryset:
            try:
                publish(version, now)
            except NothingToPublish as error:
                self.message_user(request, str(error), messages.WARNING)
            else:
                self.message_user(request, f"{version} is published: new subscriptions get it.")

    @admin.action(description="Write the next version", permissions=["change"])
    def start_next(self, request: HttpRequest, queryset: QuerySet[PlanVersion]) -> HttpResponse | None:
        versions = list(queryset)
        if len(versions) != 1:
            self.message_user(request, "Choose one version to begin with.", messages.WARNING)
            return None
        draft = draft_after(versions[0])
        return redirect("admin:tollgate_billing_planversion_change", draft.pk)


@admin.register(Subscription)
class SubscriptionAdmin(KeptForever):
    """Who is on which plan, to look at: acts change it, since a change has to be seen by the ledger as well."""

    list_display = (
        "customer",
        "plan_version",
        "started_at",
        "ended_at",
        "trial_ends_at",
        "changes_at",
        "changes_to",
        "anchor",
    )
    list_filter = (("ended_at", admin.EmptyFieldListFilter), "plan_version__plan", "started_at")
    list_select_related = ("customer", "plan_version__plan")
    search_fields = ("customer__external_id", "customer__name", "plan_version__plan__slug", "id")
    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


def _plain(amount: Decimal) -> str:
    return decimal_string(Decimal(amount))


def _is_draft(version: PlanVersion | None) -> bool:
    return version is None or not version.is_published


def _with_subscribers(versions: QuerySet[Any]) -> QuerySet[Any]:
    running = Q(subscriptions__isnull=False, subscriptions__ended_at=None)
    counted: QuerySet[Any] = versions.annotate(subscribers=Count("subscriptions", filter=running))
    return counted
