"""Operators add and supersede rates; nobody edits or deletes one."""

import threading
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.db import connection
from django.http import HttpResponse
from django.test import Client

from pricing.models import ModelAlias, PriceBook, Rate

pytestmark = pytest.mark.django_db
RATES = "/admin/tollgate_pricing/rate/"


@pytest.fixture
def operator(client: Client) -> Client:
    client.force_login(get_user_model().objects.create_superuser("operator"))
    return client


@pytest.fixture
def rate() -> Rate:
    book = PriceBook.objects.create(slug="own", name="Ours")
    return Rate.objects.create(
        book=book, provider="acme", model="large", bucket="in_uncached", price=Decimal(2),
        effective_from=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def form(rate: Rate, **changes: str) -> dict[str, str]:
    return {
        "book": str(rate.book_id), "provider": rate.provider, "model": rate.model, "bucket": rate.bucket,
        "match": "exact", "input_above": "0", "price": "3", "per": "1000000",
        "effective_from_0": "2026-07-01", "effective_from_1": "00:00:00",
        **changes,
    }  # fmt: skip


def test_rates_are_listed_and_found(operator: Client, rate: Rate) -> None:
    page = operator.get(RATES, {"q": "large"})
    assert b"2 per 1,000,000" in page.content


def test_a_rate_is_read_only(operator: Client, rate: Rate) -> None:
    assert operator.get(f"{RATES}{rate.pk}/change/").status_code == 200
    assert operator.post(f"{RATES}{rate.pk}/change/", form(rate)).status_code == 403
    assert operator.post(f"{RATES}{rate.pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_rate_can_be_added(operator: Client, rate: Rate) -> None:
    answer = operator.post(f"{RATES}add/", form(rate, bucket="out_visible"))
    assert answer.status_code == 302
    assert Rate.objects.get(bucket="out_visible").price == 3


def test_a_second_rate_at_the_same_time_is_explained(operator: Client, rate: Rate) -> None:
    answer = operator.post(f"{RATES}add/", form(rate))
    assert b"another rate for the same thing" in answer.content
    assert Rate.objects.count() == 1


def test_superseding_opens_the_form_filled_in_and_ends_the_old_rate(operator: Client, rate: Rate) -> None:
    answer = operator.post(RATES, {"action": "supersede", "_selected_action": [str(rate.pk)]})
    assert answer.status_code == 302
    url = answer["Location"]
    assert b'value="large"' in operator.get(url).content
    assert operator.post(url, form(rate)).status_code == 302
    rate.refresh_from_db()
    assert rate.effective_to == datetime(2026, 7, 1, tzinfo=UTC)
    assert Rate.objects.open().get().price == 3


@pytest.mark.parametrize(
    "wrong", [{"model": "small"}, {"effective_from_0": "2025-12-31"}, {"price": "-1"}, {"price": ""}]
)
def test_a_successor_that_does_not_fit_is_refused(
    operator: Client, rate: Rate, wrong: dict[str, str]
) -> None:
    answer = operator.post(f"{RATES}add/?supersedes={rate.pk}", form(rate, **wrong))
    assert answer.status_code == 200
    assert b"errorlist" in answer.content
    assert Rate.objects.get().effective_to is None


def test_a_rate_that_has_ended_cannot_be_superseded(operator: Client, rate: Rate) -> None:
    rate.supersede(Decimal(3), datetime(2026, 7, 1, tzinfo=UTC))
    answer = operator.post(RATES, {"action": "supersede", "_selected_action": [str(rate.pk)]}, follow=True)
    assert b"Choose one rate that is still in force" in answer.content
    assert b"it has ended" in operator.post(f"{RATES}add/?supersedes={rate.pk}", form(rate)).content


# Conditions.


NIGHT = {"batch": "on", "service_tier": "flex", "weekdays": "mon-wed", "time_from": "22:00", "time_to": "06:00",
         "time_zone": "Europe/Berlin", "input_above": "200000"}  # fmt: skip


def test_a_rate_with_conditions_is_added_listed_and_found_by_them(operator: Client, rate: Rate) -> None:
    assert operator.post(f"{RATES}add/", form(rate, **NIGHT)).status_code == 302
    added = Rate.objects.get(batch=True)
    assert added.weekdays == "mon,tue,wed"
    words = "batch, tier flex, mon,tue,wed 22:00–06:00 Europe/Berlin, more than 200,000 read"
    for chosen in (
        {},
        {"batch__exact": "1"},
        {"service_tier": "flex"},
        {"input_above": "200000"},
        {"span": "now"},
    ):
        assert words in operator.get(RATES, chosen).content.decode(), chosen
    for chosen in (
        {"batch__exact": "0"},
        {"service_tier": "priority"},
        {"span": "ended"},
        {"match__exact": "prefix"},
    ):
        assert words not in operator.get(RATES, chosen).content.decode(), chosen


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"weekdays": "someday"}, "no weekday"),
        ({"weekdays": "mon"}, "need a time zone"),
        ({"service_tier": "standard"}, "leave it empty"),
        ({"region": "us-east-1"}, "not written as usage says it"),
    ],
)
def test_a_condition_that_never_holds_is_explained_at_its_field(
    operator: Client, rate: Rate, wrong: dict[str, str], why: str
) -> None:
    answer = operator.post(f"{RATES}add/", form(rate, bucket="out_visible", **wrong))
    assert why in answer.content.decode()
    assert Rate.objects.count() == 1


