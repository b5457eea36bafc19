"""A gate with its accounts in memory: what a process's warm cache of accounts costs, without the database behind it."""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import msgspec

from billing import ledger_sql
from metering.gate import Account, Contribution, Headers, OpenGate
from metering.limits import Limit
from metering.problem import Refusal, invalid_api_key
from metering.rows import EventRow, HoldRow

SINCE, UNTIL = datetime(2020, 1, 1, tzinfo=UTC), datetime(2040, 1, 1, tzinfo=UTC)
LIMITS = (
    Limit("quota_exceeded", "API calls", "quantity", Decimal(10**9), SINCE, UNTIL),
    Limit("budget_exceeded", "tokens", "tokens", Decimal(10**12), SINCE, UNTIL),
    Limit("rate_limited", "calls", "calls", Decimal(10**6)),
)


class KeyedGate(OpenGate):
    """Finds the account by the SHA-256 of the bearer key."""

    def __init__(self, customers: dict[str, UUID]) -> None:
        super().__init__()
        start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2036, 1, 1, tzinfo=UTC)
        self._accounts = {
            key_hash: Account(
                customer_id=customer, api_key_id=customer, api_key_hash=key_hash, plan="bench", currency="USD",
                period_start=start, period_end=end,
            )
            for key_hash, customer in customers.items()
        }  # fmt: skip

    async def resolve(self, headers: Headers, at: datetime) -> Account | Refusal:
        for name, value in headers:
            if name == b"authorization":
                return self._accounts.get(hashlib.sha256(value[7:]).hexdigest()) or invalid_api_key()
        return invalid_api_key()


class SpendingGate(KeyedGate):
    """The same with hard credits, a quota, a budget and a limit of calls at once for every customer, which cover all calls."""

    def __init__(self, customers: dict[str, UUID]) -> None:
        super().__init__(customers)
        self._accounts = {
            key_hash: msgspec.structs.replace(account, hard_limit=True, on_credit=True, limits=LIMITS)
            for key_hash, account in self._accounts.items()
        }

    def hold(self, batch: Sequence[HoldRow]) -> Contribution | None:
        return ledger_sql.HOLD

    def settle(self, batch: Sequence[EventRow]) -> Contribution | None:
        postings: dict[UUID, UUID] = {}
        for row in batch:
            row.posting_id = postings.setdefault(row.customer_id, row.id)
        return ledger_sql.BOOKS
