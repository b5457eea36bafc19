"""The seam to whoever knows customers and money: who is calling, and may they.

The middleware asks upward through one object that the wiring passes in. Metering never learns what a customer or a plan
is: it gets a snapshot (`Account`), and SQL (`Contribution`) that the recorder runs inside its own transaction, so that a
balance moves together with the hold or the event, or not at all.
"""

from collections.abc import Iterable, Sequence
from copy import copy
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal, Protocol
from uuid import UUID

import msgspec

from metering.ids import NIL
from metering.limits import Limit
from metering.problem import Fields, Refusal
from metering.rows import EventRow, HoldRow

Headers = Iterable[tuple[bytes, bytes]]
WhenShort = Literal["refuse", "cap"]
Outage = Literal["open", "closed"]


class Account(msgspec.Struct, frozen=True):
    """What one call needs to know of its caller, as of a moment ago. A value; holds no reference to a row."""

    customer_id: UUID
    api_key_id: UUID
    api_key_hash: str  # SHA-256 of the key, lower-case hex; never the key
    plan: str
    currency: str
    period_start: datetime  # the billing period [start, end) that the instant of the call lies in, UTC
    period_end: datetime
    cost_book: str = "cost"
    list_book: str = "list"
    shows_cost: bool = True  # may the customer see what the provider charges us (X-Usage-Cost)
    blocks_unpriced: bool = False  # admits no call to a model that its list book has no rate for
    hard_limit: bool = (
        False  # every call holds the most that it can cost; without a limit none holds anything
    )
    when_short: WhenShort = (
        "refuse"  # a call that a hard limit does not cover, or lower its max_tokens to what fits
    )
    outage: Outage = "open"  # whether calls go out while the database is away
    requests_per_minute: int | None = None  # these three: None is no limit
    tokens_per_minute: int | None = None
    concurrent_calls: int | None = None
    key_concurrent_calls: int | None = None  # of this API key alone
    limits: tuple[
        Limit, ...
    ] = ()  # what its calls have to fit under, in the periods of the instant asked for
    on_credit: bool = False  # has a balance, which its calls move
    metadata: dict[str, Any] = {}
    rate_headers: Fields = ()  # of this call alone: what is left of its rate limits; nothing where it has none

    def with_rate_headers(self, headers: Fields) -> "Account":
        """A copy for one call. (Four times as fast as `replace`, which reads every field; nobody else has the copy yet.)"""
        one = copy(self)
        msgspec.structs.force_setattr(one, "rate_headers", headers)
        return one


class Contribution(msgspec.Struct, frozen=True):
    """SQL that a gate adds to the recorder's transaction.

    On PostgreSQL `ctes` are common table expressions put into the one statement. For holds they read `asked(customer_id,
    id, amount)` and must define `admitted(customer_id, id)`; what is not admitted there is refused for good. For whatever ends
    a hold or moves a charge they read `booked(customer_id, currency, held, charge, posting_id, at)`, one row a customer and
    currency (an event is charged if it carries a posting; a correction always is), and must take their locks in that order. On SQLite `row_statements` run for each row in turn: for a hold with
    its columns as named parameters, and it is admitted when the first of them changed exactly one row (a hold of nothing
    is admitted unasked); otherwise with the columns of `booked` and `entry_id`, which no other row has.
    """

    ctes: str
    row_statements: tuple[str, ...]
    refusal: Refusal | None = None  # the answer to a hold that was not admitted


class Gate(Protocol):
    """Answers who is calling, and contributes what admitting and settling do to money."""

    async def resolve(self, headers: Headers, at: datetime) -> Account | Refusal:
        """The account behind the request's headers at the instant `at`, or why there is none. Raises nothing."""

    async def free(self, account: Account) -> Decimal | None:
        """What of the account's credits no call has reserved, just now; None where that is not known. Raises nothing."""

    def hold(self, batch: Sequence[HoldRow]) -> Contribution | None:
        """What to run with these holds; None where nothing can be refused any more."""

    def settle(self, batch: Sequence[EventRow]) -> Contribution | None:
        """What to run with these settlements; None where no balance moves."""


class OpenGate:
    """Admits everyone under one customer: metering by itself, for a demo, a private installation or a test."""

    def __init__(self, customer_id: UUID = NIL, *, currency: str = "USD", plan: str = "open") -> None:
        self._customer_id, self._currency, self._plan = customer_id, currency, plan

    async def resolve(self, headers: Headers, at: datetime) -> Account | Refusal:
        start = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        end = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
        return Account(
            customer_id=self._customer_id, api_key_id=NIL, api_key_hash="", plan=self._plan,
            currency=self._currency, period_start=start, period_end=end,
        )  # fmt: skip

    async def free(self, account: Account) -> Decimal | None:
        return None

    def hold(self, batch: Sequence[HoldRow]) -> Contribution | None:
        return None

    def settle(self, batch: Sequence[EventRow]) -> Contribution | None:
        return None
