"""Rates are dated, never edited, never deleted, and never two at a time."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, models, transaction

from pricing.catalog import load_rate_card
from pricing.models import CatalogueVersion, ModelAlias, NotChangeable, PriceBook, Rate
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
    alias.supersede("larger", JULY)
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


# Two that nothing could choose between.

OFFICE: dict[str, Any] = {"time_from": time(9), "time_to": time(17), "time_zone": "Europe/Berlin"}
MEET = [
    (OFFICE, {**OFFICE, "time_from": time(16, 59), "time_to": time(18)}),
    (OFFICE, {**OFFICE, "time_zone": "Europe/London"}),
    ({**OFFICE, "batch": True, "region": "us"}, {**OFFICE, "batch": True, "region": "us", "time_zone": "Asia/Tokyo",
                                                "time_from": time(20)}),
    ({"weekdays": "mon,tue", "time_zone": "UTC"}, {"weekdays": "tue,wed", "time_zone": "UTC"}),
    ({"weekdays": "mon", "time_zone": "UTC"}, {"weekdays": "tue", "time_zone": "Asia/Shanghai"}),
    ({"weekdays": "mon", **OFFICE}, {"weekdays": "mon,fri", **OFFICE, "time_from": time(12)}),
    ({**OFFICE, "input_above": 100}, {**OFFICE, "input_above": 100, "time_from": time(8)}),
    ({**OFFICE, "match": "prefix"}, {**OFFICE, "match": "prefix", "time_from": time(8)}),
]  # fmt: skip
DO_NOT_MEET = [
    (OFFICE, {**OFFICE, "time_from": time(17), "time_to": time(9)}),
    (OFFICE, {**OFFICE, "time_zone": "Australia/Sydney"}),
    (
        OFFICE,
        {"weekdays": "mon", "time_zone": "UTC"},
    ),  # other conditions: the window comes first in the order
    (OFFICE, {**OFFICE, "time_from": time(8), "input_above": 100}),
    (OFFICE, {**OFFICE, "time_from": time(8), "match": "prefix"}),
    (OFFICE, {**OFFICE, "time_from": time(8), "bucket": "out_visible"}),
    ({**OFFICE, "service_tier": "flex"}, {**OFFICE, "time_from": time(8), "service_tier": "priority"}),
    ({"weekdays": "mon", "time_zone": "UTC"}, {"weekdays": "tue", "time_zone": "UTC"}),
    ({"weekdays": "mon", **OFFICE}, {"weekdays": "tue", **OFFICE}),
    ({**OFFICE, "effective_to": JULY}, {**OFFICE, "time_from": time(8), "effective_from": JULY}),
]


@pytest.mark.parametrize(("one", "other"), MEET)
def test_rates_of_the_same_conditions_whose_hours_meet_are_refused_and_the_other_is_named(
    book: PriceBook, one: dict[str, Any], other: dict[str, Any]
) -> None:
    first = rate(book, **one)
    with pytest.raises(ValidationError, match=rf"ambiguous: .*: rate {first.pk}, acme/large"):
        rate(book, "3", **other)
    assert Rate.objects.count() == 1


@pytest.mark.parametrize(("one", "other"), DO_NOT_MEET)
def test_rates_whose_hours_do_not_meet_or_whose_conditions_differ_stand_side_by_side(
    book: PriceBook, one: dict[str, Any], other: dict[str, Any]
) -> None:
    rate(book, **one)
    rate(book, "3", **other)
    assert Rate.objects.count() == 2


@pytest.mark.parametrize("stored", [0, 1])
@pytest.mark.parametrize(("one", "other"), [MEET[0], ({}, {"effective_from": JULY})])
def test_many_rates_at_once_are_judged_as_one_by_one(
    book: PriceBook, one: dict[str, Any], other: dict[str, Any], stored: int
) -> None:
    known = {
        "book": book,
        "provider": "acme",
        "model": "large",
        "bucket": "in_uncached",
        "effective_from": JANUARY,
    }
    rates = [
        Rate(price=Decimal(2), **{**known, **given}) for given in (one, other, {"bucket": "out_visible"})
    ]
    for kept in rates[:stored]:
        kept.save()
    with pytest.raises(ValidationError, match="another rate"):
        Rate.objects.bulk_create(rates[stored:])
    assert Rate.objects.count() == stored


def test_many_rates_at_once_are_checked_as_one_by_one(book: PriceBook) -> None:
    known = {
        "book": book,
        "provider": "acme",
        "model": "large",
        "effective_from": JANUARY,
        "price": Decimal(2),
    }
    with pytest.raises(ValidationError, match="no bucket"):
        Rate.objects.bulk_create([Rate(bucket="in_uncached", **known), Rate(bucket="tokens", **known)])
    with pytest.raises(ValidationError, match="time zone"):
        Rate.objects.bulk_create([Rate(bucket="in_uncached", weekdays="mon", **known)])
    assert not Rate.objects.exists()
    Rate.objects.bulk_create([Rate(bucket="in_uncached", weekdays="mon-fri", time_zone="UTC", **known)])
    assert Rate.objects.get().weekdays == "mon,tue,wed,thu,fri"


# What the database itself refuses.


def insert(rate: Rate) -> None:
    """Past every check of ours, as SQL from outside would do it."""
    rate.line = rate.line_key()
    models.QuerySet.bulk_create(Rate.objects.all(), [rate])


def raw(book: PriceBook, start: datetime, end: datetime | None = None, **given: Any) -> Rate:
    known = {"provider": "acme", "model": "large", "bucket": "in_uncached", "price": Decimal(2)}
    return Rate(book=book, effective_from=start, effective_to=end, **{**known, **given})


@pytest.mark.engine("postgresql")
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (JANUARY - timedelta(1), None),
        (JULY - timedelta(microseconds=1), None),
        (JANUARY + timedelta(1), JULY),
    ],
)
def test_postgresql_refuses_an_overlap_of_one_line_by_itself(
    book: PriceBook, start: datetime, end: datetime | None
) -> None:
    insert(raw(book, JANUARY, JULY))
    with pytest.raises(IntegrityError, match="tollgate_rates_one_at_a_time"), transaction.atomic():
        insert(raw(book, start, end))
    insert(raw(book, JULY))
    insert(raw(book, JANUARY, batch=True))
    insert(raw(book, JANUARY, revision=1))
    assert Rate.objects.count() == 4


def test_both_engines_refuse_a_line_that_begins_twice_at_one_instant(book: PriceBook) -> None:
    insert(raw(book, JANUARY))
    with pytest.raises(IntegrityError), transaction.atomic():
        insert(raw(book, JANUARY, JULY))


@pytest.mark.engine("postgresql")
@pytest.mark.django_db(transaction=True)
def test_of_two_that_write_past_the_checks_at_once_postgresql_refuses_one(book: PriceBook) -> None:
    refused = both_at_once(lambda start: insert(raw(book, start)), JANUARY, JULY)
    assert [type(error) for error in refused] == [IntegrityError]
    assert Rate.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_rates_added_at_once_for_the_same_time_one_is_refused(book: PriceBook) -> None:
    refused = both_at_once(lambda start: rate(book, effective_from=start), JANUARY, JULY)
    assert [type(error) for error in refused] == [ValidationError]
    assert Rate.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_ambiguous_rates_added_at_once_one_is_refused(book: PriceBook) -> None:
    refused = both_at_once(lambda start: rate(book, **OFFICE | {"time_from": start}), time(9), time(10))
    assert [type(error) for error in refused] == [ValidationError]
    assert Rate.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_of_two_that_supersede_at_once_one_is_refused(book: PriceBook) -> None:
    first = rate(book)
    refused = both_at_once(lambda at: first.supersede(Decimal(3), at), JULY, AUGUST)
    assert [type(error) for error in refused] == [NotChangeable]
    assert Rate.objects.count() == 2


@pytest.mark.django_db(transaction=True)
def test_of_two_that_correct_the_same_span_at_once_one_is_refused(book: PriceBook) -> None:
    first = rate(book)
    prices = (Decimal(3), Decimal(4))
    refused = both_at_once(lambda price: first.correct(price, JANUARY, JULY, reason="a letter"), *prices)
    assert [type(error) for error in refused] == [NotChangeable]
    assert list(Rate.objects.order_by("revision").values_list("revision", flat=True)) == [0, 1]


def both_at_once(act: Callable[[Any], object], *arguments: Any) -> list[Exception]:
    """Calls `act` with each argument in a thread of its own; what was raised."""
    together = threading.Barrier(len(arguments))
    refused: list[Exception] = []

    def run(argument: Any) -> None:
        try:
            together.wait(timeout=10)
            act(argument)
        except (ValidationError, IntegrityError, ValueError) as error:
            refused.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=run, args=(argument,)) for argument in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return refused
