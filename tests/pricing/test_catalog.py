"""The shipped prices reach the price books once, and never undo what an operator has set."""

from datetime import UTC, date, datetime, time
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from pricing.catalog import PriceFileError, import_prices, load_rate_card, price_entries, read_price_files
from pricing.conditions import describe
from pricing.models import ModelAlias, PriceBook, Rate
from pricing.rating import rate_usage
from pricing.usage import Usage

pytestmark = pytest.mark.django_db
NOW = datetime(2026, 11, 20, tzinfo=UTC)
SMALL = Usage(buckets={"in_uncached": 100, "out_visible": 10}, provider="demo", model_served="demo-small")


def test_every_shipped_price_and_alias_is_imported() -> None:
    files = read_price_files()
    result = import_prices()
    assert (result.added, result.ended, result.unchanged, result.kept) == (len(files.entries), 0, 0, ())
    assert Rate.objects.count() == len(files.entries)
    assert ModelAlias.objects.count() == len(files.aliases)


def test_a_second_import_changes_nothing() -> None:
    added = import_prices().added
    before = list(Rate.objects.order_by("id").values())
    again = import_prices()
    assert (again.added, again.ended, again.unchanged, again.kept) == (0, 0, added, ())
    assert list(Rate.objects.order_by("id").values()) == before


def test_the_list_is_the_cost_and_a_markup() -> None:
    import_prices("cost")
    import_prices("list", markup_percent=Decimal(20))
    card = load_rate_card()
    cost, charge = (rate_usage(card, SMALL, book=book, at=NOW).total for book in ("cost", "list"))
    assert cost == (100 * Decimal("0.50") + 10 * Decimal("1.50")) / 1_000_000
    assert charge == cost * Decimal("1.20")


def test_both_books_name_their_own_rates() -> None:
    import_prices("cost")
    import_prices("list", markup_percent=Decimal(20))
    card = load_rate_card()
    cost, charge = (rate_usage(card, SMALL, book=book, at=NOW).rate_ids for book in ("cost", "list"))
    assert set(Rate.objects.filter(id__in=cost).values_list("book__slug", flat=True)) == {"cost"}
    assert set(Rate.objects.filter(id__in=charge).values_list("book__slug", flat=True)) == {"list"}


def test_what_an_operator_has_superseded_stays() -> None:
    import_prices()
    rate = Rate.objects.get(model="demo-small", bucket="in_uncached")
    rate.supersede(Decimal("0.40"), datetime(2026, 7, 1, tzinfo=UTC))
    assert import_prices().added == 0
    assert (
        rate_usage(load_rate_card(), SMALL, book="cost", at=NOW).lines[0].unit_price
        == Decimal("0.40") / 1_000_000
    )


