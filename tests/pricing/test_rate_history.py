"""A wrong price is corrected beside the rate that says it: the old rate, and the events that name it, stay as they are."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import HealthCheck, given, settings, strategies as st

from pricing.catalog import import_prices, load_rate_card
from pricing.models import CatalogueVersion, NotChangeable, PriceBook, Rate
from pricing.rating import Charge, rate_usage
from pricing.usage import Usage

pytestmark = pytest.mark.django_db
JANUARY, MARCH, MAY, JULY, AUGUST = (datetime(2026, month, 1, tzinfo=UTC) for month in (1, 3, 5, 7, 8))
TICK = timedelta(microseconds=1)
WHY = "the letter of January said 3"


@pytest.fixture
def rate() -> Rate:
    book = PriceBook.objects.create(slug="own", name="Ours")
    return Rate.objects.create(
        book=book,
        provider="acme",
        model="large",
        bucket="in_uncached",
        price=Decimal(2),
        effective_from=JANUARY,
    )


def charge(at: datetime, **call: Any) -> Charge:
    usage = Usage({"in_uncached": 1_000_000}, "acme", model_served="large", **call)
    return rate_usage(load_rate_card(), usage, book="own", at=at)


def totals(*instants: datetime) -> list[Decimal | None]:
    return [charge(at).total for at in instants]


def test_a_past_span_has_another_price_and_the_rest_keeps_its_own(rate: Rate) -> None:
    before = Rate.objects.filter(pk=rate.pk).values().get()
    corrected = rate.correct(Decimal(3), MARCH, MAY, reason=WHY)
    assert totals(MARCH - TICK, MARCH, MAY - TICK, MAY) == [2, 3, 3, 2]
    assert charge(MARCH).rate_ids == (corrected.pk,)
    assert Rate.objects.filter(pk=rate.pk).values().get() == before
    assert list(rate.corrected_by.all()) == [corrected]
    assert (corrected.corrects, corrected.note, corrected.revision) == (rate, WHY, 1)


def test_a_rate_that_was_wrong_from_its_first_instant_never_counts_again(rate: Rate) -> None:
    corrected = rate.correct(Decimal(3), JANUARY, reason=WHY)
    assert totals(JANUARY - TICK, JANUARY, AUGUST) == [None, 3, 3]
    corrected.end(JULY)
    assert totals(JULY - TICK, JULY) == [3, None]
    rate.refresh_from_db()
    assert rate.effective_to == JULY


@pytest.mark.parametrize("which", ["the wrong one", "the corrected one"])
def test_a_corrected_rate_is_superseded_by_either_name(rate: Rate, which: str) -> None:
    corrected = rate.correct(Decimal(3), JANUARY, reason=WHY)
    (rate if which == "the wrong one" else corrected).supersede(Decimal(5), JULY)
    assert totals(JULY - TICK, JULY) == [3, 5]


def test_a_correction_is_corrected_by_one_more(rate: Rate) -> None:
    first = rate.correct(Decimal(3), MARCH, JULY, reason=WHY)
    first.correct(Decimal(4), MARCH, MAY, reason="and from March to May 4")
    assert totals(JANUARY, MARCH, MAY, JULY) == [2, 4, 3, 2]


def test_two_spans_of_one_rate_are_corrected_apart(rate: Rate) -> None:
    rate.correct(Decimal(3), JANUARY, MARCH, reason=WHY)
    rate.correct(Decimal(4), MAY, JULY, reason=WHY)
    assert totals(JANUARY, MARCH, MAY, JULY) == [3, 2, 4, 2]


def test_a_withdrawn_price_is_as_if_it_had_not_been_there(rate: Rate) -> None:
    batch = Rate.objects.create(
        book=rate.book, provider="acme", model="large", bucket="in_uncached", price=Decimal(1), batch=True,
        effective_from=JANUARY,
    )  # fmt: skip
    batch.withdraw(JANUARY, MAY, reason="it was meant for another model")
    assert charge(MARCH, batch=True).total == 2
    assert charge(MAY, batch=True).total == 1
    gone = rate.withdraw(JANUARY, reason="never sold")
    assert charge(MARCH).status == "unpriced"
    gone.correct(Decimal(2), MARCH, MAY, reason="sold in spring after all")
    assert totals(JANUARY, MARCH, MAY) == [None, 2, None]


def test_a_wrong_condition_is_mended_by_withdrawing_and_adding(rate: Rate) -> None:
    rate.withdraw(JANUARY, reason="it is the price of batches")
    Rate.objects.create(
        book=rate.book, provider="acme", model="large", bucket="in_uncached", price=Decimal(2), batch=True,
        effective_from=JANUARY,
    )  # fmt: skip
    assert charge(MARCH).total is None
    assert charge(MARCH, batch=True).total == 2


@pytest.mark.parametrize(
    ("start", "end", "reason", "why"),
    [
        (JANUARY - TICK, MARCH, WHY, "does not hold in all of that span"),
        (MARCH, JULY + TICK, WHY, "does not hold in all of that span"),
        (MARCH, None, WHY, "does not hold in all of that span"),
        (MARCH, MARCH, WHY, "ends after it begins"),
        (MAY, MARCH, WHY, "ends after it begins"),
        (MARCH, MAY, " ", "says why"),
    ],
)
def test_a_correction_that_does_not_fit_is_refused(
    rate: Rate, start: datetime, end: datetime | None, reason: str, why: str
) -> None:
    rate.end(JULY)
    with pytest.raises(NotChangeable, match=why):
        rate.correct(Decimal(3), start, end, reason=reason)
    assert Rate.objects.count() == 1


@pytest.mark.parametrize(
    ("start", "end"), [(MARCH, MAY), (JANUARY, MARCH + TICK), (MAY - TICK, None), (JANUARY, None)]
)
def test_where_a_correction_counts_already_that_one_is_corrected(
    rate: Rate, start: datetime, end: datetime | None
) -> None:
    corrected = rate.correct(Decimal(3), MARCH, MAY, reason=WHY)
    with pytest.raises(NotChangeable, match=rf"rate {corrected.pk} corrects it there already"):
        rate.correct(Decimal(4), start, end, reason=WHY)


def test_a_line_does_not_end_or_change_while_a_correction_counts_later(rate: Rate) -> None:
    corrected = rate.correct(Decimal(3), MARCH, MAY, reason=WHY)
    for act in (lambda: rate.end(MARCH), lambda: rate.supersede(Decimal(5), MAY - TICK)):
        with pytest.raises(NotChangeable, match=f"rate {corrected.pk} counts for the same thing after that"):
            act()
    rate.supersede(Decimal(5), MAY)
    assert totals(MARCH, MAY) == [3, 5]


def test_what_has_ended_or_began_later_does_not_end(rate: Rate) -> None:
    with pytest.raises(NotChangeable, match="began later"):
        rate.end(JANUARY)
    rate.end(JULY)
    with pytest.raises(NotChangeable, match="has ended"):
        rate.end(AUGUST)
    assert rate.effective_to == JULY


def test_a_correction_has_a_price_that_can_be_charged(rate: Rate) -> None:
    with pytest.raises(ValidationError):
        rate.correct(Decimal("1.02"), MARCH, MAY, reason=WHY, per=3600)
    assert Rate.objects.count() == 1


def test_each_act_is_announced(rate: Rate) -> None:
    versions = [CatalogueVersion.objects.get().version]
    for act in (
        lambda: rate.correct(Decimal(3), MARCH, MAY, reason=WHY),
        lambda: rate.withdraw(JANUARY, MARCH, reason=WHY),
        lambda: rate.end(JULY),
    ):
        act()
        versions.append(CatalogueVersion.objects.get().version)
    assert versions == sorted(set(versions))


def test_an_import_leaves_a_correction_alone() -> None:
    import_prices()
    shipped = Rate.objects.get(model="demo-small", bucket="in_uncached")
    shipped.correct(Decimal("0.40"), shipped.effective_from, JULY, reason="our contract")
    again = import_prices()
    assert (again.added, again.ended, again.kept) == (0, 0, ())
    usage = Usage({"in_uncached": 1_000_000}, "demo", model_served="demo-small")
    card = load_rate_card()
    assert rate_usage(card, usage, book="cost", at=MAY).total == Decimal("0.40")
    assert rate_usage(card, usage, book="cost", at=JULY).total == Decimal("0.50")


# Any history.


days = st.integers(0, 12).map(lambda day: JANUARY + timedelta(days=day))
acts = st.lists(
    st.tuples(st.sampled_from(["correct", "withdraw", "supersede", "end"]), st.integers(0, 9), days, st.one_of(st.none(), days)),
    max_size=8,
)  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(acts)
def test_the_price_of_any_instant_is_the_one_that_was_said_last_for_it(
    rate: Rate, history: list[tuple[str, int, datetime, datetime | None]]
) -> None:
    """Each act is played on a list of days as well, and what is refused there is refused here."""
    Rate.objects.all()._raw_delete("default")
    rate = Rate(
        book=rate.book,
        provider="acme",
        model="large",
        bucket="in_uncached",
        price=Decimal(2),
        effective_from=JANUARY,
    )
    rate.save()
    instants = [JANUARY + timedelta(days=day) for day in range(14)]
    said: dict[datetime, Decimal | None] = dict.fromkeys(instants, Decimal(2))
    for number, (act, which, start, end) in enumerate(history):
        rates = list(Rate.objects.order_by("pk"))
        chosen, price = rates[which % len(rates)], Decimal(10 + number)
        try:
            if act == "correct":
                chosen.correct(price, start, end, reason=WHY)
            elif act == "withdraw":
                chosen.withdraw(start, end, reason=WHY)
            elif act == "supersede":
                chosen.supersede(price, start)
            else:
                chosen.end(start)
        except NotChangeable:
            continue
        until = end if act in ("correct", "withdraw") else None
        new = price if act in ("correct", "supersede") else None
        said.update({at: new for at in instants if start <= at and (until is None or at < until) and (
            act in ("supersede", "end") or chosen.effective_to is None or at < chosen.effective_to)})  # fmt: skip
    assert totals(*instants) == list(said.values())
