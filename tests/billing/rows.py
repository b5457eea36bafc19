"""Rows of daily usage to read, and the cast: a payer, a stranger, and what opens their doors."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from billing.models import ApiKey, Customer
from metering.models import DailyUsage


def payer(external_id: str = "payer", **fields: Any) -> tuple[Customer, str]:
    """A customer and its key."""
    customer = Customer.objects.create(external_id=external_id, name=external_id.title(), **fields)
    return customer, ApiKey.issue(customer, "tests")[1]


def key_of(customer: Customer) -> UUID:
    return ApiKey.objects.get(customer=customer).pk


def used(
    customer: Customer,
    day: date,
    *,
    calls: int = 1,
    tokens: tuple[int, int] = (0, 0),
    cost: str = "0",
    charge: str = "0",
    model: str = "demo-small",
    feature: str = "api_calls",
    quantity: int | None = None,
    unpriced: int = 0,
) -> None:
    """One row of daily usage, past the guard that keeps everyone but the recorder from writing."""
    at = datetime(day.year, day.month, day.day, tzinfo=UTC)
    row = DailyUsage(
        customer_id=customer.pk,
        period_start=customer.period_at(at).start,
        day=day,
        feature=feature,
        provider="demo",
        model=model,
        api_key_id=key_of(customer),
        currency=customer.currency,
        events=calls,
        quantity=Decimal(calls if quantity is None else quantity),
        tokens_input=tokens[0],
        tokens_output=tokens[1],
        tokens_total=sum(tokens),
        cost_total=Decimal(cost),
        charge_total=Decimal(charge),
        unpriced_events=unpriced,
        estimated_events=0,
    )
    DailyUsage.objects.bulk_create([row])
