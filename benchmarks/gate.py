"""A gate with its accounts in memory: what a process's warm cache of accounts costs, without the database behind it."""

import hashlib
from datetime import UTC, datetime
from uuid import UUID

from metering.gate import Account, Headers, OpenGate
from metering.problem import Refusal, invalid_api_key


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
