"""The gate over the real database."""

import asyncio
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from django.db import connection, transaction

from billing import accounts, keys, ledger, plans
from billing.accounts import AccountLoader
from billing.admission import BillingGate, Snapshot
from billing.models import ApiKey, Customer, Plan, PlanVersion, Subscription
from billing.subscriptions import subscribe
from metering.gate import Account
from metering.problem import Refusal
from pricing import clock
from tests.billing.rows import payer

pytestmark = pytest.mark.django_db(transaction=True)

TERMS: dict[str, Any] = {
    "interval": "week", "charging": "prepaid", "hard_credits": True, "when_short": "cap", "outage": "closed",
    "shows_cost": True, "blocks_unpriced": True, "cost_book": "cost-eu", "list_book": "list-eu",
    "requests_per_minute": 60, "tokens_per_minute": 90_000, "concurrent_calls": 4,
}  # fmt: skip


@pytest.fixture
def loader() -> Iterator[AccountLoader]:
    made = AccountLoader()
    yield made
    made.close()


def load(loader: AccountLoader, secret: str) -> Snapshot | None:
    return asyncio.run(loader.load(keys.digest(secret)))


def resolved(gate: BillingGate, secret: str) -> Account | Refusal:
    async def resolve() -> Account | Refusal:
        return await gate.resolve([(b"x-api-key", secret.encode())], clock.now())

    return asyncio.run(resolve())


def test_a_live_key_is_found_with_its_customer(loader: AccountLoader) -> None:
    customer, secret = payer(currency="EUR")
    snapshot = load(loader, secret)
    assert snapshot is not None
    assert (snapshot.customer_id, snapshot.is_active, snapshot.currency) == (customer.pk, True, "EUR")
    assert snapshot.period_anchor == customer.period_anchor


def test_without_a_subscription_a_customer_is_on_the_default_plan_by_the_month(loader: AccountLoader) -> None:
    customer, secret = payer()
    snapshot = load(loader, secret)
    assert snapshot is not None
    assert (snapshot.plan, snapshot.period_anchor, snapshot.period_interval) == (
        "payg", customer.period_anchor, "month",
    )  # fmt: skip
    assert (snapshot.shows_cost, snapshot.hard_limit, snapshot.outage) == (True, False, "open")


@pytest.mark.parametrize(("hard", "outage"), [(False, "open"), (True, "closed")])
def test_who_is_hard_by_the_balance_alone_is_not_let_through_an_outage_by_the_plan(
    loader: AccountLoader, hard: bool, outage: str
) -> None:
    customer, secret = payer()
    ledger.set_hard(customer, hard=hard)
    snapshot = load(loader, secret)
    assert snapshot is not None
    assert (snapshot.plan, snapshot.hard_limit, snapshot.outage) == ("payg", hard, outage)


def test_a_hard_plan_that_says_open_is_open(loader: AccountLoader) -> None:
    customer, secret = payer()
    own = Plan.objects.create(slug="own", name="Own")
    version = PlanVersion.objects.create(plan=own, number=1, **{**TERMS, "outage": "open"})
    plans.publish(version, clock.now())
    subscribe(customer, "own", clock.now())
    snapshot = load(loader, secret)
    assert snapshot is not None
    assert (snapshot.hard_limit, snapshot.outage) == (True, "open")


def test_the_default_plan_is_the_operators_choice_and_counts_as_last_published(
    loader: AccountLoader, settings: Any
) -> None:
    _, secret = payer()
    settings.TOLLGATE = {**settings.TOLLGATE, "DEFAULT_PLAN": "free"}
    first = Plan.objects.get(slug="free").current
    assert first is not None
    draft = plans.draft_after(first)
    draft.interval, draft.concurrent_calls = "year", 3
    draft.save()
    snapshot = load(loader, secret)
    assert snapshot is not None and (snapshot.plan, snapshot.concurrent_calls) == ("free", None)
    plans.publish(draft, clock.now())
    snapshot = load(loader, secret)
    assert snapshot is not None and (snapshot.plan, snapshot.concurrent_calls) == ("free", 3)
    assert snapshot.period_interval == "month"


def test_a_default_plan_that_nobody_has_published_asks_nothing(loader: AccountLoader, settings: Any) -> None:
    _, secret = payer()
    settings.TOLLGATE = {**settings.TOLLGATE, "DEFAULT_PLAN": "nothing"}
    snapshot = load(loader, secret)
    assert snapshot is not None
    assert (snapshot.plan, snapshot.cost_book, snapshot.list_book) == ("nothing", "cost", "list")


