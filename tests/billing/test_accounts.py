"""The gate over the real database."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest

from billing import accounts, keys
from billing.accounts import AccountLoader
from billing.admission import BillingGate, Snapshot
from billing.models import ApiKey, Customer
from metering.gate import Account
from metering.problem import Refusal
from pricing import clock
from tests.billing.rows import payer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def loader() -> Iterator[AccountLoader]:
    made = AccountLoader()
    yield made
    made.close()


def load(loader: AccountLoader, secret: str) -> Snapshot | None:
    return asyncio.run(loader.load(keys.digest(secret)))


def test_a_live_key_is_found_with_its_customer(loader: AccountLoader) -> None:
    customer, secret = payer(currency="EUR")
    snapshot = load(loader, secret)
    assert snapshot is not None
    assert (snapshot.customer_id, snapshot.is_active, snapshot.currency) == (customer.pk, True, "EUR")
    assert snapshot.period_anchor == customer.period_anchor


def test_an_unknown_and_a_revoked_key_are_not(loader: AccountLoader) -> None:
    _, secret = payer()
    ApiKey.objects.get().revoke()
    assert load(loader, secret) is None
    assert load(loader, "tg_live_unknown") is None


def test_the_use_of_a_key_is_noted_behind_the_call(loader: AccountLoader) -> None:
    _, secret = payer()
    load(loader, secret)
    loader.close()  # what was waiting is written
    used_at = ApiKey.objects.get().last_used_at
    assert used_at is not None
    assert abs(clock.now() - used_at) < timedelta(minutes=1)


def test_a_use_within_the_minute_is_not_written_again() -> None:
    payer()
    key = ApiKey.objects.get()
    assert accounts.note_use([key.pk]) == 1
    assert accounts.note_use([key.pk]) == 0
    clock.set_offset(timedelta(minutes=1, seconds=1))
    assert accounts.note_use([key.pk]) == 1


@pytest.mark.parametrize("blocks", [True, False])
def test_the_account_says_whether_unpriced_models_are_blocked(loader: AccountLoader, blocks: bool) -> None:
    _, secret = payer(blocks_unpriced=blocks)
    gate = BillingGate(loader.load)

    async def resolve() -> Account | Refusal:
        return await gate.resolve([(b"x-api-key", secret.encode())], clock.now())

    account = asyncio.run(resolve())
    assert isinstance(account, Account) and account.blocks_unpriced is blocks


def test_the_gate_refuses_a_suspended_customer(loader: AccountLoader) -> None:
    _, secret = payer()
    gate = BillingGate(loader.load)

    async def resolve() -> Account | Refusal:
        return await gate.resolve([(b"x-api-key", secret.encode())], clock.now())

    Customer.objects.update(is_active=False)
    found = asyncio.run(resolve())
    assert isinstance(found, Refusal)
    assert found.code == "customer_suspended"
