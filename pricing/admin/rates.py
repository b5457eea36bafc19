"""The catalogue in Django's admin. Rates can be added and superseded, never edited or deleted."""

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse

from pricing.conditions import Conditions
from pricing.models import LINE_FIELDS, ModelAlias, PriceBook, Rate
from pricing.money import decimal_string

if TYPE_CHECKING:
    BookAdmin = admin.ModelAdmin[PriceBook]
    RatesAdmin = admin.ModelAdmin[Rate]
    AliasAdmin = admin.ModelAdmin[ModelAlias]
else:
    BookAdmin = RatesAdmin = AliasAdmin = admin.ModelAdmin


@admin.register(PriceBook)
class PriceBookAdmin(BookAdmin):
    """Price books. One with rates is history and stays."""

    list_display = ("slug", "name", "currency")

    def has_delete_permission(self, request: HttpRequest, obj: PriceBook | None = None) -> bool:
        return False


@admin.register(Rate)
class RateAdmin(RatesAdmin):
    """Rates: add a new one, or supersede one by a new price from a date on."""

    list_display = (
        "provider",
        "model",
        "bucket",
        "input_above",
        "unit",
        "book",
        "effective_from",
        "effective_to",
        "source_date",
    )
    list_filter = ("book", "provider", "bucket")
    search_fields = ("model", "note")
    list_select_related = ("book",)
    date_hierarchy = "effective_from"
    actions = ("supersede",)

    @admin.display(description="price", ordering="price")
    def unit(self, rate: Rate) -> str:
        return f"{decimal_string(rate.price)} per {rate.per:,}"

    @admin.action(description="Supersede by a new price", permissions=["add"])
    def supersede(self, request: HttpRequest, queryset: QuerySet[Rate]) -> HttpResponse | None:
        """Opens the form for the successor, filled in; saving it ends the chosen rate."""
        chosen = list(queryset[:2])
        if len(chosen) != 1 or chosen[0].effective_to is not None:
            self.message_user(request, "Choose one rate that is still in force.", messages.ERROR)
            return None
        rate = chosen[0]
        given = {name: getattr(rate, name) for name in (*LINE_FIELDS[1:], *Conditions.__struct_fields__)}
        values = {
            "book": rate.book_id, **{name: value for name, value in given.items() if value},
            "per": rate.per, "price": decimal_string(rate.price), "supersedes": rate.pk,
        }  # fmt: skip
        return redirect(f"{reverse('admin:tollgate_pricing_rate_add')}?{urlencode(values)}")

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
        superseded = request.GET.get("supersedes", "")
        if obj is None and superseded.isdigit():
            return type("SuccessorForm", (_SuccessorForm, form), {"superseded_id": int(superseded)})
        return form

    def save_model(self, request: HttpRequest, obj: Rate, form: Any, change: bool) -> None:
        superseded = getattr(form, "superseded", None)
        if superseded is None:
            obj.save()
            return
        successor = superseded.supersede(
            obj.price,
            obj.effective_from,
            per=obj.per,
            source=obj.source,
            source_date=obj.source_date,
            note=obj.note,
        )
        obj.pk = successor.pk  # what Django links to in its message and its log

    def has_change_permission(self, request: HttpRequest, obj: Rate | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Rate | None = None) -> bool:
        return False


class _SuccessorForm(ModelForm):  # type: ignore[type-arg]
    """The form of a rate that takes the place of another: same thing, a later beginning."""

    superseded_id: int
    superseded: Rate | None = None

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        self.superseded = Rate.objects.open().filter(pk=self.superseded_id).first()
        if self.superseded is None:
            raise ValidationError("This rate has been superseded already.")
        line = ("book", *LINE_FIELDS[1:], *Conditions.__struct_fields__)
        if any(name in data and data[name] != getattr(self.superseded, name) for name in line):
            raise ValidationError(
                "A successor prices the same thing: book, provider, model, bucket and all conditions stay."
            )
        if "effective_from" in data and data["effective_from"] <= self.superseded.effective_from:
            raise ValidationError(f"It must begin after {self.superseded.effective_from:%Y-%m-%d %H:%M} UTC.")
        return data

    def _post_clean(self) -> None:
        """Validates all but the overlap, since the rate that it overlaps with is the one that it ends."""
        if self.superseded is None:
            super()._post_clean()  # type: ignore[misc]  # absent from the stubs
            return
        if self.errors:
            return
        for name, value in self.cleaned_data.items():
            setattr(self.instance, name, value)
        try:
            self.instance.check_price()
            self.instance.validate_constraints()
        except ValidationError as error:
            self._update_errors(error)  # type: ignore[attr-defined]  # absent from the stubs


@admin.register(ModelAlias)
class ModelAliasAdmin(AliasAdmin):
    """Other names of models."""

    list_display = ("provider", "alias", "model")
    list_filter = ("provider",)
    search_fields = ("alias", "model")

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[ModelAlias]) -> None:
        for alias in queryset:  # one by one, so that each announces itself
            alias.delete()