def test_the_snapshot_says_what_the_version_says_that_the_customer_subscribed_to(
    loader: AccountLoader,
) -> None:
    customer, secret = payer()
    version = PlanVersion.objects.create(plan=Plan.objects.create(slug="own", name="Own"), number=1, **TERMS)
    plans.publish(version, clock.now())
    subscription, _ = subscribe(customer, "own", clock.now())
    plans.publish(plans.draft_after(version), clock.now())  # not what the customer subscribed to
    snapshot = load(loader, secret)
    assert snapshot is not None
    assert (snapshot.plan, snapshot.period_anchor, snapshot.period_interval) == (
        "own",
        subscription.anchor,
        "week",
    )
    assert snapshot.hard_limit is True
    said = msgspec.structs.asdict(snapshot)
    assert {name: said[name] for name in TERMS if name in said} == {
        name: value for name, value in TERMS.items() if name in said
    }
    account = resolved(BillingGate(loader.load), secret)
    assert isinstance(account, Account)
    assert (account.plan, account.period_start, account.hard_limit) == ("own", subscription.anchor, True)
    named = msgspec.structs.asdict(account)
    assert {name: named[name] for name in TERMS if name in named} == {
        name: value for name, value in TERMS.items() if name in named
    }


def test_a_key_says_its_own_limits_beside_those_of_the_plan(loader: AccountLoader) -> None:
    customer, unlimited = payer()
    version = PlanVersion.objects.create(
        plan=Plan.objects.create(slug="own", name="Own"), number=1, currency="USD", concurrent_calls=4
    )
    plans.publish(version, clock.now())
    subscribe(customer, "own", clock.now())
    _, secret = ApiKey.issue(customer, requests_per_minute=60, tokens_per_minute=1000, concurrent_calls=2)
    found = load(loader, secret)
    assert found is not None
    assert (found.requests_per_minute, found.tokens_per_minute, found.concurrent_calls) == (None, None, 4)
    assert (found.key_requests_per_minute, found.key_tokens_per_minute, found.key_concurrent_calls) == (
        60,
        1000,
        2,
    )
    account = resolved(BillingGate(loader.load), secret)
    assert isinstance(account, Account) and account.key_concurrent_calls == 2
    found = load(loader, unlimited)
    assert found is not None
    assert (found.key_requests_per_minute, found.key_tokens_per_minute, found.key_concurrent_calls) == (
        None,
        None,
        None,
    )


def test_an_ended_subscription_says_nothing_any_more(loader: AccountLoader) -> None:
    customer, secret = payer()
    now = clock.now()
    subscribe(customer, "free", now)
    Subscription.objects.update(ended_at=now + timedelta(seconds=1))
    snapshot = load(loader, secret)
    assert snapshot is not None and snapshot.plan == "payg"
    assert snapshot.period_anchor == customer.period_anchor


def test_another_plan_is_seen_within_five_seconds(loader: AccountLoader) -> None:
    customer, secret = payer()
    seconds = [100.0]
    gate = BillingGate(loader.load, monotonic=lambda: seconds[0])

    async def plan() -> str:
        account = await gate.resolve([(b"x-api-key", secret.encode())], clock.now())
        assert isinstance(account, Account)
        return account.plan

    async def before_and_after() -> list[str]:
        seen = [await plan()]
        await asyncio.to_thread(_in_a_thread, subscribe, customer, "free", clock.now())
        seconds[0] += 4.9
        return [*seen, await plan()]

    assert asyncio.run(before_and_after()) == ["payg", "free"]


def _in_a_thread(act: Callable[..., Any], *arguments: Any) -> None:
    act(*arguments)
    connection.close()


def test_what_a_key_opens_is_read_by_one_query_on_unique_indexes(django_assert_num_queries: Any) -> None:
    customer, secret = payer()
    subscribe(customer, "free", clock.now())
    with django_assert_num_queries(1):
        accounts._read(keys.digest(secret))
    with transaction.atomic(), connection.cursor() as cursor:
        explain = "explain query plan " if connection.vendor == "sqlite" else "explain "
        if connection.vendor == "postgresql":
            cursor.execute("set local enable_seqscan = off")  # a table of one page is read as a whole
        cursor.execute(explain + accounts._READ, ["payg", "payg", keys.digest(secret)])
        steps = "\n".join(str(row) for row in cursor.fetchall())
    assert "billing_subscriptions_one_runs" in steps
    assert not re.search(r"Seq Scan|SCAN [kcbsvpwd]\b", steps), steps


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
    account = resolved(BillingGate(loader.load), secret)
    assert isinstance(account, Account) and account.blocks_unpriced is blocks


def test_a_plan_blocks_unpriced_models_whatever_the_customers_own_switch(loader: AccountLoader) -> None:
    customer, secret = payer(blocks_unpriced=False)
    subscribe(customer, "prepaid", clock.now())
    account = resolved(BillingGate(loader.load), secret)
    assert isinstance(account, Account) and account.blocks_unpriced


def test_the_gate_refuses_a_suspended_customer(loader: AccountLoader) -> None:
    _, secret = payer()
    Customer.objects.update(is_active=False)
    found = resolved(BillingGate(loader.load), secret)
    assert isinstance(found, Refusal)
    assert found.code == "customer_suspended"
