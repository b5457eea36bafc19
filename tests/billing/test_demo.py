"""Demo data: complete, the same at every start, with secrets that only its owner can read."""

import json
from pathlib import Path

import msgspec
import pytest
from django.contrib.auth import authenticate
from django.test import Client

from billing import demo
from billing.models import ApiKey, Balance, Customer, Membership, OperatorToken, Subscription

pytestmark = pytest.mark.django_db


def test_three_customers_with_a_user_and_a_key_each_and_an_operator(tmp_path: Path) -> None:
    loaded = demo.load(tmp_path / "demo.json")
    assert [customer.external_id for customer in Customer.objects.all()] == ["acme", "demo", "prepaid"]
    assert Membership.objects.count() == ApiKey.objects.count() == 3
    for name, password in loaded.passwords.items():
        assert authenticate(username=name, password=password) is not None, name
    for secret in (loaded.api_key, loaded.acme_api_key, loaded.prepaid_api_key):
        assert Client(headers={"X-Api-Key": secret}).get("/v1/billing/usage").status_code == 200
    operator = Client(headers={"Authorization": f"Bearer {loaded.operator_token}"})
    assert operator.get("/v1/billing/usage", {"customer": "acme"}).status_code == 200


def test_a_second_start_says_the_same_and_adds_nothing(tmp_path: Path) -> None:
    first = demo.load(tmp_path / "demo.json")
    assert demo.load(tmp_path / "demo.json") == first
    assert (Customer.objects.count(), ApiKey.objects.count(), OperatorToken.objects.count()) == (3, 3, 1)
    assert Balance.objects.get().available == demo.PREPAID_CREDITS


def test_one_customer_has_paid_in_advance_and_the_others_pay_as_they_go(tmp_path: Path) -> None:
    demo.load(tmp_path / "demo.json")
    (subscription,) = Subscription.objects.all()
    assert subscription.customer.external_id == "prepaid"
    assert subscription.plan_version.plan.slug == "prepaid"
    balance = Balance.objects.get()
    assert (balance.customer_id, balance.available, balance.is_hard) == (subscription.customer_id, 25, True)


def test_a_file_of_before_the_prepaid_customer_gets_its_secrets(tmp_path: Path) -> None:
    loaded = demo.load(tmp_path / "demo.json")
    old = {name: value for name, value in msgspec.to_builtins(loaded).items() if name != "prepaid_api_key"}
    del old["passwords"]["prepaid"]
    (tmp_path / "demo.json").write_text(json.dumps(old))
    again = demo.load(tmp_path / "demo.json")
    assert again.api_key == loaded.api_key
    assert Client(headers={"X-Api-Key": again.prepaid_api_key}).get("/v1/billing/usage").status_code == 200
    assert demo.load(tmp_path / "demo.json") == again
    assert (tmp_path / "demo.json").stat().st_mode & 0o777 == 0o600


def test_the_file_is_its_owners_alone(tmp_path: Path) -> None:
    demo.load(tmp_path / "new" / "demo.json")
    assert (tmp_path / "new" / "demo.json").stat().st_mode & 0o777 == 0o600


def test_a_lost_file_gets_new_secrets_that_work(tmp_path: Path) -> None:
    demo.load(tmp_path / "demo.json")
    (tmp_path / "demo.json").unlink()
    again = demo.load(tmp_path / "demo.json")
    assert authenticate(username="demo", password=again.passwords["demo"]) is not None
    assert Client(headers={"X-Api-Key": again.api_key}).get("/v1/billing/usage").status_code == 200
