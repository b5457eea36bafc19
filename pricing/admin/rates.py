"""The catalogue in Django's admin. Rates are added, superseded, ended and corrected, never edited or deleted."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.forms import Form, ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.response import TemplateResponse
from django.urls import reverse

from pricing import clock
from pricing.admin.rate_forms import CorrectionForm, EndForm, RateForm, SuccessorForm, WithdrawalForm
from pricing.conditions import PREFIX, Conditions, describe
from pricing.models import LINE_FIELDS, ModelAlias, NotChangeable, PriceBook, Rate
from pricing.money import decimal_string

if TYPE_CHECKING:
    BookAdmin = admin.ModelAdmin[PriceBook]
    RatesAdmin = admin.ModelAdmin[Rate]
    AliasAdmin = admin.ModelAdmin[ModelAlias]
    AliasForm = ModelForm[ModelAlias]
else:
    BookAdmin = RatesAdmin = AliasAdmin = admin.ModelAdmin
    AliasForm = ModelForm

CHANGED_MAX = 500  # at once: each is a transaction of its own


@admin.register(PriceBook)
class PriceBookAdmin(BookAdmin):
    """Price books. One with rates is history and stays."""

    list_display = ("slug", "name", "currency")

    def has_delete_permission(self, request: HttpRequest, obj: PriceBook | None = None) -> bool:
        return False


class SpanFilter(admin.SimpleListFilter):
    """Whether a rate holds now, has ended or is to come."""

    title = "span"
    parameter_name = "span"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("now", "holds now"), ("ended", "has ended"), ("later", "begins later")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Rate]) -> QuerySet[Rate]:
        now = clock.now()
        open_now = Q(effective_to__isnull=True) | Q(effective_to__gt=now)
        chosen = {
            "now": Q(effective_from__lte=now) & open_now, "ended": Q(effective_to__lte=now), "later": Q(effective_from__gt=now),
        }.get(self.value() or "")  # fmt: skip
        return queryset if chosen is None else queryset.filter(chosen)


@admin.register(Rate)
class RateAdmin(RatesAdmin):
    """Rates: add a new one, supersede or end one from an instant on, correct or withdraw one for a span."""

    form = RateForm
    list_display = (
        "provider", "name", "bucket", "asks_for", "unit", "book", "effective_from", "effective_to", "remark", "source_date",
    )  # fmt: skip
    list_filter = (
        "book", "provider", SpanFilter, "match", "batch", "service_tier", "speed", "region", "byok",
        ("input_above", admin.AllValuesFieldListFilter), "time_zone", "bucket",
    )  # fmt: skip
    search_fields = ("model", "note")
    list_select_related = ("book",)
    date_hierarchy = "effective_from"
    actions = ("supersede", "end", "correct", "withdraw")
    fieldsets = (
        (None, {"fields": ("book", "provider", "model", "match", "bucket", "price", "per")}),
        ("When", {"fields": ("effective_from", "effective_to")}),
        ("Conditions: all that are set must be met", {"fields": (
            "batch", "service_tier", "speed", "region", "byok", "input_above", "weekdays", "time_from", "time_to", "time_zone",
        )}),
        ("Where it comes from", {"fields": ("source", "source_date", "note")}),
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> QuerySet[Rate]:
        return super().get_queryset(request).prefetch_related("corrected_by")

    @admin.display(description="model", ordering="model")
    def name(self, rate: Rate) -> str:
        return f"{rate.model}*" if rate.match == PREFIX else rate.model

    @admin.display(description="conditions")
    def asks_for(self, rate: Rate) -> str:
        return describe(rate.conditions) or "–"

    @admin.display(description="price", ordering="price")
    def unit(self, rate: Rate) -> str:
        return "none" if rate.withdrawn else f"{decimal_string(rate.price)} per {rate.per:,}"

    @admin.display(description="correction")
    def remark(self, rate: Rate) -> str:
        said = (
            [f"withdraws {rate.corrects_id}" if rate.withdrawn else f"corrects {rate.corrects_id}"]
            if rate.corrects_id
            else []
        )
        said += [
            f"{'withdrawn' if other.withdrawn else 'corrected'} by {other.pk} "
            f"({other.effective_from:%Y-%m-%d} to {f'{other.effective_to:%Y-%m-%d}' if other.effective_to else 'further notice'})"
            for other in rate.corrected_by.all()
        ]
        return "; ".join(said) or "–"

    @admin.action(description="Supersede from …", permissions=["add"])
    def supersede(self, request: HttpRequest, queryset: QuerySet[Rate]) -> HttpResponse | None:
        """Opens the form for the successor, filled in; saving it ends the chosen rate."""
        chosen = list(queryset[:2])
        if len(chosen) != 1 or chosen[0].effective_to is not None:
            self.message_user(request, "Choose one rate that is still in force.", messages.ERROR)
            return None
        return _add_form("supersedes", chosen[0], {})

    @admin.action(description="Correct from … to …", permissions=["add"])
    def correct(self, request: HttpRequest, queryset: QuerySet[Rate]) -> HttpResponse | None:
        """Opens the form for the rate that counts in a span in which the chosen one is wrong."""
        chosen = list(queryset[:2])
        if len(chosen) != 1:
            self.message_user(request, "Choose one rate.", messages.ERROR)
            return None
        rate = chosen[0]
        span = {
            f"effective_{end}": at.astimezone(UTC).isoformat()
            for end, at in (("from", rate.effective_from), ("to", rate.effective_to)) if at is not None
        }  # fmt: skip
        return _add_form("corrects", rate, span)

    @admin.action(description="End from …, without a successor", permissions=["add"])
    def end(self, request: HttpRequest, queryset: QuerySet[Rate]) -> HttpResponse | None:
        def act(rate: Rate, data: dict[str, Any]) -> str:
            rate.end(data["at"])
            return f"ends {data['at']:%Y-%m-%d %H:%M} UTC"

        explanation = "From then on there is no such price; what was used before stays as it was rated."
        return self._change(request, queryset, "end", EndForm, act, explanation)

    @admin.action(description="Withdraw from … to …: there was no such price", permissions=["add"])
    def withdraw(self, request: HttpRequest, queryset: QuerySet[Rate]) -> HttpResponse | None:
        def act(rate: Rate, data: dict[str, Any]) -> str:
            start, end = data["start"] or rate.effective_from, data["end"] or rate.effective_to
            gone = rate.withdraw(start, end, reason=data["reason"])
            return f"withdrawn by {gone.pk}"

        explanation = (
            "In that span the rates are as if they had not been there. Events that were rated by them stay as they are "
            "until they are rated again."
        )
        return self._change(request, queryset, "withdraw", WithdrawalForm, act, explanation)

    def _change(
        self, request: HttpRequest, queryset: QuerySet[Rate], action: str, form_class: type[Form],
        act: Callable[[Rate, dict[str, Any]], str], explanation: str,
    ) -> HttpResponse | None:  # fmt: skip
        """Shows what is about to be changed and asks for the rest; on the second request, does it one by one."""
        chosen = list(queryset[: CHANGED_MAX + 1])
        if len(chosen) > CHANGED_MAX:
            self.message_user(request, f"Choose at most {CHANGED_MAX} at once.", messages.ERROR)
            return None
        data = request.POST if "decided" in request.POST else None
        form = form_class(data)
        if data is None or not form.is_valid():
            context = {
                **self.admin_site.each_context(request), "title": action.capitalize(), "opts": self.opts, "rates": chosen,
                "form": form, "action": action, "explanation": explanation, "checkbox": ACTION_CHECKBOX_NAME,
            }  # fmt: skip
            return TemplateResponse(request, "tollgate/change_rates.html", context)
        done = 0
        for rate in chosen:
            try:
                said = act(rate, form.cleaned_data)
            except NotChangeable as error:
                self.message_user(request, str(error), messages.WARNING)
            else:
                done += 1
                self.log_change(request, rate, f"{said}: {form.cleaned_data['reason']}")
        level = messages.SUCCESS if done else messages.WARNING
        self.message_user(request, f"{done} of {len(chosen)} changed.", level)
        return None

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """What a link fills in; an instant is ISO 8601, and left out where it is none."""
        given: dict[str, Any] = dict(super().get_changeform_initial_data(request))
        for name in {"effective_from", "effective_to"} & given.keys():
            with suppress(ValueError):
                given[name] = datetime.fromisoformat(given[name])
                continue
            del given[name]
        return given

    def get_form(
        self, request: HttpRequest, obj: Rate | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        for given, base in (("supersedes", SuccessorForm), ("corrects", CorrectionForm)):
            original = request.GET.get(given, "")
            if obj is None and original.isdigit():
                return type(base.__name__, (base, form), {"original_id": int(original)})
        return form

    def add_view(
        self, request: HttpRequest, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """A rate that was changed by somebody else meanwhile is no error of the server."""
        try:
            return super().add_view(request, form_url, extra_context)
        except (NotChangeable, ValidationError) as error:
            said = error.messages if isinstance(error, ValidationError) else [str(error)]
            self.message_user(request, f"Nothing was saved: {'; '.join(said)}", messages.ERROR)
            return redirect("admin:tollgate_pricing_rate_changelist")

    def save_model(self, request: HttpRequest, obj: Rate, form: Any, change: bool) -> None:
        original = getattr(form, "original", None)
        if original is None:
            obj.save()
            return
        obj.pk = form.act(original, obj).pk  # what Django links to in its message and its log

    def has_change_permission(self, request: HttpRequest, obj: Rate | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Rate | None = None) -> bool:
        return False


def _add_form(act: str, rate: Rate, span: dict[str, str]) -> HttpResponse:
    """The form for a new rate of the same line, filled in."""
    given = {name: getattr(rate, name) for name in (*LINE_FIELDS[1:], *Conditions.__struct_fields__)}
    values = {
        "book": rate.book_id, **{name: value for name, value in given.items() if value}, "per": rate.per,
        "price": decimal_string(rate.price), **span, act: rate.pk,
    }  # fmt: skip
    return redirect(f"{reverse('admin:tollgate_pricing_rate_add')}?{urlencode(values)}")


class ModelAliasForm(AliasForm):
    """A new alias, or what an alias stands for from an instant on."""

    class Meta:
        model = ModelAlias
        fields = ("provider", "alias", "model", "effective_from")

    def clean(self) -> dict[str, Any]:
        given: dict[str, Any] = super().clean() or {}
        since = given.get("effective_from")
        same = ModelAlias.objects.filter(provider=given.get("provider", ""), alias=given.get("alias", ""))
        running = same.filter(effective_to=None).first()
        if (
            running is not None
            and running.effective_from is not None
            and (since or clock.now()) <= running.effective_from
        ):
            self.add_error(
                "effective_from",
                f"It stands for {running.model} from {running.effective_from:%Y-%m-%d %H:%M} UTC on.",
            )
        if running is None and same.filter(Q(effective_to__gt=since) if since else Q()).exists():
            self.add_error("effective_from", "It stood for another model at that time.")
        return given


@admin.register(ModelAlias)
class ModelAliasAdmin(AliasAdmin):
    """Other names of models. To point one elsewhere, add it again: what it stood for ends where the new one begins."""

    list_display = ("provider", "alias", "model", "effective_from", "effective_to")
    list_filter = ("provider",)
    search_fields = ("alias", "model")
    actions = ("end_now",)
    form = ModelAliasForm

    def has_change_permission(self, request: HttpRequest, obj: ModelAlias | None = None) -> bool:
        return obj is None and super().has_change_permission(request)

    def has_delete_permission(self, request: HttpRequest, obj: ModelAlias | None = None) -> bool:
        return False

    def save_model(self, request: HttpRequest, obj: ModelAlias, form: Any, change: bool) -> None:
        running = ModelAlias.objects.filter(provider=obj.provider, alias=obj.alias, effective_to=None).first()
        if running is None:
            obj.save()
            return
        made = running.supersede(obj.model, obj.effective_from or clock.now())
        obj.pk, obj.effective_from, obj._state.adding = made.pk, made.effective_from, False

    @admin.action(description="End now", permissions=["add"])
    def end_now(self, request: HttpRequest, queryset: QuerySet[ModelAlias]) -> None:
        at = clock.now()
        for alias in queryset:
            try:
                alias.end(at)
            except NotChangeable as error:
                self.message_user(request, f"{alias}: {error}", messages.ERROR)
            else:
                self.message_user(request, f"{alias}, until now.")
