"""The shipped prices reach the price books once, and never undo what an operator has set."""

from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from pricing.catalog import PriceFileError, import_prices, load_rate_card, read_price_files
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


@pytest.mark.parametrize("percent", ["much", "NaN", "-101", ""])
def test_the_command_refuses_what_is_no_markup(percent: str) -> None:
    with pytest.raises(CommandError, match="--list-markup"):
        call_command("load_prices", list_markup=percent, stdout=StringIO())