def test_an_ambiguous_rate_is_explained_and_the_other_is_named(operator: Client, rate: Rate) -> None:
    operator.post(f"{RATES}add/", form(rate, **NIGHT))
    other = Rate.objects.get(batch=True)
    answer = operator.post(f"{RATES}add/", form(rate, **{**NIGHT, "weekdays": "wed-fri"}))
    assert f"rate {other.pk}, acme/large" in answer.content.decode()
    assert "first at" in answer.content.decode()
    assert Rate.objects.count() == 2


def test_a_successor_keeps_the_conditions_and_others_are_refused(operator: Client, rate: Rate) -> None:
    operator.post(f"{RATES}add/", form(rate, **NIGHT))
    first = Rate.objects.get(batch=True)
    answer = operator.post(RATES, {"action": "supersede", "_selected_action": [str(first.pk)]})
    page = operator.get(answer["Location"]).content.decode()
    assert 'value="flex"' in page and 'value="mon,tue,wed"' in page and 'value="200000"' in page
    later = {"effective_from_0": "2026-08-01"}
    refused = operator.post(
        answer["Location"], form(rate, **{**NIGHT, **later, "service_tier": "", "region": "us"})
    )
    assert "Different here: service_tier, region" in refused.content.decode()
    assert operator.post(answer["Location"], form(rate, **{**NIGHT, **later})).status_code == 302
    second = Rate.objects.open().get(batch=True)
    first.refresh_from_db()
    assert (second.line, first.effective_to) == (first.line, datetime(2026, 8, 1, tzinfo=UTC))


# Ending, correcting, withdrawing.


def test_a_rate_is_ended_without_a_successor(operator: Client, rate: Rate) -> None:
    chosen = {"action": "end", "_selected_action": [str(rate.pk)]}
    assert b"until further notice" in operator.post(RATES, chosen).content
    decided = {**chosen, "decided": "yes", "at": "2026-07-01 00:00"}
    assert b"This field is required" in operator.post(RATES, decided).content
    answer = operator.post(RATES, {**decided, "reason": "no longer sold"}, follow=True)
    assert b"1 of 1 changed" in answer.content
    rate.refresh_from_db()
    assert rate.effective_to == datetime(2026, 7, 1, tzinfo=UTC)
    assert LogEntry.objects.get(object_id=str(rate.pk)).change_message.endswith("no longer sold")
    again = operator.post(RATES, {**decided, "reason": "again"}, follow=True)
    assert b"it has ended" in again.content and b"0 of 1 changed" in again.content


def test_a_past_span_is_corrected_with_a_reason(operator: Client, rate: Rate) -> None:
    answer = operator.post(RATES, {"action": "correct", "_selected_action": [str(rate.pk)]})
    page = operator.get(answer["Location"]).content.decode()
    assert 'value="2026-01-01"' in page and "Reason" in page
    span = {"effective_from_0": "2026-03-01", "effective_to_0": "2026-05-01", "effective_to_1": "00:00:00"}
    assert b"This field is required" in operator.post(answer["Location"], form(rate, **span)).content
    outside = form(rate, **{**span, "effective_from_0": "2025-12-31"}, note="the letter said 3")
    assert b"does not hold in all of that span" in operator.post(answer["Location"], outside).content
    saved = operator.post(answer["Location"], form(rate, **span, note="the letter said 3"))
    assert saved.status_code == 302
    corrected = Rate.objects.get(corrects=rate)
    assert (corrected.price, corrected.note, corrected.revision) == (3, "the letter said 3", 1)
    listed = operator.get(RATES).content.decode()
    assert f"corrected by {corrected.pk} (2026-03-01 to 2026-05-01)" in listed
    assert f"corrects {rate.pk}" in listed


