"""Other names of models, dated: what a name stood for when a call was made decides what the call costs, then and ever after."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from django.db import IntegrityError, transaction
from hypothesis import given, strategies as st

from pricing import clock
from pricing.catalog import alias_resolver, load_rate_card
from pricing.models import ModelAlias, NotChangeable, PriceBook, Rate
from pricing.pricelist import Alias, Rate as CardRate, RateCard

JUNE, JULY, AUGUST = (datetime(2026, month, 1, tzinfo=UTC) for month in (6, 7, 8))
MOMENT = timedelta(microseconds=1)


def a_rate(model: str, price: int, since: datetime = JUNE, until: datetime | None = None) -> CardRate:
    return CardRate(
        id=price, book="list", provider="acme", model=model, bucket="in_uncached", price=Decimal(price), per=1,
        currency="USD", effective_from=since, effective_to=until,
    )  # fmt: skip


def card(aliases: Sequence[Alias], *rates: CardRate) -> RateCard:
    return RateCard.compile(rates or (a_rate("small", 1), a_rate("large", 9)), {("acme", "best"): aliases}, 1)


def price(found: RateCard, at: datetime, name: str = "best") -> int | None:
    prices = found.prices_for("list", "acme", name, at)
    bucket = prices.price("in_uncached") if prices is not None else None
    return None if bucket is None else int(bucket.unit_price)


def test_a_name_stands_for_one_model_until_the_instant_at_which_it_stands_for_another() -> None:
    found = card([Alias("small", None, JULY), Alias("large", JULY)])
    assert [price(found, at) for at in (JUNE, JULY - MOMENT, JULY, AUGUST)] == [1, 1, 9, 9]


def test_a_name_that_stands_for_nothing_for_a_while_has_no_price_then() -> None:
    found = card([Alias("small", JUNE, JULY), Alias("large", AUGUST)])
    assert [price(found, at) for at in (JUNE - MOMENT, JUNE, JULY, AUGUST - MOMENT, AUGUST)] == [
        None,
        1,
        None,
        None,
        9,
    ]


def test_prices_that_change_while_a_name_stands_for_a_model_change_for_the_name() -> None:
    found = card(
        [Alias("small", None, JULY), Alias("large", JULY)],
        a_rate("small", 1, JUNE, AUGUST), a_rate("small", 2, AUGUST), a_rate("large", 9, JUNE, AUGUST), a_rate("large", 8, AUGUST),
    )  # fmt: skip
    assert [price(found, at) for at in (JUNE, JULY, AUGUST)] == [1, 9, 8]
    assert price(found, AUGUST, "small") == 2


def test_a_price_of_the_name_itself_goes_before_whatever_it_stands_for() -> None:
    found = card(
        [Alias("small", None, JULY), Alias("large", JULY)],
        a_rate("small", 1),
        a_rate("large", 9),
        a_rate("best", 5),
    )
    assert [price(found, at) for at in (JUNE, JULY)] == [5, 5]


def test_the_alias_of_any_snapshot_is_dated_as_well() -> None:
    aliases = {("acme", "best-{date}"): [Alias("small", None, JULY), Alias("large", JULY)]}
    found = RateCard.compile((a_rate("small", 1), a_rate("large", 9)), aliases, 1)
    assert [price(found, at, "best-20260615") for at in (JUNE, JULY)] == [1, 9]


instants = st.integers(0, 12).map(lambda days: JUNE + timedelta(days=days))


@given(
    st.lists(instants, unique=True, max_size=5),
    st.lists(st.sampled_from(["small", "large", ""]), min_size=6, max_size=6),
    instants,
)
def test_the_card_agrees_with_a_walk_over_the_rows(
    cuts: list[datetime], models: list[str], at: datetime
) -> None:
    """Each alias from one cut to the next; an empty model is a time without."""
    edges = [None, *sorted(cuts), None]
    spans = [
        Alias(model, start, end) for model, start, end in zip(models, edges, edges[1:], strict=False) if model
    ]
    expected = {"small": 1, "large": 9}
    walked = next((expected[span.model] for span in spans if span.holds_at(at)), None)
    assert price(card(spans), at) == walked


@pytest.fixture
def alias(db: None) -> ModelAlias:
    book = PriceBook.objects.create(slug="list", name="List")
    for model, amount in (("small", "1"), ("large", "9")):
        Rate(
            book=book,
            provider="acme",
            model=model,
            bucket="in_uncached",
            price=Decimal(amount),
            per=1,
            effective_from=JUNE,
        ).save()
    return ModelAlias.objects.create(provider="acme", alias="best", model="small")


def test_to_supersede_an_alias_keeps_what_it_stood_for(alias: ModelAlias) -> None:
    alias.supersede("large", JULY)
    found = load_rate_card()
    assert [price(found, at) for at in (JULY - MOMENT, JULY)] == [1, 9]
    assert alias_resolver()("acme", "best") == "large"


@pytest.mark.parametrize("at", [JUNE, JUNE - MOMENT])
def test_an_alias_is_not_superseded_before_it_begins(alias: ModelAlias, at: datetime) -> None:
    alias.supersede("large", JUNE)
    running = ModelAlias.objects.get(effective_to=None)
    with pytest.raises(NotChangeable):
        running.supersede("small", at)
    assert ModelAlias.objects.count() == 2


def test_an_alias_that_was_superseded_meanwhile_is_not_superseded_again(alias: ModelAlias) -> None:
    stale = ModelAlias.objects.get()
    alias.supersede("large", JULY)
    with pytest.raises(NotChangeable):
        stale.supersede("other", AUGUST)
    assert list(ModelAlias.objects.order_by("id").values_list("model", flat=True)) == ["small", "large"]


def test_an_alias_is_neither_edited_nor_deleted_once_it_holds(alias: ModelAlias) -> None:
    alias.model = "large"
    with pytest.raises(NotChangeable, match="never edited"):
        alias.save()
    with pytest.raises(NotChangeable, match="not deleted"):
        alias.delete()
    coming = ModelAlias.objects.create(
        provider="acme", alias="next", model="large", effective_from=clock.now() + timedelta(days=1)
    )
    coming.delete()
    assert ModelAlias.objects.count() == 1


@pytest.mark.parametrize("since", [None, JUNE])
def test_a_second_alias_of_the_same_name_and_time_is_refused(
    alias: ModelAlias, since: datetime | None
) -> None:
    with pytest.raises(NotChangeable):
        ModelAlias.objects.create(provider="acme", alias="best", model="large", effective_from=since)
    with pytest.raises(IntegrityError), transaction.atomic():
        ModelAlias.objects.bulk_create(
            [ModelAlias(provider="acme", alias="best", model="large", effective_from=since)]
        )


def test_an_alias_that_has_ended_stands_for_nothing_from_then_on(alias: ModelAlias) -> None:
    alias.end(JULY)
    assert [price(load_rate_card(), at) for at in (JULY - MOMENT, JULY)] == [1, None]
    ModelAlias.objects.create(provider="acme", alias="best", model="large", effective_from=JULY)
    assert price(load_rate_card(), JULY) == 9
