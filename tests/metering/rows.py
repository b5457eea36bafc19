"""Rows for tests, with plain values that a reader can add up in the head."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from metering.ids import instant_of, uuid7
from metering.rows import EventRow, HoldRow

NOON = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
PERIOD_START = datetime(2026, 11, 1, tzinfo=UTC)
PAYER = UUID("00000000-0000-4000-8000-00000000aaaa")
STRANGER = UUID("00000000-0000-4000-8000-00000000bbbb")


def a_hold(customer: UUID = PAYER, at: datetime = NOON, **values: Any) -> HoldRow:
    """A call admitted at noon: ten input tokens by estimate, for demo-small."""
    row = HoldRow(
        customer_id=customer, id=uuid7(at), created_at=at, period_start=PERIOD_START, feature="api_calls",
        provider="demo", model="demo-small", tokens_input=10, endpoint="/v1/execute", method="POST",
    )  # fmt: skip
    return msgspec.structs.replace(row, **values)


def an_event(hold: HoldRow, after: timedelta = timedelta(seconds=1), **values: Any) -> EventRow:
    """That call settled a second later: 10 tokens in and 5 out, cost 0.0001, charge 0.00012."""
    event_id = uuid7(hold.created_at + after)
    row = EventRow(
        customer_id=hold.customer_id, id=event_id, hold_id=hold.id, hold_at=instant_of(hold.id),
        created_at=instant_of(event_id), occurred_at=hold.created_at, period_start=hold.period_start,
        day=hold.created_at.date(), feature="api_calls", quantity=Decimal(1), status="ok", usage_source="reported",
        pricing_status="priced", execution_id=str(hold.id), endpoint=hold.endpoint, method=hold.method,
        tokens_input=10, tokens_output=5, tokens_total=15, buckets={"in_uncached": 10, "out_visible": 5},
        provider="demo", model="demo-small", model_requested="demo-small",
        cost_input=Decimal("0.00008"), cost_output=Decimal("0.00002"), cost_total=Decimal("0.0001"),
        charge_total=Decimal("0.00012"), rate_ids=(1, 2), status_code=200, extractor="test/1",
    )  # fmt: skip
    return msgspec.structs.replace(row, **values)
