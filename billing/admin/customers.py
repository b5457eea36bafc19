"""The operator's view of customers and of what opens the door. Customers and keys are never deleted: usage names them."""

from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.db.models import Count, Max, Model, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.html import format_html

from billing.models import ApiKey, Customer, Membership, OperatorToken
from pricing import clock

# Django's own classes become generic in the type checker only.
if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    TabularInline = admin.TabularInline[Any, Any]
else:
    ModelAdmin, TabularInline = admin.ModelAdmin, admin.TabularInline


class KeptForever(ModelAdmin):
    """Rows that are switched off and never deleted."""

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class MembershipInline(TabularInline):
    model = Membership
    extra = 0
    autocomplete_fields = ("user",)
    verbose_name_plural = "people"


class ApiKeyInline(TabularInline):
    """The customer's keys, to look at. They are issued and revoked on their own pages."""

    model = ApiKey
    extra = 0
    fields = readonly_fields = ("shown", "label", "created_at", "last_used_at", "revoked_at")
    can_delete = False
    show_change_link = True
    verbose_name_plural = "API keys"

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    @admin.display(description="key")
    def shown(self, key: ApiKey) -> str:
        return f"{key.prefix}…"


@admin.register(Customer)
class CustomerAdmin(KeptForever):
    list_display = (
        "name",
        "external_id",
        "email",
        "is_active",
        "live_keys",
        "last_call",
        "currency",
        "created_at",
    )
    list_display_links = ("name", "external_id")
    list_filter = ("is_active", "payment_overdue", "in_overage", "currency")
    search_fields = ("external_id", "name", "company", "email", "stripe_customer_id", "id")
    readonly_fields = ("id", "see_also", "created_at", "updated_at")
    inlines = (MembershipInline, ApiKeyInline)
    list_per_page = 50
    show_full_result_count = False
    actions = ("suspend", "reactivate")

    def get_readonly_fields(self, request: HttpRequest, obj: Customer | None = None) -> tuple[str, ...]:
        """Its currency stands once money is kept or agreed upon in it."""
        if obj is not None and obj.has_money:
            return (*self.readonly_fields, "currency")
        return self.readonly_fields

    fieldsets = (
        (None, {"fields": ("name", "company", "external_id", "email", "is_active", "see_also")}),
        (
            "Money",
            {
                "fields": (
                    "currency",
                    "blocks_unpriced",
                    "stripe_customer_id",
                    "payment_overdue",
                    "in_overage",
                )
            },
        ),
        ("Tax", {"fields": ("tax_country", "tax_id", "tax_exempt"), "classes": ("collapse",)}),
        ("Record", {"fields": ("id", "created_at", "updated_at"), "classes": ("collapse",)}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Customer]:
        live = Count("api_keys", filter=Q(api_keys__revoked_at=None))
        rows: QuerySet[Customer] = super().get_queryset(request)
        return rows.annotate(live_keys=live, last_call=Max("api_keys__last_used_at"))

    @admin.display(description="live keys", ordering="live_keys")
    def live_keys(self, customer: Any) -> int:
        return int(customer.live_keys)

    @admin.display(description="last call", ordering="last_call")
    def last_call(self, customer: Any) -> Any:
        return customer.last_call

    @admin.display(description="see also")
    def see_also(self, customer: Customer) -> str:
        if customer._state.adding:
            return "–"
        query = urlencode({"q": str(customer.pk)})
        issue = reverse("admin:tollgate_billing_apikey_add") + "?" + urlencode({"customer": str(customer.pk)})
        usage = reverse("admin:tollgate_metering_dailyusage_changelist") + "?" + query
        return format_html('<a href="{}">Issue an API key</a> · <a href="{}">Daily usage</a>', issue, usage)

    @admin.action(description="Suspend: refuse their calls")
    def suspend(self, request: HttpRequest, queryset: QuerySet[Customer]) -> None:
        count = _ids(queryset).filter(is_active=True).update(is_active=False, updated_at=clock.now())
        self.message_user(request, f"{count} suspended. Every process refuses their calls within 5 seconds.")

    @admin.action(description="Reactivate")
    def reactivate(self, request: HttpRequest, queryset: QuerySet[Customer]) -> None:
        count = _ids(queryset).filter(is_active=False).update(is_active=True, updated_at=clock.now())
        self.message_user(request, f"{count} reactivated.")


class LiveFilter(admin.SimpleListFilter):
    """Those that open the door, or those that no longer do."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("live", "Live"), ("revoked", "Revoked")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        if self.value() not in ("live", "revoked"):
            return queryset
        return queryset.filter(revoked_at__isnull=self.value() == "live")


class SecretAdmin(KeptForever):
    """Issues a secret, shows it once, revokes it."""

    list_display: Any = ("shown", "state", "label", "created_at", "last_used_at")
    readonly_fields = ("shown", "state", "created_at", "last_used_at", "revoked_at")
    search_fields: ClassVar[Any] = ("prefix", "label", "sha256", "id")
    list_filter: ClassVar[Any] = (LiveFilter, "created_at")
    actions = ("revoke",)
    list_per_page = 50
    show_full_result_count = False
    add_fields: tuple[str, ...] = ("label",)

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.add_fields if obj is None else (*self.add_fields, *self.readonly_fields)

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """One button: the answer to an added one is the page that shows it."""
        context |= {"show_save_and_continue": False, "show_save_and_add_another": False}
        return super().render_change_form(request, context, *args, **kwargs)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        if change:
            obj.save(
                update_fields=[
                    name for name in self.add_fields if name not in self.get_readonly_fields(request, obj)
                ]
            )
            return
        issued, secret = self.issue(obj)
        obj.pk, obj.prefix, obj.sha256, obj._state.adding = issued.pk, issued.prefix, issued.sha256, False
        request.META["tollgate.secret"] = secret  # for this answer only; nothing else holds it

    def issue(self, draft: Any) -> tuple[Any, str]:
        """A new row like `draft`, and its plaintext."""
        issued: tuple[Any, str] = self.model.issue(**{name: getattr(draft, name) for name in self.add_fields})
        return issued

    def response_add(
        self, request: HttpRequest, obj: Any, post_url_continue: str | None = None
    ) -> HttpResponse:
        """The page that shows the secret: an answer of its own, since a message would be kept in a cookie."""
        context = self.admin_site.each_context(request) | {
            "title": f"{self.opts.verbose_name} issued",
            "secret": request.META.pop("tollgate.secret"),
            "row": obj,
            "opts": self.opts,
            "back": reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_changelist"),
        }
        response = render(request, "admin/tollgate/secret_issued.html", context)
        response.headers["Cache-Control"] = "no-store"
        return response

    @admin.display(description="key", ordering="prefix")
    def shown(self, row: Any) -> str:
        return f"{row.prefix}…"

    @admin.display(description="live", boolean=True, ordering="revoked_at")
    def state(self, row: Any) -> bool:
        return bool(row.is_live)

    @admin.action(description="Revoke for ever")
    def revoke(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        count = sum(row.revoke() for row in queryset)
        self.message_user(
            request, f"{count} revoked. Every process refuses them within 5 seconds.", messages.WARNING
        )


@admin.register(ApiKey)
class ApiKeyAdmin(SecretAdmin):
    list_display = ("shown", "state", "customer", "label", "created_at", "last_used_at")
    list_select_related = ("customer",)
    search_fields = ("prefix", "label", "sha256", "id", "customer__external_id", "customer__name")
    autocomplete_fields = ("customer",)
    add_fields = ("customer", "label", "requests_per_minute", "tokens_per_minute", "concurrent_calls")

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        return self.readonly_fields if obj is None else ("customer", *self.readonly_fields)


@admin.register(OperatorToken)
class OperatorTokenAdmin(SecretAdmin):
    """Tokens for the administrative API."""


@admin.register(Membership)
class MembershipAdmin(ModelAdmin):
    list_display = ("user", "customer", "role", "created_at")
    list_filter = ("role",)
    list_select_related = ("user", "customer")
    search_fields = ("user__username", "user__email", "customer__external_id", "customer__name")
    autocomplete_fields = ("user", "customer")


def _ids(queryset: QuerySet[Customer]) -> QuerySet[Customer]:
    """The same rows without the list's annotations, which an UPDATE cannot carry."""
    return Customer.objects.filter(pk__in=list(queryset.values_list("pk", flat=True)))
