"""The rows that the recorder writes, as plain values: a hold when a call is admitted, an event when it is settled.

Field names are column names. Rows are made at the edge, are complete in themselves and are written as they are, however
often a write has to be repeated: ids and instants are fixed here and nowhere later.
"""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Literal
from uuid import UUID

import msgspec

from metering.ids import NIL
from metering.limits import Limit

Status = Literal["ok", "error", "error_after_output", "interrupted", "client_disconnected", "timeout"]
PricingStatus = Literal["priced", "unpriced", "partial", "by_plan"]


class Claim(msgspec.Struct, frozen=True, gc=False):
    """An idempotency key as a call brings it along: 128 bits of SHA-256 each, as 32 hex digits; never the key."""

    key_hash: str
    payload_hash: str


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What is known of a key: see `metering.store.claims`."""

    payload_hash: str = ""
    answered_by: UUID | None = None  # the event of the attempt that delivered a whole answer
    charged: Decimal = Decimal(0)  # the most that an attempt came to
    counted: Decimal = Decimal(0)  # the same of its quantity


class KeyMove(msgspec.Struct, frozen=True, gc=False):
    """How a key's standing changes together with something else, or nothing does."""

    key_hash: str
    before: Standing
    after: Standing


class HoldRow(msgspec.Struct, gc=False):
    """A call in flight. The row is the proof that it went out, also where nothing is reserved (`amount` 0)."""

    customer_id: UUID
    id: UUID  # UUIDv7 of the admission
    created_at: datetime  # the admission; becomes the event's occurred_at
    period_start: datetime
    amount: Decimal = Decimal(0)  # in the account's currency
    currency: str = "USD"
    plan: str = ""
    api_key_id: UUID = NIL
    api_key_hash: str = ""
    user_id: str = ""
    task_type: str = ""
    endpoint: str = ""
    method: str = ""
    feature: str = ""
    provider: str = ""
    model: str = ""  # as requested
    tokens_input: int | None = None  # estimate from the request, for the sweep of an orphan
    request_id: str = ""
    tokens_most: int | None = None  # these two: the most that it can come to, where a limit asks for it
    charge_most: Decimal | None = None
    limits: tuple[Limit, ...] = ()  # that it has to fit under, each once
    claim: Claim | None = None  # claimed with the hold; a key that stands for another payload refuses it


class EventRow(msgspec.Struct, gc=False):
    """One metered fact. Unknown is None, never zero; amounts are exact decimals, rounded once."""

    customer_id: UUID
    id: UUID  # UUIDv7 whose instant is created_at
    hold_id: UUID
    hold_at: datetime  # when the hold was made, as its id says; bounds the search for a swept event
    created_at: datetime
    occurred_at: datetime
    period_start: datetime
    day: date
    feature: str
    quantity: Decimal
    status: Status
    usage_source: str
    pricing_status: PricingStatus
    late: bool = False
    plan: str = ""
    api_key_id: UUID = NIL
    api_key_hash: str = ""
    user_id: str = ""
    execution_id: str = ""
    task_type: str = ""
    endpoint: str = ""
    method: str = ""
    tokens_input: int | None = None
    tokens_output: int | None = None
    tokens_total: int | None = None
    buckets: Mapping[str, Any] = {}
    provider: str = ""
    model: str = ""
    model_requested: str = ""
    model_cost_input: Decimal | None = None
    model_cost_output: Decimal | None = None
    cost_input: Decimal | None = None
    cost_output: Decimal | None = None
    cost_total: Decimal | None = None
    charge_total: Decimal | None = None
    currency: str = "USD"
    rate_ids: tuple[int, ...] = ()
    posting_id: UUID | None = None
    execution_time: int | None = None  # ms
    latency: int | None = None  # ms to the first byte
    status_code: int | None = None
    consistency: str = "ok"
    raw_usage: Any = None
    extractor: str = ""
    context: dict[str, Any] = {}  # what else a price depends on: see `metering.context`
    tags: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    idempotency_key: str = ""
    missing: dict[str, list[str]] | None = (
        None  # by price book, what a rate could still price; then listed as unpriced
    )
    claim: Claim | None = None  # its key decides what of it is charged
    on_credit: bool = False  # its customer has a balance that it moves


class CorrectionRow(msgspec.Struct, gc=False):
    """What became known of an event after it was written. The sums are what it adds to daily usage; they may be negative."""

    id: UUID
    customer_id: UUID
    event_id: UUID
    revision: int
    created_at: datetime
    reason: str
    run: UUID | None  # the re-rating that wrote it, if one did
    changed: tuple[str, ...]  # the columns that differ
    old: dict[str, Any]
    new: dict[str, Any]
    period_start: datetime
    day: date
    feature: str
    provider: str
    model: str
    api_key_id: UUID
    currency: str
    events: int
    quantity: Decimal
    tokens_input: int
    tokens_output: int
    tokens_total: int
    cost_total: Decimal
    charge_total: Decimal
    unpriced_events: int
    estimated_events: int


class Amendment(msgspec.Struct, gc=False):
    """What is to become of one event: its next corrections, all or none of which are written, and its place in the list of
    what is unpriced. Without corrections only that place changes."""

    customer_id: UUID
    event_id: UUID
    created_at: datetime  # of the event
    occurred_at: datetime
    provider: str
    model: str
    missing: (
        dict[str, list[str]] | None
    )  # what a rate could still price; None: the event is taken off the list
    revision: int  # that the event had when it was read; 0: it was never corrected
    on_credit: bool  # its call moved its customer's balance; then its corrections do, and otherwise not
    corrections: tuple[CorrectionRow, ...] = ()
    card_version: int = 0  # the newest rate card that was asked
    key: KeyMove | None = (
        None  # of the call's idempotency key; where it stands otherwise by now, nothing is written
    )


# Columns of usage_events; the rest of an EventRow says where else it counts, which hold it ends and which key it answers.
NOT_STORED = frozenset({"hold_id", "hold_at", "day", "plan", "missing", "claim", "on_credit"})
EVENT_COLUMNS = tuple(name for name in EventRow.__struct_fields__ if name not in NOT_STORED)
HOLD_COLUMNS = tuple(name for name in HoldRow.__struct_fields__ if name not in {"claim", "limits"})
CORRECTION_COLUMNS = CorrectionRow.__struct_fields__