def test_a_price_set_otherwise_for_the_same_time_stays_and_is_named() -> None:
    book = PriceBook.objects.create(slug="cost", name="Cost")
    Rate.objects.create(
        book=book, provider="demo", model="demo-small", bucket="in_uncached", price=Decimal("0.45"),
        effective_from=datetime(2020, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    result = import_prices()
    assert len(result.kept) == 1
    assert "demo-small in_uncached: 0.45" in result.kept[0]


def test_a_price_under_conditions_that_an_operator_has_set_stays_and_is_named() -> None:
    book = PriceBook.objects.create(slug="cost", name="Cost")
    own = Rate.objects.create(
        book=book, provider="openai", model="gpt-6-sol", bucket="in_uncached", batch=True, price=Decimal("0.90"),
        effective_from=datetime(2026, 10, 14, tzinfo=UTC),
    )  # fmt: skip
    result = import_prices()
    assert len(result.kept) == 1
    assert "gpt-6-sol in_uncached (batch): 0.9" in result.kept[0]
    assert import_prices().added == 0
    usage = Usage({"in_uncached": 1}, "openai", model_served="gpt-6-sol", batch=True)
    assert rate_usage(load_rate_card(), usage, book="cost", at=NOW).rate_ids == (own.pk,)


def test_a_later_shipped_price_ends_the_one_in_force() -> None:
    book = PriceBook.objects.create(slug="cost", name="Cost")
    old = Rate.objects.create(
        book=book, provider="demo", model="demo-small", bucket="in_uncached", price=Decimal("0.90"),
        effective_from=datetime(2019, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    assert import_prices().ended == 1
    old.refresh_from_db()
    assert old.effective_to == datetime(2020, 1, 1, tzinfo=UTC)


def test_an_alias_that_an_operator_has_pointed_elsewhere_stays() -> None:
    ModelAlias.objects.create(provider="openai", alias="gpt-5.6", model="gpt-5.4")
    import_prices()
    assert ModelAlias.objects.get(provider="openai", alias="gpt-5.6").model == "gpt-5.4"


def test_a_book_in_another_currency_takes_no_shipped_price() -> None:
    PriceBook.objects.create(slug="cost", name="Cost", currency="EUR")
    with pytest.raises(PriceFileError, match="USD"):
        import_prices()
    assert not Rate.objects.exists()


def test_a_change_to_come_is_in_force_when_it_comes() -> None:
    import_prices()
    card = load_rate_card()
    usage = Usage(buckets={"in_uncached": 1_000_000}, provider="google", model_served="gemini-3.6-flash")
    before = rate_usage(card, usage, book="cost", at=datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC))
    after = rate_usage(card, usage, book="cost", at=datetime(2027, 1, 1, tzinfo=UTC))
    assert (before.total, after.total) == (Decimal("0.75"), Decimal("1.5"))


def test_the_command_loads_both_books_and_says_so() -> None:
    said = StringIO()
    call_command("load_prices", list_markup="12.5", stdout=said)
    assert said.getvalue().startswith("cost: ")
    assert "list: " in said.getvalue()


# How a price file is read.


def entries(*rows: dict[str, Any]) -> list[tuple[Any, ...]]:
    document = {
        "provider": "acme",
        "currency": "USD",
        "source": "a page",
        "checked": date(2026, 11, 10),
        "since": date(2020, 1, 1),
    }
    found = price_entries(document, {"name": "large", "prices": list(rows)})
    return [
        (describe(entry), entry.bucket, entry.price, entry.effective_from.date(), entry.effective_to and entry.effective_to.date())
        for entry in found
    ]  # fmt: skip


SINCE, MARCH, OCTOBER = date(2020, 1, 1), date(2026, 3, 13), date(2026, 10, 14)


def test_a_list_with_conditions_leaves_the_other_lists_alone() -> None:
    assert entries(
        {"in_uncached": "2", "out_visible": "9"},
        {"batch": True, "from": OCTOBER, "in_uncached": "1"},
    ) == [
        ("", "in_uncached", 2, SINCE, None),
        ("", "out_visible", 9, SINCE, None),
        ("batch", "in_uncached", 1, OCTOBER, None),
    ]


def test_a_new_list_replaces_the_old_one_of_the_same_conditions_with_its_thresholds() -> None:
    assert entries(
        {"in_uncached": "2"},
        {"input_above": 200_000, "in_uncached": "4"},
        {"region": "us", "input_above": 200_000, "in_uncached": "4.4"},
        {"from": MARCH, "in_uncached": "2"},
    ) == [
        ("", "in_uncached", 2, SINCE, None),
        ("more than 200,000 read", "in_uncached", 4, SINCE, MARCH),
        ("region us, more than 200,000 read", "in_uncached", Decimal("4.4"), SINCE, None),
    ]


def test_an_empty_list_ends_what_was_sold() -> None:
    assert entries(
        {"in_uncached": "2"}, {"speed": "fast", "in_uncached": "4"}, {"speed": "fast", "from": OCTOBER}
    ) == [("", "in_uncached", 2, SINCE, None), ("speed fast", "in_uncached", 4, SINCE, OCTOBER)]


def test_hours_of_the_week_are_read() -> None:
    night = {"time_from": time(16, 30), "time_to": time(0, 30), "time_zone": "UTC", "weekdays": "mon,tue"}
    assert entries({**night, "in_uncached": "1"})[0][0] == "mon,tue 16:30–00:30 UTC"


@pytest.mark.parametrize(
    "row",
    [
        {"in_uncached": 2.5}, {"in_uncached": "much"}, {"in_uncached": "-1"}, {"in_uncached": "NaN"}, {"tokens": "1"}, {"batch": "yes", "in_uncached": "1"},
        {"service_teir": "flex", "in_uncached": "1"}, {"input_above": "much", "in_uncached": "1"},
    ],
)  # fmt: skip
def test_what_is_no_price_in_a_file_is_named_with_its_model(row: dict[str, Any]) -> None:
    with pytest.raises(PriceFileError, match=r"acme.toml: large"):
        entries(row)


def test_two_prices_for_the_same_day_are_refused() -> None:
    with pytest.raises(PriceFileError, match="two prices for in_uncached"):
        entries(
            {"batch": True, "in_uncached": "1"}, {"in_uncached": "1"}, {"batch": True, "in_uncached": "2"}
        )


@pytest.mark.parametrize("percent", ["much", "NaN", "-101", ""])
def test_the_command_refuses_what_is_no_markup(percent: str) -> None:
    with pytest.raises(CommandError, match="--list-markup"):
        call_command("load_prices", list_markup=percent, stdout=StringIO())
