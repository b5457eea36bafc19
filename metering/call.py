"""One metered call: what is known of it when it is admitted, and the event that comes of it. Pure values, no input or output.

Who pays what (an explicit zero is a value, absence is not; `share` is the operator's choice, see `metering.policy`):

    answer                        usage            charge               cost              counted as a call
    2xx, 3xx                      reported         by the rates         by the rates      yes
    2xx, 3xx, nobody said usage   estimated        by the rates         by the rates      yes
    2xx, 3xx, nothing to go by    none             unknown, `unpriced`  unknown           yes
    4xx                           none             0                    0                 no
    5xx, none, too slow           none             0                    unknown           no
    broken off on our side        what had come    × share, 1           by the rates      × share
    client left, read to its end  reported         by the rates         by the rates      yes
    client left, cut short        what had come    by the rates         by the rates      yes
    ended before the first byte   input estimated  × share, 0           of the input      × share
    from the app's own cache      as above         × share, 0           0                 × share
    repeat under one key          its own          0                    by the rates      no
    several models                parts            the sum, or served   the sum           yes

What a refusal or a content filter used is charged as reported; a server tool's units are lines of their own. `status`,
`usage_source`, `pricing_status` and `consistency` say each for itself what is known.
"""

import logging
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from metering.clean import clean_event, clean_hold
from metering.context import Terms, context_of
from metering.estimate import RequestFacts
from metering.extract import provider_of
from metering.gate import Account
from metering.ids import instant_of, text_of, uuid7
from metering.limits import applying
from metering.policy import WhoPays, asked_for, outcome_of, terms_for
from metering.rated import ONE, ZERO, rate_event
from metering.routes import Route
from metering.rows import Claim, EventRow, HoldRow, Status
from pricing.money import EXACT, decimal_string
from pricing.pricelist import RateCard
from pricing.usage import Usage

