"""One metered call: what is known of it when it is admitted, and the event that comes of it. Pure values, no input or output.

Who pays what where there is no plain answer (an explicit zero is a value, absence is not):

    answer            usage        charge                cost                        counted as a call
    2xx, 3xx          reported     by the rates          by the rates                yes
    2xx, 3xx          none         unknown, `unpriced`   unknown                     yes
    4xx               none         0                     0: refused calls are free   no
    5xx or no answer  none         0                     unknown, `partial`          no
    any               some         by the rates          by the rates                yes, status tells the rest
"""

import logging
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from metering.claim import is_complete
from metering.clean import clean_event, clean_hold
from metering.context import Terms, context_of
from metering.estimate import RequestFacts
from metering.gate import Account
from metering.ids import instant_of, uuid7
from metering.rated import ZERO, rate_event
from metering.routes import Route
from metering.rows import Claim, EventRow, HoldRow, Status
from pricing.money import decimal_string
from pricing.pricelist import RateCard
from pricing.usage import Usage

log = logging.getLogger("metering.call")

ONE = Decimal(1)
_ESTIMATED = ("estimated", "reported_partial")


class Call(msgspec.Struct, gc=True):
    """A call from its admission to its event."""

    id: UUID  # UUIDv7 of the admission: the hold's id
    at: datetime  # the admission, read from the clock once
    route: Route
    account: Account
    facts: RequestFacts
    request_id: str
    endpoint: str
    method: str
    user_id: str = ""
    key: str = ""  # the Idempotency-Key it came with
    claim: Claim | None = None  # what that stands for
    reported: Usage | None = None  # what the application itself says; wins over extraction
    ended: bool = False

    def hold(self) -> HoldRow:
        """The row that proves that the call went out."""
        account = self.account
        return clean_hold(
            HoldRow(
                customer_id=account.customer_id, id=self.id, created_at=self.at, period_start=account.period_start,
                currency=account.currency, plan=account.plan, api_key_id=account.api_key_id,
                api_key_hash=account.api_key_hash, user_id=self.user_id, task_type=self.facts.task_type or "",
                endpoint=self.endpoint, method=self.method, feature=self.route.feature,
                provider=self.route.provider, model=self.facts.model or "",
                tokens_input=self.facts.tokens_input_estimate, request_id=self.request_id, claim=self.claim,
            )
        )  # fmt: skip

    def event(
        self, usage: Usage, card: RateCard, *, now: datetime, status: Status, status_code: int | None,
        latency_ms: int | None, execution_ms: int | None,
    ) -> EventRow:  # fmt: skip
        """The event of this call, rated at the instant of its admission. Never raises for what the provider sent."""
        account, used, usage = self.account, usage.source != "none", self._named(usage)
        terms = Terms(account.cost_book, account.list_book)
        rated = rate_event(card, usage, terms, at=self.at, currency=account.currency)
        row = EventRow(
            customer_id=account.customer_id, id=uuid7(now), hold_id=self.id, hold_at=instant_of(self.id),
            created_at=now, occurred_at=self.at, period_start=account.period_start, day=self.at.astimezone(UTC).date(),
            feature=usage.feature or self.route.feature,
            quantity=self._quantity(usage, counts=used or (status_code or 500) < 400),
            status=_status(status, used), usage_source=usage.source, pricing_status=rated.pricing_status,
            plan=account.plan, api_key_id=account.api_key_id, api_key_hash=account.api_key_hash, user_id=self.user_id,
            execution_id=usage.execution_id or str(self.id), task_type=usage.task_type or self.facts.task_type or "",
            endpoint=self.endpoint, method=self.method,
            tokens_input=usage.tokens_input, tokens_output=usage.tokens_output, tokens_total=usage.tokens_total,
            buckets=usage.buckets, provider=usage.provider, model=usage.model, model_requested=usage.model_requested or "",
            model_cost_input=rated.model_cost_input, model_cost_output=rated.model_cost_output,
            cost_input=rated.cost_input, cost_output=rated.cost_output, cost_total=rated.cost_total,
            charge_total=rated.charge_total, currency=rated.currency, rate_ids=rated.rate_ids, missing=rated.missing,
            execution_time=execution_ms, latency=latency_ms, status_code=status_code, consistency=usage.consistency,
            raw_usage=usage.raw, extractor=usage.extractor,
            context=context_of(usage, terms), metadata=usage.metadata or {},
        )  # fmt: skip
        if not used:
            _apply_policy(row, status_code)
        if self.key:
            row.idempotency_key = self.key
            row.claim = self.claim if _has_to_be_paid(row) else None
        row.created_at = instant_of(row.id)
        return clean_event(row)

    def bare_event(self, *, now: datetime, status: Status, status_code: int | None) -> EventRow:
        """What remains when reading or rating the answer failed in an unforeseen way: the call itself, marked."""
        nothing = Usage(buckets={}, source="none", consistency="inconsistent")
        return self.event(nothing, RateCard.empty(), now=now, status=status, status_code=status_code,
                          latency_ms=None, execution_ms=None)  # fmt: skip

    def _named(self, usage: Usage) -> Usage:
        """With the names that the event keeps: it is rated by them now, and whenever it is rated again."""
        if usage.provider and (usage.model_requested or not self.facts.model):
            return usage
        return msgspec.structs.replace(
            usage,
            provider=usage.provider or self.route.provider,
            model_requested=usage.model_requested or self.facts.model,
        )

    def _quantity(self, usage: Usage, *, counts: bool) -> Decimal:
        if usage.quantity is not None:
            return Decimal(usage.quantity)
        return ONE if counts else ZERO


def usage_headers(row: EventRow, *, shows_cost: bool) -> list[tuple[bytes, bytes]]:
    """The X-Usage-* headers of a settled call; what is unknown is left out."""
    values: list[tuple[bytes, Any]] = [
        (b"x-usage-tokens-input", row.tokens_input),
        (b"x-usage-tokens-output", row.tokens_output),
        (b"x-usage-charge", row.charge_total),
    ]
    if shows_cost:
        values.append((b"x-usage-cost", row.cost_total))
    return [
        (name, (decimal_string(value) if isinstance(value, Decimal) else str(value)).encode())
        for name, value in values
        if value is not None
    ]


def _status(status: Status, used: bool) -> Status:
    return "error_after_output" if status == "error" and used else status


def _has_to_be_paid(row: EventRow) -> bool:
    """Whether an attempt under a key is one to pay for. One that failed leaves that to a later one."""
    return row.usage_source != "none" and (row.charge_total != 0 or is_complete(row))


def _apply_policy(row: EventRow, status_code: int | None) -> None:
    """No usage came: who pays what is a rule, not a reading (the table above)."""
    code = status_code or 500
    if code < 400:
        return
    row.charge_total = ZERO
    if code < 500:
        row.cost_total, row.pricing_status = ZERO, "priced"
    else:
        row.pricing_status = "partial"
