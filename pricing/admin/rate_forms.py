"""Forms of the acts on rates. A rate is never edited, so each act makes a new one or ends one."""

from abc import abstractmethod
from typing import Any

from django import forms
from django.core.exceptions import ValidationError

from pricing.conditions import Conditions
from pricing.hours import weekday_set
from pricing.models import LINE_FIELDS, NotChangeable, Rate

SAME_LINE = ("book", *LINE_FIELDS[1:], *Conditions.__struct_fields__)


class RateForm(forms.ModelForm):  # type: ignore[type-arg]
    """A rate as it is typed in: weekdays may be a span."""

    def clean_weekdays(self) -> str:
        try:
            return weekday_set(self.cleaned_data["weekdays"])
        except ValueError as error:
            raise ValidationError(str(error)) from error


class SameLineForm(RateForm):
    """The form of a rate for the same thing and under the same conditions as one that is there already."""

    original_id: int
    original: Rate | None = None

    def clean(self) -> dict[str, Any]:
        data = super().clean() or self.cleaned_data
        self.original = Rate.objects.filter(pk=self.original_id).first()
        if self.original is None:
            raise ValidationError("There is no such rate.")
        changed = [name for name in SAME_LINE if name in data and data[name] != getattr(self.original, name)]
        if changed:
            raise ValidationError(
                f"It must price the same thing under the same conditions as {self.original}. Different here: "
                f"{', '.join(changed)}. For another thing or other conditions add a rate of its own."
            )
        if not self.errors:
            try:
                self.check(self.original, data)
            except NotChangeable as error:
                raise ValidationError(str(error)) from error
        return data

    @abstractmethod
    def check(self, original: Rate, data: dict[str, Any]) -> None:
        """Raises NotChangeable when the act is not possible."""

    @abstractmethod
    def act(self, original: Rate, rate: Rate) -> Rate:
        """Carry it out; the new rate. Raises NotChangeable."""

    def _post_clean(self) -> None:
        """Validates all but the conflict with the rate that it takes the place of."""
        if self.errors:
            return
        for name, value in self.cleaned_data.items():
            setattr(self.instance, name, value)
        try:
            self.instance.clean_row()
        except ValidationError as error:
            self._update_errors(error)  # type: ignore[attr-defined]  # absent from the stubs
        if self.instance.price < 0:
            self.add_error("price", "a price is not negative")


class SuccessorForm(SameLineForm):
    """Another price from an instant on."""

    def check(self, original: Rate, data: dict[str, Any]) -> None:
        original.check_end(data["effective_from"])

    def act(self, original: Rate, rate: Rate) -> Rate:
        return original.supersede(
            rate.price, rate.effective_from, effective_to=rate.effective_to, note=rate.note, **_evidence(rate)
        )


class CorrectionForm(SameLineForm):
    """Another price for a span in which the rate was wrong."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["note"].required = True
        self.fields["note"].label = "Reason"

    def check(self, original: Rate, data: dict[str, Any]) -> None:
        original.check_correction(data["effective_from"], data["effective_to"], data["note"])

    def act(self, original: Rate, rate: Rate) -> Rate:
        return original.correct(
            rate.price, rate.effective_from, rate.effective_to, reason=rate.note, **_evidence(rate)
        )


class EndForm(forms.Form):
    """When the chosen rates end."""

    at = forms.DateTimeField(
        label="End from", help_text="UTC; the rate holds until then and no longer",
        widget=forms.DateTimeInput(attrs={"placeholder": "2027-01-01 00:00"}),
    )  # fmt: skip
    reason = forms.CharField(max_length=500, widget=forms.TextInput(attrs={"size": 80}))


class WithdrawalForm(forms.Form):
    """For which span the chosen rates are as if they had not been there."""

    start = forms.DateTimeField(
        label="From", required=False, help_text="UTC; empty: from the first instant of each rate"
    )
    end = forms.DateTimeField(label="To", required=False, help_text="UTC; empty: to the end of each rate")
    reason = forms.CharField(max_length=500, widget=forms.TextInput(attrs={"size": 80}))


def _evidence(rate: Rate) -> dict[str, Any]:
    return {"per": rate.per, "source": rate.source, "source_date": rate.source_date}
