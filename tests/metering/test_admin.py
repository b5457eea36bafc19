"""The operator's pages of usage: what waits for a rate, what was corrected, what was rated again."""

import asyncio
import re
from datetime import timedelta
from decimal import Decimal
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client

from metering import rerating
from metering.models import Rerating, UsageCorrection
from metering.rerating import Selection
from metering.rows import EventRow
from metering.wiring import current_store
from pricing import clock
from pricing.catalog import load_rate_card
from pricing.models import PriceBook
from pricing.usage import Usage, UsagePart
from tests.metering.catalogue import LONG_AGO, a_rate, rated_event
from tests.metering.rows import NOON, PAYER, a_hold

pytestmark = pytest.mark.django_db(transaction=True)

METERING = "/admin/tollgate_metering"
TODAY = Selection(NOON - timedelta(hours=12), NOON + timedelta(hours=12))


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("operator", "operator@example.com", None))
    return client


def used(customer: UUID = PAYER, **values: Any) -> EventRow:
    hold = a_hold(customer)
    event = rated_event(hold, load_rate_card(), **values)

    async def write() -> None:
        lane, writer = await current_store().open_lane("test"), uuid4()
        await lane.hold(writer, 1, [hold], None)
        await lane.settle(writer, 2, [event], None)
        await lane.close()

    asyncio.run(write())
    return event


def text_of(client: Client, url: str, **query: str) -> str:
    response = client.get(url, query)
    assert response.status_code == 200, response
    return unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode())))


def rated_again() -> tuple[EventRow, Rerating]:
    """An event charged 0.00002, and 0.00003 since its input costs 2 dollars a million tokens instead of 1."""
    rates = [
        a_rate(bucket, price, book=book)
        for book in ("cost", "list")
        for bucket, price in (("in_uncached", "1"), ("out_visible", "2"))
    ]
    event = used()
    rates[2].supersede(Decimal(2), LONG_AGO + timedelta(days=1))
    card = load_rate_card()
    run, _ = rerating.begin(TODAY, card, at=clock.now(), by="tester", reason="wrong price")
    list(rerating.apply(run, current_store(), card, clock.now))
    return event, run


@pytest.mark.parametrize(
    "table",
    [
        "usageevent",
        "usagecorrection",
        "rerating",
        "unpricedevent",
        "dailyusage",
        "hold",
        "writer",
        "quarantinedrow",
    ],
)
def test_every_list_and_its_search_open(operator: Client, table: str) -> None:
    event, run = rated_again()
    for wanted in ("", "nobody", str(event.id), str(run.id), str(PAYER)):
        assert operator.get(f"{METERING}/{table}/", {"q": wanted} if wanted else {}).status_code == 200


def test_what_waits_for_a_rate_is_told_with_a_way_to_add_it(operator: Client) -> None:
    a_rate("in_uncached", "1", book="cost"), a_rate("out_visible", "2", book="cost")
    used(), used()
    book = PriceBook.objects.create(slug="list", name="What we charge")
    told = text_of(operator, f"{METERING}/unpricedevent/")
    assert (
        "list demo demo-small add a rate for in_uncached , add a rate for out_visible 2 2026-11-20 12:00:00"
        in told
    )
    page = operator.get(f"{METERING}/unpricedevent/").content.decode()
    link = unescape(re.findall(r'href="(/admin/tollgate_pricing/rate/add/[?][^"]*)"', page)[0])
    form = operator.get(link).content.decode()
    assert f'<option value="{book.pk}" selected>' in form
    assert (
        'value="demo-small"' in form
        and 'value="in_uncached"' in form
        and 'value="2026-11-20"' in form
        and 'value="12:00:00"' in form
    )


def test_a_bucket_of_another_model_of_the_call_leads_to_a_rate_for_that_one(operator: Client) -> None:
    for book in ("cost", "list"):
        a_rate("in_uncached", "1", book=book), a_rate("out_visible", "2", book=book)
    parts = (UsagePart({"in_uncached": 10}), UsagePart({"out_visible": 5}, "advisor"))
    used(
        usage=Usage(
            buckets={"in_uncached": 10, "out_visible": 5},
            provider="demo",
            model_served="demo-small",
            parts=parts,
        )
    )
    page = unescape(operator.get(f"{METERING}/unpricedevent/").content.decode())
    assert "model=advisor&bucket=out_visible&" in page


def test_whoever_may_not_add_a_rate_is_not_led_to_it(operator: Client) -> None:
    used()
    reader = get_user_model().objects.create_user("reader", "reader@example.com", None, is_staff=True)
    reader.user_permissions.add(Permission.objects.get(codename="view_unpricedevent"))
    client = Client()
    client.force_login(reader)
    page = client.get(f"{METERING}/unpricedevent/").content.decode()
    assert "out_visible" in page and "rate/add" not in page


def test_where_everything_has_a_price_that_is_said(operator: Client) -> None:
    assert "Everything that was used has a price." in text_of(operator, f"{METERING}/unpricedevent/")


def test_an_event_shows_its_corrections_and_as_what_it_counts(operator: Client) -> None:
    event, _ = rated_again()
    told = text_of(operator, f"{METERING}/usageevent/{event.id}/change/")
    assert "wrong price charge_total 0.00002 0.00003" in told
    assert "column written counts as charge_total 0.00002 0.00003 rate_ids" in told
    other = used()
    assert "Never: it counts as it stands here." in text_of(
        operator, f"{METERING}/usageevent/{other.id}/change/"
    )


def test_a_run_shows_who_what_and_every_difference(operator: Client) -> None:
    event, run = rated_again()
    listed = text_of(operator, f"{METERING}/rerating/")
    assert (
        "wrong price tester 2026-11-20T00:00:00Z … 2026-11-21T00:00:00Z Done 1 1 events, cost 0, charge 0.00001 USD"
        in listed
    )
    told = text_of(operator, f"{METERING}/rerating/{run.id}/change/")
    assert f"{PAYER} USD 1 0 0.00001" in told
    assert f"{event.id} demo-small 0.00002 → 0.00003 as before" in told
    assert str(event.id) in text_of(operator, f"{METERING}/usagecorrection/", q=str(run.id))


def test_a_run_on_its_way_says_how_to_go_on(operator: Client) -> None:
    run, _ = rerating.begin(TODAY, load_rate_card(), at=NOON, by="tester", reason="wrong price")
    assert f"manage.py rerate --resume {run.id}" in text_of(operator, f"{METERING}/rerating/")


def test_a_correction_shows_old_and_new(operator: Client) -> None:
    rated_again()
    told = text_of(operator, f"{METERING}/usagecorrection/{UsageCorrection.objects.get().pk}/change/")
    assert "wrong price charge_total 0.00002 0.00003" in told


@pytest.mark.parametrize("table", ["usagecorrection", "rerating", "unpricedevent"])
def test_nothing_of_it_can_be_changed_here(operator: Client, table: str) -> None:
    assert operator.get(f"{METERING}/{table}/add/").status_code == 403
