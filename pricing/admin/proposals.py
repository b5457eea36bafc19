"""What the catalogues say against our rates, to be looked at and decided: approve now or from an instant on, reject, roll back."""

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse

from pricing import clock
from pricing.models import PriceProposal, PriceSync, SyncPolicy
from pricing.models.proposals import OPEN, price_text
from pricing.proposals import AlreadyDecided, Inapplicable, approve, reject, roll_back

if TYPE_CHECKING:
    ProposalAdmin = admin.ModelAdmin[PriceProposal]
    SyncAdmin = admin.ModelAdmin[PriceSync]
    PolicyAdmin = admin.ModelAdmin[SyncPolicy]
else:
    ProposalAdmin = SyncAdmin = PolicyAdmin = admin.ModelAdmin

Act = Callable[[PriceProposal, dict[str, Any], str, datetime], None]
DECIDED_MAX = 500  # at once: each is a transaction of its own


class DecisionForm(forms.Form):
    """What a decision needs to know besides which proposals it is about."""

    effective_from = forms.DateTimeField(
        required=False, help_text="UTC; empty: now. Later schedules it; a price cannot begin in the past.",
        widget=forms.DateTimeInput(attrs={"placeholder": "2027-01-01 00:00"}),
    )  # fmt: skip
    catalogue = forms.ChoiceField(required=False, help_text="whose price holds where the catalogues disagree")
    reason = forms.CharField(required=False, max_length=500, widget=forms.TextInput(attrs={"size": 80}))

    def __init__(self, *args: Any, catalogues: list[str], dated: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not dated:
            del self.fields["effective_from"]
        if dated and catalogues:
            choice: Any = self.fields["catalogue"]
            choice.choices = [("", "– leave those undecided –"), *((name, name) for name in catalogues)]
        else:
            del self.fields["catalogue"]


@admin.register(PriceProposal)
class PriceProposalAdmin(ProposalAdmin):
    """Differences between our rates and the catalogues."""

    list_display = (
        "__str__", "kind", "ours", "proposed", "change", "stated", "guard", "status", "last_seen",
    )  # fmt: skip
    list_filter = ("status", "kind", "provider", "guard", "bucket")
    search_fields = ("model", "reason")
    list_select_related = ("book",)
    list_per_page = 50
    actions = ("approve", "reject", "roll_back")

    def get_queryset(self, request: HttpRequest) -> QuerySet[PriceProposal]:
        return super().get_queryset(request).order_by("-status", "provider", "model", "bucket", "-first_seen")

    @admin.display(description="our price", ordering="old_price")
    def ours(self, proposal: PriceProposal) -> str:
        return price_text(proposal.old_price)

    @admin.display(description="proposed", ordering="price")
    def proposed(self, proposal: PriceProposal) -> str:
        return f"{price_text(proposal.price)} per {proposal.per:,}"

    @admin.display(description="change", ordering="change_percent")
    def change(self, proposal: PriceProposal) -> str:
        return "–" if proposal.change_percent is None else f"{proposal.change_percent:+.2f} %"

    @admin.display(description="stated")
    def stated(self, proposal: PriceProposal) -> str:
        return (
            ", ".join(f"{source}: {price}" for source, _, price in proposal.statements)
            or "not listed any more"
        )

    @admin.action(description="Approve, now or from …", permissions=["change"])
    def approve(self, request: HttpRequest, queryset: QuerySet[PriceProposal]) -> HttpResponse | None:
        def act(proposal: PriceProposal, data: dict[str, Any], by: str, now: datetime) -> None:
            price = (
                proposal.prices.get(data.get("catalogue", "")) if proposal.kind == "disagreement" else None
            )
            approve(
                proposal, by=by, now=now, at=data.get("effective_from"), price=price, reason=data["reason"]
            )

        return self._decide(request, queryset, "approve", act, dated=True)

    @admin.action(description="Reject: our rate stays", permissions=["change"])
    def reject(self, request: HttpRequest, queryset: QuerySet[PriceProposal]) -> HttpResponse | None:
        def act(proposal: PriceProposal, data: dict[str, Any], by: str, now: datetime) -> None:
            reject(proposal, by=by, now=now, reason=data["reason"])

        return self._decide(request, queryset, "reject", act)

    @admin.action(description="Roll back what was approved", permissions=["change"])
    def roll_back(self, request: HttpRequest, queryset: QuerySet[PriceProposal]) -> HttpResponse | None:
        def act(proposal: PriceProposal, data: dict[str, Any], by: str, now: datetime) -> None:
            roll_back(proposal, by=by, now=now, reason=data["reason"])

        return self._decide(request, queryset, "roll_back", act)

    def _decide(
        self,
        request: HttpRequest,
        queryset: QuerySet[PriceProposal],
        action: str,
        act: Act,
        *,
        dated: bool = False,
    ) -> HttpResponse | None:
        """Shows what is about to be decided and asks for the rest; on the second request, does it one by one."""
        chosen = list(queryset[: DECIDED_MAX + 1])
        if len(chosen) > DECIDED_MAX:
            self.message_user(request, f"Choose at most {DECIDED_MAX} at once.", messages.ERROR)
            return None
        catalogues = sorted({name for row in chosen if row.kind == "disagreement" for name in row.prices})
        data = request.POST if "decided" in request.POST else None
        form = DecisionForm(data, catalogues=catalogues, dated=dated)
        if data is None or not form.is_valid():
            context = {
                **self.admin_site.each_context(request), "title": action.replace("_", " ").capitalize(), "opts": self.opts,
                "proposals": chosen, "form": form, "action": action,
                "ids": [row.pk for row in chosen], "checkbox": ACTION_CHECKBOX_NAME,
            }  # fmt: skip
            return TemplateResponse(request, "tollgate/decide_proposals.html", context)
        self._carry_out(request, chosen, act, form.cleaned_data)
        return None

    def _carry_out(
        self, request: HttpRequest, chosen: list[PriceProposal], act: Act, data: dict[str, Any]
    ) -> None:
        now, by, done = clock.now(), request.user.get_username(), 0
        for proposal in chosen:
            try:
                act(proposal, data, by, now)
            except (AlreadyDecided, Inapplicable) as error:
                self.message_user(request, f"{proposal}: {error}", messages.WARNING)
            else:
                done += 1
                self.log_change(request, proposal, f"{proposal.status}: {data['reason']}".rstrip(": "))
        self.message_user(
            request, f"{done} of {len(chosen)} decided.", messages.SUCCESS if done else messages.WARNING
        )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: PriceProposal | None = None) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: PriceProposal | None = None) -> list[str]:
        return [field.name for field in self.opts.fields]

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Opens on what waits for a decision."""
        if request.method == "GET" and not request.GET:
            return redirect(f"{request.path}?status__exact={OPEN}")
        return super().changelist_view(request, extra_context)


@admin.register(PriceSync)
class PriceSyncAdmin(SyncAdmin):
    """Each comparison with the catalogues, and what could not be understood."""

    list_display = ("started_at", "sources", "confirmed", "opened", "outdated", "applied", "misunderstood")

    @admin.display(description="not understood")
    def misunderstood(self, run: PriceSync) -> int:
        return len(run.problems)

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: PriceSync | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: PriceSync | None = None) -> bool:
        return False


@admin.register(SyncPolicy)
class SyncPolicyAdmin(PolicyAdmin):
    """What may be taken over without a person. One row."""

    list_display = ("__str__", "auto_approve", "change_max", "takes_new", "price_map", "providers")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return not SyncPolicy.objects.exists()

    def has_delete_permission(self, request: HttpRequest, obj: SyncPolicy | None = None) -> bool:
        return False
