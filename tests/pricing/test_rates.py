"""Rates are dated, never edited, never deleted, and never two at a time."""

import threading
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction

from pricing.catalog import load_rate_card
from pricing.models import CatalogueVersion, ModelAlias, PriceBook, Rate
from pricing.rating import rate_usage
from pricing.usage import Usage

pytestmark = pytest.mark.django_db
JANUARY, JULY, AUGUST = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 7, 8))


@pytest.fixture
def book() -> PriceBook:
    return PriceBook.objects.create(slug="own", name="Ours")


def rate(book: PriceBook, price: str = "2", **changes: Any) -> Rate:
    known = {"provider": "acme", "model": "large", "bucket": "in_uncached", "effective_from": JANUARY}
    return Rate.objects.create(book=book, price=Decimal(price), **{**known, **changes})


def version() -> int:
    return CatalogueVersion.objects.get().version


def unit_price(at: datetime) -> Decimal | None:
    prices = load_rate_card().prices_for("own", "acme", "large", at)
    return prices.unit_price_input if prices else None


def test_a_superseded_rate_ends_where_the_next_begins(book: PriceBook) -> None:
    first = rate(book)
    second = first.supersede(Decimal(3), JULY, source="letter of June")
    first.refresh_from_db()
    assert (first.effective_to, second.effective_from, second.effective_to) == (JULY, JULY, None)
    assert unit_price(JULY - timedelta(microseconds=1)) == Decimal(2) / 1_000_000
    assert unit_price(JULY) == Decimal(3) / 1_000_000


def test_a_rate_is_superseded_once(book: PriceBook) -> None:
    first = rate(book)
    first.supersede(Decimal(3), JULY)
    with pytest.raises(ValueError, match="has ended"):
        first.supersede(Decimal(4), AUGUST)
    assert Rate.objects.count() == 2


def test_a_rate_is_not_superseded_before_it_began(book: PriceBook) -> None:
    with pytest.raises(ValueError, match="began later"):
        rate(book).supersede(Decimal(3), JANUARY)


def test_a_rate_is_never_edited(book: PriceBook) -> None:
    kept = rate(book)
    kept.price = Decimal(9)
    with pytest.raises(TypeError, match="never edited"):
        kept.save()
    with pytest.raises(TypeError, match="never edited"):
        Rate.objects.update(price=Decimal(9))


def test_a_rate_is_never_deleted(book: PriceBook) -> None:
    with pytest.raises(TypeError, match="never deleted"):
        rate(book).delete()
    with pytest.raises(TypeError, match="never deleted"):
        Rate.objects.all().delete()


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (JANUARY, None),
        (JANUARY - timedelta(1), None),
        (JULY - timedelta(microseconds=1), JULY),
        (JANUARY, JULY),
    ],
)
def test_a_second_rate_at_the_same_time_is_refused(
    book: PriceBook, start: datetime, end: datetime | None
) -> None:
    rate(book, effective_to=JULY)
    with pytest.raises(ValidationError, match="another rate"):
        rate(book, "3", effective_from=start, effective_to=end)


