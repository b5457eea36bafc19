"""The operator's pages: issuing shows a secret once, revoking ends it, nothing is deleted."""

import re

import pytest
from django.contrib.auth import get_user_model
from django.core.exceptions import ValidationError
from django.test import Client

from billing import keys
from billing.models import ApiKey, Budget, Customer, OperatorToken
from billing.subscriptions import subscribe
from pricing import clock
from tests.billing.rows import key_of, payer, used

pytestmark = pytest.mark.django_db

BILLING = "/admin/tollgate_billing"


@pytest.fixture
def operator() -> Client:
    client = Client()
    client.force_login(
        get_user_model().objects.create_superuser("operator", "operator@example.com", "x" * 12)
    )
    return client


def shown_secret(html: str) -> str:
    found = re.search(r'class="secret"[^>]*value="([^"]+)"', html)
    assert found is not None
    return found[1]


@pytest.mark.parametrize(
    "table",
    [
        "customer", "apikey", "operatortoken", "membership", "plan", "planversion", "subscription", "quotaoverride", "budget",
        "alert", "alertthreshold", "outboxmessage", "topuprule", "topup",
    ],
)  # fmt: skip
def test_every_list_and_its_search_open(operator: Client, table: str) -> None:
    subscribe(payer()[0], "free", clock.now())
    assert operator.get(f"{BILLING}/{table}/").status_code == 200
    assert operator.get(f"{BILLING}/{table}/", {"q": "payer"}).status_code == 200


def test_an_issued_key_is_shown_once_and_kept_nowhere(operator: Client) -> None:
    customer, _ = payer()
    form = {"customer": str(customer.pk), "label": "Production"}
    response = operator.post(f"{BILLING}/apikey/add/", form)
    secret = shown_secret(response.content.decode())
    assert ApiKey.objects.get(label="Production").sha256 == keys.digest(secret)
    assert "no-store" in response.headers["Cache-Control"]
    assert secret not in "".join(morsel.value for morsel in response.cookies.values())
    assert secret not in operator.get(f"{BILLING}/apikey/").content.decode()


def test_an_issued_operator_token_is_shown_once(operator: Client) -> None:
    response = operator.post(f"{BILLING}/operatortoken/add/", {"label": "Job"})
    assert OperatorToken.objects.get().sha256 == keys.digest(shown_secret(response.content.decode()))


def test_a_key_can_be_renamed_and_not_moved(operator: Client) -> None:
    customer, _ = payer()
    stranger, _ = payer("stranger")
    url = f"{BILLING}/apikey/{key_of(customer)}/change/"
    operator.post(url, {"label": "Renamed", "customer": str(stranger.pk)})
    key = ApiKey.objects.get(pk=key_of(customer))
    assert (key.label, key.customer) == ("Renamed", customer)


def test_a_keys_own_limits_are_set_when_it_is_issued_and_changed_later(operator: Client) -> None:
    customer, _ = payer()
    limits = {"requests_per_minute": "60", "tokens_per_minute": "1000", "concurrent_calls": ""}
    form = {"customer": str(customer.pk), "label": "Slow", **limits}
    assert operator.post(f"{BILLING}/apikey/add/", form).status_code == 200
    key = ApiKey.objects.get(label="Slow")
    assert (key.requests_per_minute, key.tokens_per_minute, key.concurrent_calls) == (60, 1000, None)
    url = f"{BILLING}/apikey/{key.pk}/change/"
    assert (
        "greater than or equal to 1" in operator.post(url, form | {"concurrent_calls": "0"}).content.decode()
    )
    operator.post(url, form | {"requests_per_minute": "", "concurrent_calls": "1"})
    key.refresh_from_db()
    assert (key.requests_per_minute, key.tokens_per_minute, key.concurrent_calls) == (None, 1000, 1)


def test_the_action_revokes(operator: Client) -> None:
    customer, _ = payer()
    selected = {"action": "revoke", "_selected_action": [str(key_of(customer))]}
    assert "1 revoked" in operator.post(f"{BILLING}/apikey/", selected, follow=True).content.decode()
    assert not ApiKey.objects.get().is_live
    assert "tg_live_" not in operator.get(f"{BILLING}/apikey/", {"state": "live"}).content.decode()
    assert "tg_live_" in operator.get(f"{BILLING}/apikey/", {"state": "revoked"}).content.decode()


def test_the_actions_suspend_and_reactivate(operator: Client) -> None:
    customer, _ = payer()
    for action, active in (("suspend", False), ("reactivate", True)):
        operator.post(f"{BILLING}/customer/", {"action": action, "_selected_action": [str(customer.pk)]})
        assert Customer.objects.get().is_active is active


def test_a_customers_page_has_its_people_its_keys_and_the_ways_on(operator: Client) -> None:
    customer, secret = payer()
    html = operator.get(f"{BILLING}/customer/{customer.pk}/change/").content.decode()
    assert secret[:14] in html
    assert f"/admin/tollgate_metering/dailyusage/?q={customer.pk}" in html
    assert f"{BILLING}/apikey/add/?customer={customer.pk}" in html


def test_nothing_that_usage_names_is_deleted(operator: Client) -> None:
    customer, _ = payer()
    assert operator.post(f"{BILLING}/customer/{customer.pk}/delete/", {"post": "yes"}).status_code == 403
    assert operator.post(f"{BILLING}/apikey/{key_of(customer)}/delete/", {"post": "yes"}).status_code == 403
    assert ApiKey.objects.count() == 1


def test_the_currency_of_a_customer_stands_once_money_is_in_it(operator: Client) -> None:
    customer, _ = payer()
    page = f"{BILLING}/customer/{customer.pk}/change/"
    assert 'name="currency"' in operator.get(page).content.decode()
    subscribe(customer, "free", clock.now())
    assert 'name="currency"' not in operator.get(page).content.decode()
    customer.currency = "EUR"
    with pytest.raises(ValidationError, match="stays USD"):
        customer.full_clean()


def test_the_currency_of_a_customer_stands_once_it_has_used_anything(operator: Client) -> None:
    """A day of usage is one sum, which cannot be in two currencies."""
    customer, _ = payer()
    used(customer, clock.now().date(), charge="1")
    assert 'name="currency"' not in operator.get(f"{BILLING}/customer/{customer.pk}/change/").content.decode()
    customer.currency = "EUR"
    with pytest.raises(ValidationError, match="stays USD"):
        customer.full_clean()


def test_a_budget_is_ended_and_neither_changed_nor_deleted(operator: Client) -> None:
    customer, _ = payer()
    budget = Budget.objects.create(customer=customer, amount=5)
    assert 'name="amount"' not in operator.get(f"{BILLING}/budget/{budget.pk}/change/").content.decode()
    assert operator.post(f"{BILLING}/budget/{budget.pk}/delete/", {"post": "yes"}).status_code == 403
    operator.post(f"{BILLING}/budget/", {"action": "end", "_selected_action": [str(budget.pk)]})
    budget.refresh_from_db()
    assert budget.ended_at is not None
