"""From what operators set to what a call has to fit under: windows, quotas, overrides, budgets, calls at once."""

import asyncio
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from hypothesis import given, strategies as st

from billing import keys
from billing.accounts import AccountLoader
from billing.admission import BillingGate
from billing.allowances import allowances_of, check_quota
from billing.limit_rules import at_once, limits_at, quota, window
from billing.models import ApiKey, Budget, Plan, PlanFeature, PlanVersion, QuotaOverride
from billing.periods import Period, period_at
from billing.plans import publish
from billing.subscriptions import subscribe
from metering.gate import Account
from metering.limits import Limit
from pricing import clock
from tests.billing.rows import payer, used

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)  # a Friday
BILLING = Period(datetime(2026, 11, 5, tzinfo=UTC), datetime(2026, 12, 5, tzinfo=UTC))


@pytest.mark.parametrize(
    ("reset", "start", "end"),
    [
        ("day", "2026-11-20", "2026-11-21"),
        ("week", "2026-11-16", "2026-11-23"),
        ("month", "2026-11-01", "2026-12-01"),
        ("billing", "2026-11-05", "2026-12-05"),
    ],
)
def test_a_limit_resets_with_the_utc_calendar_or_the_billing_period(reset: Any, start: str, end: str) -> None:
    period = window(reset, BILLING, NOON)
    assert (period.start.date(), period.end.date()) == (date.fromisoformat(start), date.fromisoformat(end))


@given(
    days=st.integers(0, 36_000),
    second=st.integers(0, 86_399),
    reset=st.sampled_from(["day", "week", "month", "billing"]),
)
def test_windows_tile_time(days: int, second: int, reset: Any) -> None:
    at = datetime(1990, 1, 1, tzinfo=UTC) + timedelta(days=days, seconds=second)

    def window_at(instant: datetime) -> Period:
        return window(reset, period_at(BILLING.start, "month", instant), instant)

    period = window_at(at)
    assert at in period
    assert window_at(period.end).start == period.end
    assert window_at(period.start - timedelta(microseconds=1)).end == period.start


def test_a_quota_of_tokens_counts_the_tokens_of_all_calls() -> None:
    calls, tokens = (
        quota("api_calls", "API calls", Decimal(5), "day"),
        quota("tokens", "Tokens", Decimal(9), "day"),
    )
    assert (calls.measure, calls.feature) == ("quantity", "api_calls")
    assert (tokens.measure, tokens.feature) == ("tokens", "")


def test_calls_at_once_have_no_period() -> None:
    (limit,) = limits_at([at_once(4)], BILLING, NOON)
    assert limit == Limit("rate_limited", "calls", "calls", Decimal(4))


def account_of(secret: str, at: datetime | None = None) -> Account:
    async def main() -> Any:
        loader = AccountLoader()
        try:
            gate = BillingGate(loader.load)
            return await gate.resolve([(b"x-api-key", secret.encode())], at or clock.now())
        finally:
            loader.close()

    found = asyncio.run(main())
    assert isinstance(found, Account)
    return found


def a_plan(**features: dict[str, Any]) -> None:
    plan = Plan.objects.create(slug="team", name="Team")
    version = PlanVersion.objects.create(plan=plan, number=1, concurrent_calls=3)
    for name, said in features.items():
        PlanFeature.objects.create(version=version, feature=name, display_name=name, unit="call", **said)
    publish(version, clock.now())


def limits(secret: str) -> dict[str, Decimal]:
    return {limit.title: limit.most for limit in account_of(secret).limits}


@pytest.mark.django_db(transaction=True)
def test_hard_features_of_the_plan_limit_its_calls_and_soft_ones_do_not() -> None:
    a_plan(
        api_calls={"included": 100, "hard": True, "reset_period": "day"},
        scans={"included": 5},
        documents={"included": None, "hard": True},
    )
    customer, secret = payer()
    subscribe(customer, "team", clock.now())
    assert limits(secret) == {"api_calls": 100, "calls": 3}
    day = next(limit for limit in account_of(secret).limits if limit.title == "api_calls")
    assert day.until is not None and day.since is not None
    assert (day.until - day.since, day.by_period) == (timedelta(days=1), False)


@pytest.mark.django_db(transaction=True)
def test_an_override_stands_in_for_the_plans_allowance() -> None:
    a_plan(api_calls={"included": 100, "hard": True}, scans={"included": 5, "hard": True})
    customer, secret = payer()
    subscribe(customer, "team", clock.now())
    QuotaOverride.objects.create(customer=customer, feature="api_calls", included=7, hard=True)
    QuotaOverride.objects.create(customer=customer, feature="scans", included=None)
    QuotaOverride.objects.create(customer=customer, feature="documents", included=2, hard=True)
    assert limits(secret) == {"api_calls": 7, "documents": 2, "calls": 3}


