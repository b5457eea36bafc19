"""Operators add and supersede rates; nobody edits or deletes one."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from pricing.models import PriceBook, Rate

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
    assert b"superseded already" in operator.post(f"{RATES}add/?supersedes={rate.pk}", form(rate)).content


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