def test_a_price_that_never_was_is_withdrawn(operator: Client, rate: Rate) -> None:
    chosen = {"action": "withdraw", "_selected_action": [str(rate.pk)]}
    assert b"as if they had not been there" in operator.post(RATES, chosen).content
    answer = operator.post(RATES, {**chosen, "decided": "yes", "reason": "wrong model"}, follow=True)
    assert b"1 of 1 changed" in answer.content
    gone = Rate.objects.get(corrects=rate)
    assert (gone.withdrawn, gone.effective_from, gone.effective_to) == (True, rate.effective_from, None)
    assert f"withdrawn by {gone.pk}" in operator.get(RATES).content.decode()


@pytest.mark.parametrize("act", ["supersedes", "corrects"])
def test_a_form_for_a_rate_that_is_not_there_is_explained(operator: Client, rate: Rate, act: str) -> None:
    answer = operator.post(f"{RATES}add/?{act}=987654", form(rate, note="why"))
    assert b"There is no such rate" in answer.content


@pytest.mark.django_db(transaction=True)
def test_of_two_operators_that_supersede_at_once_one_is_told_that_nothing_was_saved(rate: Rate) -> None:
    user = get_user_model().objects.create_superuser("operator")
    together = threading.Barrier(2)
    answers: list[HttpResponse] = []

    def post() -> None:
        client = Client()
        client.force_login(user)
        together.wait(timeout=10)
        answers.append(client.post(f"{RATES}add/?supersedes={rate.pk}", form(rate)))  # type: ignore[arg-type]
        connection.close()

    threads = [threading.Thread(target=post) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.status_code for answer in answers) in ([200, 302], [302, 302])
    assert Rate.objects.count() == 2


def test_an_alias_is_pointed_elsewhere_by_adding_it_again(operator: Client) -> None:
    page = "/admin/tollgate_pricing/modelalias/"
    first = ModelAlias.objects.create(provider="acme", alias="best", model="small")
    wanted = {
        "provider": "acme",
        "alias": "best",
        "model": "large",
        "effective_from_0": "2036-07-01",
        "effective_from_1": "00:00:00",
    }
    assert operator.post(page + "add/", wanted).status_code == 302
    first.refresh_from_db()
    successor = ModelAlias.objects.get(model="large")
    assert first.effective_to == successor.effective_from == datetime(2036, 7, 1, tzinfo=UTC)
    again = operator.post(page + "add/", wanted | {"model": "other"})
    assert again.status_code == 200 and b"It stands for large" in again.content
    assert operator.get(f"{page}{first.pk}/change/").status_code == 200, "to look at"
    assert operator.post(f"{page}{first.pk}/change/", wanted).status_code == 403
    assert operator.post(f"{page}{first.pk}/delete/", {"post": "yes"}).status_code == 403


def test_an_alias_can_be_ended_now(operator: Client) -> None:
    alias = ModelAlias.objects.create(provider="acme", alias="best", model="small")
    chosen = {"action": "end_now", "_selected_action": [alias.pk]}
    assert operator.post("/admin/tollgate_pricing/modelalias/", chosen).status_code == 302
    alias.refresh_from_db()
    assert alias.effective_to is not None
    assert ModelAlias.objects.count() == 1


def test_price_books_and_aliases_have_their_pages(operator: Client, rate: Rate) -> None:
    for page in ("pricebook", "modelalias"):
        assert operator.get(f"/admin/tollgate_pricing/{page}/").status_code == 200
        assert operator.get(f"/admin/tollgate_pricing/{page}/add/").status_code == 200
    assert (
        operator.post(
            f"/admin/tollgate_pricing/pricebook/{rate.book_id}/delete/", {"post": "yes"}
        ).status_code
        == 403
    )
