"""The usage page, as a browser asks for it."""

from datetime import UTC, date, datetime

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from billing.models import Customer, Membership
from pricing import clock
from tests.billing.rows import payer, used

pytestmark = pytest.mark.django_db

PATH = "/portal/usage"
PASSWORD = "correct horse battery"


@pytest.fixture
def customer() -> Customer:
    made, _ = payer()
    used(made, date(2026, 11, 2), calls=3, tokens=(1000, 234), cost="0.0123456", charge="1234.5")
    used(made, date(2026, 11, 3), calls=1, model="<script>", charge="0.5", unpriced=1)
    clock.set_offset(datetime(2026, 11, 20, 12, tzinfo=UTC) - clock.now())
    return made


@pytest.fixture
def browser(customer: Customer) -> Client:
    """The browser of somebody who belongs to the customer."""
    person = get_user_model().objects.create_user("someone", password=PASSWORD)
    Membership.objects.create(customer=customer, user=person)
    client = Client()
    client.force_login(person)
    return client


def page(browser: Client, **query: str) -> str:
    response = browser.get(PATH, query)
    assert response.status_code == 200
    return response.content.decode()


def test_a_stranger_is_sent_to_the_login() -> None:
    response = Client().get(PATH)
    assert (response.status_code, response.headers["Location"]) == (302, f"/portal/login?next={PATH}")


def test_logging_in_leads_to_the_page(browser: Client) -> None:
    client = Client()
    assert client.post("/portal/login", {"username": "someone", "password": "wrong"}).status_code == 200
    response = client.post("/portal/login", {"username": "someone", "password": PASSWORD, "next": PATH})
    assert response.headers["Location"] == PATH
    assert "Payer" in page(client)


def test_the_page_shows_the_period_and_every_digit_within_reach(browser: Client) -> None:
    html = page(browser)
    assert "1 Nov 2026 to 20 Nov 2026" in html
    assert 'title="1235"' in html  # 1234.5 + 0.5
    assert "1,235.00" in html
    assert 'title="0.0123456">0.0123<' in html
    assert "UTC" in html


def test_groups_and_ranges_are_links(browser: Client) -> None:
    html = page(browser, by="model", start="2026-11-02", end="2026-11-02")
    assert "demo-small" in html
    assert "2 Nov 2026 to 2 Nov 2026" in html
    assert "start=2026-10-01&amp;end=2026-10-31" in html  # last month


def test_what_a_caller_named_its_model_is_text_and_nothing_else(browser: Client) -> None:
    html = page(browser, by="model")
    assert "&lt;script&gt;" in html
    assert "<script" not in html


def test_calls_without_a_price_are_said_to_be_missing(browser: Client) -> None:
    assert "1 call had no complete price" in page(browser)


def test_a_range_that_makes_no_sense_is_explained(browser: Client) -> None:
    response = browser.get(PATH, {"start": "2026-11-09", "end": "2026-11-01"})
    assert response.status_code == 400
    assert "lies before" in response.content.decode()


def test_another_customers_page_is_not_shown(browser: Client) -> None:
    payer("stranger")
    for name in ("stranger", "nobody"):
        assert browser.get(PATH, {"customer": name}).status_code == 403


def test_a_login_without_a_customer_is_told_so() -> None:
    client = Client()
    client.force_login(get_user_model().objects.create_user("nobody"))
    response = client.get(PATH)
    assert response.status_code == 403
    assert "does not belong" in response.content.decode()


def test_a_person_of_two_customers_chooses(browser: Client, customer: Customer) -> None:
    second, _ = payer("second")
    Membership.objects.create(customer=second, user=get_user_model().objects.get(username="someone"))
    assert "<select" in page(browser)
    assert "No calls on these days." in page(browser, customer="second")


def test_nothing_from_elsewhere_and_nothing_inline(browser: Client) -> None:
    response = browser.get(PATH)
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
    html = response.content.decode()
    assert "style=" not in html
    assert "http" not in html.replace("http://www.w3.org", "")
    assert "no-store" in response.headers["Cache-Control"]


def test_logging_out_ends_the_session(browser: Client) -> None:
    browser.post("/portal/logout")
    assert browser.get(PATH).status_code == 302