@pytest.mark.django_db(transaction=True)
def test_hard_budgets_that_run_limit_the_calls_they_are_for() -> None:
    customer, secret = payer()
    other = ApiKey.issue(customer, "other")[0]
    own = ApiKey.objects.get(sha256=keys.digest(secret.encode()))
    Budget.objects.create(customer=customer, amount=5, hard=True)
    Budget.objects.create(customer=customer, amount=6, hard=False)  # only alerts
    Budget.objects.create(customer=customer, amount=7, hard=True, scope="api_key", api_key=own)
    Budget.objects.create(customer=customer, amount=8, hard=True, scope="api_key", api_key=other)
    Budget.objects.create(customer=customer, amount=9000, hard=True, scope="end_user", measure="tokens")
    Budget.objects.create(customer=customer, amount=10, hard=True, ended_at=clock.now())
    found = account_of(secret).limits
    assert [(one.most, one.measure, one.api_key_id, one.each_user) for one in found] == [
        (5, "charge", None, False),
        (7, "charge", own.pk, False),
        (9000, "tokens", None, True),
    ]


@pytest.mark.django_db(transaction=True)
def test_a_key_may_have_a_limit_of_calls_at_once_beside_the_plans() -> None:
    a_plan()
    customer, secret = payer()
    subscribe(customer, "team", clock.now())
    own = ApiKey.objects.get(customer=customer)
    ApiKey.objects.update(concurrent_calls=2)
    assert [(one.most, one.api_key_id) for one in account_of(secret).limits] == [(3, None), (2, own.pk)]


@pytest.mark.django_db(transaction=True)
def test_an_account_is_made_anew_when_a_window_of_its_limits_ends() -> None:
    """The budget is of a day, the billing period of a month: at midnight its limit is another one."""
    customer, secret = payer()
    Budget.objects.create(customer=customer, amount=5, hard=True, reset_period="day")
    midnight = (clock.now() + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)

    async def main() -> list[Any]:
        loader = AccountLoader()
        gate = BillingGate(loader.load)
        headers = [(b"x-api-key", secret.encode())]
        found = [await gate.resolve(headers, midnight + timedelta(seconds=after)) for after in (-1, 0, 1)]
        loader.close()
        return [one.limits[0].since for one in found if isinstance(one, Account)]

    before, at, after = asyncio.run(main())
    assert (before, at, after) == (midnight - timedelta(days=1), midnight, midnight)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("calls", "remaining", "overage", "amount", "percent"),
    [(9, "1", "0", "0", "90"), (10, "0", "0", "0", "100"), (13, "0", "3", "0.03", "130")],
)
def test_soft_use_beyond_what_is_included_is_overage_with_its_price(
    calls: int, remaining: str, overage: str, amount: str, percent: str
) -> None:
    customer, _ = payer()
    QuotaOverride.objects.create(customer=customer, feature="scans", included=10, unit_price=Decimal("0.01"))
    used(customer, clock.now().date(), calls=calls, feature="scans")
    (scans,) = [one for one in allowances_of(customer, clock.now()) if one.feature == "scans"]
    assert (scans.remaining, scans.overage, scans.overage_amount, scans.percent_used, scans.limit) == (
        Decimal(remaining), Decimal(overage), Decimal(amount), Decimal(percent), None,
    )  # fmt: skip


@pytest.mark.django_db
@pytest.mark.parametrize(("quantity", "has"), [(1, True), (2, True), (3, False)])
def test_a_hard_quota_has_room_for_what_is_left_of_it(quantity: int, has: bool) -> None:
    customer, _ = payer()
    QuotaOverride.objects.create(customer=customer, feature="scans", included=10, hard=True)
    used(customer, clock.now().date(), calls=8, feature="scans")
    found = check_quota(customer, "SCAN", quantity, at=clock.now())
    assert (found.has_quota, found.remaining) == (has, 2)
    assert found.reset_date == customer.period_at(clock.now()).end
    assert check_quota(customer, "unheard_of", 10**9, at=clock.now()).has_quota


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"scope": "api_key"}, "api_key"),
        ({"scope": "customer", "user_id": "ada"}, "user_id"),
    ],
)
def test_a_budget_names_what_its_scope_asks_for(values: dict[str, Any], field: str) -> None:
    customer, _ = payer()
    with pytest.raises(ValidationError) as caught:
        Budget(customer=customer, amount=1, **values).clean()
    assert field in caught.value.message_dict


@pytest.mark.django_db
def test_a_budget_is_never_another_customers_keys() -> None:
    customer, _ = payer()
    stranger, _ = payer("stranger")
    key = ApiKey.objects.get(customer=stranger)
    with pytest.raises(ValidationError, match="another customer"):
        Budget(customer=customer, amount=1, scope="api_key", api_key=key).clean()