@pytest.mark.parametrize(
    "other",
    [
        {"bucket": "out_visible"},
        {"model": "small"},
        {"provider": "other"},
        {"input_above": 200_000},
        {"match": "prefix"},
        {"batch": True},
        {"byok": True},
        {"service_tier": "flex"},
        {"speed": "fast"},
        {"region": "us"},
        {"weekdays": "mon", "time_zone": "UTC"},
        {"time_from": time(22), "time_to": time(6), "time_zone": "UTC"},
        {"effective_from": JULY},
    ],
)
def test_rates_for_other_things_and_other_times_stand_side_by_side(
    book: PriceBook, other: dict[str, Any]
) -> None:
    rate(book, effective_to=JULY)
    rate(book, "3", **other)
    assert Rate.objects.count() == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"bucket": "tokens"},
        {"per": 3600, "price": Decimal("1.02")},
        {"price": Decimal("NaN")},
        {"price": None},
        {"model": ""},
    ],
)
def test_what_could_not_be_rated_by_is_refused(book: PriceBook, wrong: dict[str, Any]) -> None:
    known = {
        "provider": "acme",
        "model": "large",
        "bucket": "in_uncached",
        "effective_from": JANUARY,
        "price": Decimal(2),
    }
    with pytest.raises(ValidationError):
        Rate.objects.create(book=book, **{**known, **wrong})


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"service_tier": "standard"}, "service_tier"),
        ({"speed": "Fast"}, "speed"),
        ({"region": "us-east-1"}, "region"),
        ({"weekdays": "someday", "time_zone": "UTC"}, "weekdays"),
        ({"weekdays": "mon-sun", "time_zone": "UTC"}, "weekdays"),
        ({"weekdays": "mon"}, "time_zone"),
        ({"weekdays": "mon", "time_zone": "Mars/Olympus"}, "time_zone"),
        ({"time_zone": "UTC"}, "time_zone"),
        ({"time_from": time(1), "time_zone": "UTC"}, "time_to"),
        ({"time_to": time(1), "time_zone": "UTC"}, "time_to"),
        ({"time_from": time(1), "time_to": time(1), "time_zone": "UTC"}, "time_to"),
        ({"match": "regex"}, "match"),
    ],
)
def test_a_condition_under_which_a_rate_never_holds_is_refused(
    book: PriceBook, wrong: dict[str, Any], field: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        rate(book, **wrong)
    assert list(refused.value.message_dict) == [field]
    assert not Rate.objects.exists()


def test_weekdays_are_stored_in_one_form(book: PriceBook) -> None:
    assert rate(book, weekdays="fri, mon-wed", time_zone="UTC").weekdays == "mon,tue,wed,fri"
    with pytest.raises(ValidationError, match="another rate"):
        rate(book, weekdays="mon,tue,wed,fri", time_zone="UTC")


def test_a_successor_has_the_conditions_of_the_rate_it_follows(book: PriceBook) -> None:
    given: dict[str, Any] = {
        "match": "prefix", "batch": True, "byok": True, "service_tier": "flex", "speed": "fast", "region": "us",
        "weekdays": "mon,tue", "time_from": time(22), "time_to": time(6), "time_zone": "Europe/Berlin",
        "input_above": 200_000,
    }  # fmt: skip
    second = rate(book, **given).supersede(Decimal(3), JULY)
    second.refresh_from_db()
    assert {name: getattr(second, name) for name in given} == given
    assert len(set(Rate.objects.values_list("line", flat=True))) == 1


def test_conditions_reach_the_card(book: PriceBook) -> None:
    rate(book)
    night = rate(
        book, "1", time_from=time(22), time_to=time(6), time_zone="Europe/Berlin", weekdays="wed", batch=True
    )
    usage = Usage({"in_uncached": 1}, "acme", model_served="large", batch=True)
    found = rate_usage(
        load_rate_card(), usage, book="own", at=datetime(2026, 7, 1, 20, tzinfo=UTC)
    )  # 22:00 there
    assert found.rate_ids == (night.pk,)


def test_a_price_per_hour_is_fine_where_a_second_comes_out_even(book: PriceBook) -> None:
    rate(book, "0.36", bucket="audio_second", per=3600)
    prices = load_rate_card().prices_for("own", "acme", "large", JULY)
    assert prices is not None
    found = prices.price("audio_second")
    assert found is not None
    assert found.unit_price == Decimal("0.0001")


@pytest.mark.parametrize(
    "wrong", [{"price": Decimal(-1)}, {"effective_to": JANUARY}, {"input_above": -1}, {"per": -1}]
)
def test_the_database_refuses_what_must_never_be(book: PriceBook, wrong: dict[str, Any]) -> None:
    known = {
        "provider": "acme",
        "model": "large",
        "bucket": "in_uncached",
        "effective_from": JANUARY,
        "price": Decimal(2),
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        Rate.objects.bulk_create([Rate(book=book, **{**known, **wrong})])


def test_every_change_of_the_catalogue_is_announced(book: PriceBook) -> None:
    seen = [version()]
    first = rate(book)
    seen.append(version())
    first.supersede(Decimal(3), JULY)
    seen.append(version())
    alias = ModelAlias.objects.create(provider="acme", alias="biggest", model="large")
    seen.append(version())
    alias.delete()
    seen.append(version())
    book.name = "Theirs"
    book.save()
    seen.append(version())
    assert seen == sorted(set(seen))


def test_a_change_that_is_rolled_back_is_not_announced(book: PriceBook) -> None:
    before = version()
    with transaction.atomic():
        rate(book)
        assert version() > before
        transaction.set_rollback(True)
    assert version() == before
    assert not Rate.objects.exists()


def test_the_currency_of_a_book_with_rates_is_fixed(book: PriceBook) -> None:
    rate(book)
    book.currency = "EUR"
    with pytest.raises(ValidationError, match="history"):
        book.save()


def test_the_card_names_the_version_it_was_read_at(book: PriceBook) -> None:
    rate(book)
    assert load_rate_card().version == version()
    assert load_rate_card().rates == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_rates_added_at_once_for_the_same_time_one_is_refused(book: PriceBook) -> None:
    together = threading.Barrier(2)
    refused: list[Exception] = []

    def add(start: datetime) -> None:
        try:
            together.wait(timeout=10)
            rate(book, effective_from=start)
        except ValidationError as error:
            refused.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=add, args=(start,)) for start in (JANUARY, JULY)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1
    assert Rate.objects.count() == 1
