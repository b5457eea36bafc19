"""Credits for operators: balances and entries to look at, grants to give and to take back, each with a reason."""

from typing import TYPE_CHECKING, Any, ClassVar
from uuid import uuid4

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ActionForm
from django.db.models import Model, QuerySet
from django.http import HttpRequest

from billing import ledger
from billing.models import Balance, Entry, Grant, GrantUse
from pricing import clock

# Django's own classes become generic in the type checker only.
if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[Any]
    TabularInline = admin.TabularInline[Any, Any]
    ModelForm = forms.ModelForm[Grant]
else:
    ModelAdmin, TabularInline, ModelForm = admin.ModelAdmin, admin.TabularInline, forms.ModelForm


class ToLookAt(ModelAdmin):
    """Rows that the ledger or a job writes, and nobody by hand."""

    list_per_page = 50
    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


@admin.register(Balance)
class BalanceAdmin(ToLookAt):
    list_display = ("customer", "available", "held", "free", "currency", "is_hard", "consumed", "written_off")
    list_filter = ("is_hard", "currency")
    list_select_related = ("customer",)
    search_fields = ("customer__external_id", "customer__name", "customer__id")

    @admin.display(description="free")
    def free(self, balance: Balance) -> Any:
        return balance.available - balance.held


@admin.register(Entry)
class EntryAdmin(ToLookAt):
    list_display = (
        "created_at",
        "customer_id",
        "kind",
        "debit",
        "credit",
        "amount",
        "currency",
        "reason",
        "actor",
    )
    list_filter = ("kind", "created_at")
    search_fields = ("customer_id", "key", "posting_id")


class GrantForm(ModelForm):
    """A new grant. The reason is asked for: whoever looks at the ledger later wants to know."""

    reason = forms.CharField(max_length=300, help_text="Kept with the entry, for whoever asks later.")

    class Meta:
        model = Grant
        fields = ("customer", "kind", "amount", "priority", "expires_at", "reason")

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or {}
        expires_at = given.get("expires_at")
        if expires_at is not None and expires_at <= clock.now():
            self.add_error("expires_at", "It lies in the past.")
        if given.get("amount") is not None and given["amount"] <= 0:
            self.add_error("amount", "An amount has to be positive.")
        return given


class GrantUseInline(TabularInline):
    model = GrantUse
    fields = readonly_fields = ("created_at", "kind", "amount")
    extra = 0
    can_delete = False
    verbose_name_plural = "where it went"

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class ReasonForm(ActionForm):
    reason = forms.CharField(required=False, widget=forms.TextInput(attrs={"placeholder": "reason"}))


@admin.register(Grant)
class GrantAdmin(ModelAdmin):
    list_display = (
        "created_at",
        "customer",
        "kind",
        "amount",
        "remaining",
        "currency",
        "priority",
        "expires_at",
        "reason",
    )
    list_filter = ("kind", "expires_at")
    list_select_related = ("customer",)
    list_per_page = 50
    show_full_result_count = False
    search_fields = ("customer__external_id", "customer__name", "reason", "key")
    autocomplete_fields = ("customer",)
    actions = ("take_back",)
    action_form = ReasonForm
    form = GrantForm
    inlines: ClassVar[Any] = (GrantUseInline,)

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return obj is None and super().has_change_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def get_inlines(self, request: HttpRequest, obj: Any) -> Any:
        return self.inlines if obj is not None else ()

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> Any:
        wanted = GrantForm.Meta.fields
        return wanted if obj is None else (*wanted, "remaining", "currency", "key", "created_at")

    def save_model(self, request: HttpRequest, obj: Grant, form: Any, change: bool) -> None:
        made, _ = ledger.grant(
            obj.customer, obj.amount, obj.customer.currency, key=f"admin/{uuid4()}", at=clock.now(), kind=obj.kind,
            priority=obj.priority, expires_at=obj.expires_at, reason=obj.reason, actor=str(request.user),
        )  # fmt: skip
        obj.pk, obj.currency, obj.remaining, obj._state.adding = made.pk, made.currency, made.remaining, False

    @admin.action(description="Take back what is left", permissions=["add"])
    def take_back(self, request: HttpRequest, queryset: QuerySet[Grant]) -> None:
        reason = request.POST.get("reason", "").strip()[:300]
        if not reason:
            self.message_user(request, "Say why: fill in the reason beside the action.", messages.ERROR)
            return
        for grant in queryset.select_related("customer"):
            try:
                entry, _ = ledger.refund(
                    grant, key=f"admin/{uuid4()}", at=clock.now(), reason=reason, actor=str(request.user)
                )
            except ledger.LedgerError as error:
                self.message_user(request, f"{grant.customer}: {error}", messages.ERROR)
            else:
                self.message_user(
                    request, f"{grant.customer}: {entry.amount.normalize():f} {entry.currency} taken back."
                )