log = logging.getLogger("metering.call")


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
    held: Decimal = ZERO  # what it reserves of its customer's credits, in the account's currency
    charge_most: Decimal | None = None  # these two: the most that it can come to, where a limit asks for it
    tokens_most: int | None = None
    body: bytes | None = None  # what goes out instead of what came in, where its output was limited
    max_tokens: int | None = None  # to this
    key: str = ""  # the Idempotency-Key it came with
    claim: Claim | None = None  # what that stands for
    policy: WhoPays = WhoPays()
    reported: Usage | None = None  # what the application itself says; wins over extraction
    cached: bool = False  # the application says that the answer is from its own cache
    ended: bool = False

    def weighs(self, charge: Decimal | None, tokens: int | None) -> None:
        """Take over the most that it can come to."""
        self.held = (charge or ZERO) if self.account.hard_limit else ZERO
        self.charge_most = charge if self.account.limits else None
        self.tokens_most = tokens

    def cap(self, body: bytes, max_tokens: int) -> None:
        """Go out as this, with so many tokens of output at the most."""
        self.body, self.max_tokens = body, max_tokens
        self.facts = msgspec.structs.replace(self.facts, max_tokens=max_tokens)

    def hold(self) -> HoldRow:
        """The row that proves that the call went out."""
        account = self.account
        row = clean_hold(
            HoldRow(
                customer_id=account.customer_id, id=self.id, created_at=self.at, period_start=account.period_start,
                currency=account.currency, plan=account.plan, api_key_id=account.api_key_id,
                api_key_hash=account.api_key_hash, user_id=self.user_id, task_type=self.facts.task_type or "",
                endpoint=self.endpoint, method=self.method, feature=self.route.feature,
                provider=provider_of(self.route.provider, self.facts.model), model=self.facts.model or "",
                tokens_input=self.facts.tokens_input_estimate, request_id=self.request_id, claim=self.claim,
                amount=self.held, charge_most=self.charge_most, tokens_most=self.tokens_most,
            )
        )  # fmt: skip
        if account.limits:
            row.limits = applying(account.limits, row.feature, row.user_id)
        return row

    def event(
        self, usage: Usage, card: RateCard, *, now: datetime, status: Status, status_code: int | None,
        latency_ms: int | None, execution_ms: int | None, complete: bool = True,
    ) -> EventRow:  # fmt: skip
        """The event of this call, rated at the instant of its admission. Never raises for what the provider sent."""
        account, usage = self.account, self._named(usage)
        terms, counts = Terms(account.cost_book, account.list_book), ONE
        if status != "ok" or usage.source == "none" or usage.parts or self.cached:
            outcome = outcome_of(usage, status, status_code, begun=latency_ms is not None, complete=complete)
            terms = terms_for(
                terms, outcome, status, self.policy, cached=self.cached, parts=bool(usage.parts)
            )
            counts = ZERO if terms.free else terms.share
            if outcome == "used" and status == "error":
                status = "error_after_output"
            elif outcome in ("unanswered", "cut"):
                usage = asked_for(self.facts, usage.provider)
        rated = rate_event(card, usage, terms, at=self.at, currency=account.currency)
        tokens_input, tokens_output, tokens_total = usage.tokens()
        row = EventRow(
            customer_id=account.customer_id, id=uuid7(now), hold_id=self.id, hold_at=instant_of(self.id),
            created_at=now, occurred_at=self.at, period_start=account.period_start, day=self.at.astimezone(UTC).date(),
            feature=usage.feature or self.route.feature,
            quantity=self._quantity(usage, counts), status=status, usage_source=usage.source, pricing_status=rated.pricing_status,
            plan=account.plan, api_key_id=account.api_key_id, api_key_hash=account.api_key_hash, user_id=self.user_id,
            execution_id=usage.execution_id or text_of(self.id), task_type=usage.task_type or self.facts.task_type or "",
            endpoint=self.endpoint, method=self.method,
            tokens_input=tokens_input, tokens_output=tokens_output, tokens_total=tokens_total,
            buckets=usage.buckets, provider=usage.provider, model=usage.model, model_requested=usage.model_requested or "",
            model_cost_input=rated.model_cost_input, model_cost_output=rated.model_cost_output,
            cost_input=rated.cost_input, cost_output=rated.cost_output, cost_total=rated.cost_total,
            charge_total=rated.charge_total, currency=rated.currency, rate_ids=rated.rate_ids, missing=rated.missing,
            execution_time=execution_ms, latency=latency_ms, status_code=status_code, consistency=usage.consistency,
            raw_usage=usage.raw, extractor=usage.extractor,
            context=context_of(usage, terms), metadata=usage.metadata or {},
        )  # fmt: skip
        row.on_credit = account.on_credit or account.hard_limit
        if self.cached:
            row.context["cache"] = "hit"
        if self.key:
            row.idempotency_key = self.key
            row.claim = self.claim
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

    def _quantity(self, usage: Usage, counts: Decimal) -> Decimal:
        """What is not paid for in full counts by its share; what the application says it used counts all the same."""
        if usage.quantity is None:
            return counts
        return Decimal(usage.quantity) if not self.cached else EXACT.multiply(Decimal(usage.quantity), counts)


def admission_headers(call: Call) -> list[tuple[bytes, bytes]]:
    """What an answer says of how its call was admitted."""
    return [] if call.max_tokens is None else [(b"x-usage-max-tokens", b"%d" % call.max_tokens)]


def usage_headers(row: EventRow, *, shows_cost: bool) -> list[tuple[bytes, bytes]]:
    """The X-Usage-* headers of a settled call; what is unknown is left out, what is estimated says so."""
    headers: list[tuple[bytes, bytes]] = []
    if row.tokens_input is not None:
        headers.append((b"x-usage-tokens-input", b"%d" % row.tokens_input))
    if row.tokens_output is not None:
        headers.append((b"x-usage-tokens-output", b"%d" % row.tokens_output))
    if row.charge_total is not None:
        headers.append((b"x-usage-charge", decimal_string(row.charge_total).encode()))
    if shows_cost and row.cost_total is not None:
        headers.append((b"x-usage-cost", decimal_string(row.cost_total).encode()))
    if row.usage_source in ("estimated", "reported_partial"):  # never presented as what was reported
        headers.append((b"x-usage-source", row.usage_source.encode()))
    return headers
