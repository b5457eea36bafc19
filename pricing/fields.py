"""The column for exact amounts.

Django's DecimalField silently loses digits on SQLite, which has no decimal type. This field keeps numeric(30,12) on
PostgreSQL and the same amount as an integer of 10⁻¹² units on SQLite, so that both hold and sum every amount exactly.
It is no DecimalField on purpose: Django would treat it as one in expressions, and read SQLite's integers 10¹² too high.
"""

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, TypeVar

from django import forms
from django.core import checks, exceptions
from django.db import models
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models.expressions import Combinable, register_combinable_fields

from pricing.money import (
    AMOUNT_DIGITS,
    AMOUNT_PLACES,
    POSTGRES_AMOUNT_LIMIT,
    AmountTooLarge,
    decimal_string,
    from_scaled,
    round_amount,
    to_scaled,
)

# What may be assigned and what is read; Django's plugin for the type checker fills them in.
_Set_contra = TypeVar("_Set_contra", contravariant=True)
_Get_co = TypeVar("_Get_co", covariant=True)

if TYPE_CHECKING:
    _Field = models.Field
else:

    class _Field(models.Field):
        """Django's field cannot be subscripted at run time."""

        def __class_getitem__(cls, _types: Any) -> type:
            return cls


class AmountField(_Field[_Set_contra, _Get_co]):
    """An exact amount: Decimal in Python, at most 12 places, ±(10¹⁸ − 10⁻¹²) on PostgreSQL, ±9.2 million on SQLite.

    Writing raises AmountTooLarge beyond that, ValueError for what is not finite or finer than 12 places (nothing is
    rounded here), TypeError for a float; all before anything reaches the database.
    """

    _pyi_private_set_type: str | int | Decimal | Combinable
    _pyi_private_get_type: Decimal
    _pyi_lookup_exact_type: str | int | Decimal
    description = "An exact amount"

    def db_type(self, connection: BaseDatabaseWrapper) -> str:
        if connection.vendor == "postgresql":
            return f"numeric({AMOUNT_DIGITS}, {AMOUNT_PLACES})"
        return "bigint"

    def cast_db_type(self, connection: BaseDatabaseWrapper) -> str:
        return self.db_type(connection)

    def check(self, **kwargs: Any) -> list[checks.CheckMessage]:
        return [*super().check(**kwargs), *self._check_databases(kwargs.get("databases") or ())]

    def _check_databases(self, aliases: Any) -> list[checks.CheckMessage]:
        from django.db import connections

        return [
            checks.Error(
                f"amounts are exact on PostgreSQL and SQLite only, not on {connections[alias].vendor}",
                obj=self,
                id="tollgate_pricing.E001",
            )
            for alias in aliases
            if connections[alias].vendor not in {"postgresql", "sqlite"}
        ]

    def to_python(self, value: Any) -> Decimal | None:
        if value is None or isinstance(value, Decimal):
            return value
        if isinstance(value, bool | float):
            raise TypeError(f"an amount is a Decimal, not the {type(value).__name__} {value}")
        try:
            return Decimal(value)
        except (InvalidOperation, TypeError, ValueError) as error:
            raise exceptions.ValidationError(f"{value!r} is no amount", code="invalid") from error

    def get_prep_value(self, value: Any) -> Any:
        return self.to_python(super().get_prep_value(value))

    def get_db_prep_value(self, value: Any, connection: BaseDatabaseWrapper, prepared: bool = False) -> Any:
        amount = value if prepared else self.get_prep_value(value)
        if amount is None:
            return None
        if connection.vendor != "postgresql":
            return to_scaled(amount)
        rounded = round_amount(amount)
        if rounded.copy_abs() > POSTGRES_AMOUNT_LIMIT:
            raise AmountTooLarge(f"an amount is at most ±{POSTGRES_AMOUNT_LIMIT}, not {amount}")
        if rounded != amount:
            raise ValueError(
                f"{amount} has more than {AMOUNT_PLACES} decimal places; round_amount() it first"
            )
        return amount

    def from_db_value(self, value: Any, expression: Any, connection: BaseDatabaseWrapper) -> Decimal | None:
        if value is None or isinstance(value, Decimal):
            return value
        if isinstance(value, int):
            return from_scaled(value)
        raise TypeError(f"SQLite computed {value!r}, which is not exact; sum amounts and divide in Python")

    def value_to_string(self, obj: models.Model) -> str:
        amount: Any = self.value_from_object(obj)
        return "" if amount is None else decimal_string(amount)

    def formfield(self, **kwargs: Any) -> Any:
        return super().formfield(
            **{
                "form_class": forms.DecimalField,
                "max_digits": AMOUNT_DIGITS,
                "decimal_places": AMOUNT_PLACES,
                **kwargs,
            }
        )


# Sums and differences of amounts are amounts; a product or a quotient is not, and is refused by Django as it stands.
register_combinable_fields(AmountField, Combinable.ADD, AmountField, AmountField)
register_combinable_fields(AmountField, Combinable.SUB, AmountField, AmountField)
