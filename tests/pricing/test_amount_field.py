"""Amounts come back from the database as they went in, and sum exactly, on both engines."""

from collections.abc import Iterator
from decimal import Decimal
from typing import ClassVar

import pytest
from django.core.exceptions import FieldError, ValidationError
from django.db import connection, models, transaction
from django.db.models import F, Max, Min, Sum, Value
from hypothesis import HealthCheck, given, settings, strategies as st

from pricing.fields import AmountField
from pricing.money import SQLITE_AMOUNT_LIMIT, AmountTooLarge


class Purse(models.Model):
    """A table of the test's own."""

    id = models.IntegerField(primary_key=True)
    amount = AmountField(null=True)

    objects: ClassVar[models.Manager["Purse"]] = models.Manager()

    class Meta:
        app_label = "tests"
        db_table = "test_purses"


pytestmark = pytest.mark.django_db
GREATEST = Decimal("9223372.036854775807")
FINEST = Decimal("0.000000000001")


@pytest.fixture(autouse=True)
def _table(db: None) -> Iterator[None]:
    column = Purse._meta.get_field("amount").db_type(connection)
    with connection.cursor() as cursor:
        cursor.execute(f"create table test_purses (id integer primary key, amount {column} null)")
    yield
    with connection.cursor() as cursor:
        cursor.execute("drop table test_purses")


def store(*amounts: Decimal | int | str | None) -> None:
    Purse.objects.all().delete()
    with transaction.atomic():
        Purse.objects.bulk_create([Purse(id=number, amount=amount) for number, amount in enumerate(amounts)])


def stored() -> list[Decimal | None]:
    return list(Purse.objects.order_by("id").values_list("amount", flat=True))


@pytest.mark.parametrize(
    "amount", [Decimal(0), FINEST, -FINEST, GREATEST, -GREATEST, Decimal("123.450000000000"), Decimal("1E+3")]
)
def test_an_amount_comes_back_as_it_went_in(amount: Decimal) -> None:
    store(amount)
    assert stored() == [amount]
    assert isinstance(stored()[0], Decimal)


@given(st.lists(st.decimals(-1_000_000, 1_000_000, places=12), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sums_are_exact(amounts: list[Decimal]) -> None:
    store(*amounts)
    found = Purse.objects.aggregate(total=Sum("amount"), least=Min("amount"), most=Max("amount"))
    assert found == {"total": sum(amounts), "least": min(amounts), "most": max(amounts)}


def test_the_digits_that_a_decimal_column_of_sqlite_loses_are_kept() -> None:
    store(Decimal("1234567.123456789012"), Decimal("0.3"))
    assert Purse.objects.aggregate(total=Sum("amount"))["total"] == Decimal("1234567.423456789012")


def test_a_sum_of_nothing_can_be_zero() -> None:
    assert Purse.objects.aggregate(total=Sum("amount"))["total"] is None
    assert Purse.objects.aggregate(total=Sum("amount", default=Decimal(0)))["total"] == 0


def test_null_stays_null() -> None:
    store(None, Decimal(1))
    assert stored() == [None, 1]
    assert Purse.objects.filter(amount__isnull=True).count() == 1


def test_amounts_compare_as_numbers() -> None:
    store("9", "10", "-1")
    assert list(Purse.objects.order_by("amount").values_list("amount", flat=True)) == [-1, 9, 10]
    assert Purse.objects.filter(amount__gt=Decimal("8.999999999999"), amount__lte=10).count() == 2
    assert Purse.objects.filter(amount__in=[Decimal("10.0"), 9]).count() == 2
    assert Purse.objects.get(amount=Decimal("9.00")).id == 0


def test_amounts_can_be_added_in_the_database() -> None:
    store("1.5")
    Purse.objects.update(amount=F("amount") + Value(FINEST, output_field=AmountField()))
    assert stored() == [Decimal("1.500000000001")]
    twice = Purse.objects.annotate(twice=F("amount") + F("amount")).values_list("twice", flat=True)
    assert list(twice) == [Decimal("3.000000000002")]


def test_a_product_of_amounts_is_refused() -> None:
    store("1.5")
    with pytest.raises(FieldError):
        list(Purse.objects.annotate(square=F("amount") * F("amount")))


@pytest.mark.parametrize("amount", [Decimal("NaN"), Decimal("Infinity"), Decimal("0.0000000000001")])
def test_what_is_no_exact_amount_is_refused(amount: Decimal) -> None:
    with pytest.raises(ValueError, match=r"finite|places"):
        store(amount)
    assert stored() == []


@pytest.mark.parametrize("amount", [1.5, True])
def test_floats_are_refused(amount: float) -> None:
    with pytest.raises(TypeError, match="Decimal"):
        store(amount)  # type: ignore[arg-type]


def test_text_that_is_no_number_is_refused() -> None:
    with pytest.raises(ValidationError):
        store("ten")


def test_an_amount_too_large_is_refused_before_anything_is_written() -> None:
    limit = Decimal(10) ** 18 if connection.vendor == "postgresql" else SQLITE_AMOUNT_LIMIT + FINEST
    with pytest.raises(AmountTooLarge):
        store(Decimal(1), limit)
    assert stored() == []


def test_postgresql_holds_amounts_that_sqlite_cannot() -> None:
    large = Decimal("999999999999999999.999999999999")
    if connection.vendor == "postgresql":
        store(large)
        assert stored() == [large]
    else:
        with pytest.raises(AmountTooLarge):
            store(large)


def test_a_form_accepts_what_the_column_holds() -> None:
    field = AmountField().formfield()
    assert field.clean("0.000000000001") == FINEST
    with pytest.raises(ValidationError):
        field.clean("0.0000000000001")


def test_an_amount_is_written_plainly() -> None:
    assert Purse._meta.get_field("amount").value_to_string(Purse(amount=Decimal("2.5E-7"))) == "0.00000025"
