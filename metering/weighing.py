"""The most that a call can come to, in money and in tokens, and what its output must be limited to so that it fits into less."""

import asyncio
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

import msgspec

from metering.clean import COUNT_MAX
from metering.estimate import RequestFacts, plain_body
from metering.extract import provider_of
from metering.gate import Account
from metering.hold_bound import HoldBound, hold_amount, hold_bound
from metering.max_tokens import least_of, lowered
from metering.problem import Refusal, credits_do_not_cover, metering_unavailable
from metering.routes import Route
from pricing.money import SQLITE_AMOUNT_LIMIT
from pricing.pricelist import CurrentCard

NO_BOUND = (
    "There is no telling what this call may cost at the most, and the limit of this customer is a hard one: name a model that "
    "has a price, and limit what it may write."
)
# Bytes of a body that are weighed on the event loop. One of 8 MiB that is made to be slow takes two seconds.
WEIGHED_ON_LOOP_MAX = 131_072
DIGITS_MAX = 8  # tokens that the digits of a limit may be read as


class Most(NamedTuple):
    """The most that a call can come to: charge in the account's currency, and tokens in and out. None: nobody asks."""

    charge: Decimal | None
    tokens: int | None


UNBOUND = Most(None, None)


class Room(NamedTuple):
    """What there is room for; None: for anything."""

    charge: Decimal | None = None
    tokens: Decimal | None = None

    def less(self, other: "Room") -> "Room":
        """What there is room for in both."""
        return Room(_least(self.charge, other.charge), _least(self.tokens, other.tokens))

    def holds(self, most: Most) -> bool:
        """Whether a call fits."""
        if self.charge is not None and (most.charge is None or most.charge > self.charge):
            return False
        return self.tokens is None or (most.tokens is not None and most.tokens <= self.tokens)


class Request(NamedTuple):
    """A request as it is weighed."""

    route: Route
    account: Account
    facts: RequestFacts
    body: bytes
    encoding: str
    at: datetime


class Capped(NamedTuple):
    """A request whose output is limited further: its body, the limit, and the most that it can come to."""

    body: bytes
    max_tokens: int
    most: Most


class _Limited(NamedTuple):
    body: bytes
    bound: HoldBound


class Scales:
    """Weighs requests by the rates of the card that is current."""

    def __init__(self, card: CurrentCard) -> None:
        self._card = card

    async def most(self, request: Request) -> Most | Refusal:
        """The most that a call can come to, as far as a limit of its customer asks for it, or why that cannot be said."""
        account, at = request.account, request.at
        asked = {limit.measure: limit for limit in account.limits}
        asks_charge = account.hard_limit or "charge" in asked
        if not asks_charge and "tokens" not in asked:
            return UNBOUND
        bound = await _bound_of(request)
        tokens = _tokens_of(bound)
        if "tokens" in asked and tokens is None:
            return asked["tokens"].without_bound(at, NO_BOUND)
        if not asks_charge:
            return Most(None, tokens)
        charge = self._charge_of(request, bound)
        if charge is not None:
            # Beyond it one of the databases could not write the hold, and nobody has such credits.
            return Most(charge, tokens) if charge <= SQLITE_AMOUNT_LIMIT else credits_do_not_cover()
        if self.knows_no_prices:
            return metering_unavailable(detail="The prices are not loaded yet.")
        return (
            credits_do_not_cover(NO_BOUND)
            if account.hard_limit
            else asked["charge"].without_bound(at, NO_BOUND)
        )

    async def capped(self, request: Request, room: Room) -> Capped | None:
        """The request with the highest limit on its output that fits. None where none does, or it cannot be limited."""
        if request.encoding or not request.body:
            return None
        if len(request.body) > WEIGHED_ON_LOOP_MAX:
            return await asyncio.to_thread(self._capped, request, room)
        return self._capped(request, room)

    @property
    def knows_no_prices(self) -> bool:
        """Whether the card is still to come."""
        return self._card.card.rates == 0 and self._card.loaded_at is None

    def _capped(self, request: Request, room: Room) -> Capped | None:
        least = least_of(request.body, request.route.wire_format)
        low, more = (self._limited(request, least + one) for one in (0, 1))
        whole = hold_bound(request.body, request.route.wire_format, request.facts).tokens_output
        if low is None or more is None or whole is None:
            return None
        written = low.bound.tokens_output or 0
        each = (more.bound.tokens_output or 0) - written  # of one token of the limit: several answers count
        if each <= 0:
            return None
        highest = least + max(0, whole - written) // each
        top = self._limited(request, highest)  # whose number is the longest, which is read as well
        if top is None or not self._fits(request, low.bound, room):
            return None
        fitting, beyond = least, highest + 1
        while beyond - fitting > 1:
            middle = (fitting + beyond) // 2
            bound = msgspec.structs.replace(top.bound, tokens_output=written + (middle - least) * each)
            fitting, beyond = (middle, beyond) if self._fits(request, bound, room) else (fitting, middle)
        return self._as_it_goes_out(request, fitting, highest, room)

    def _as_it_goes_out(self, request: Request, max_tokens: int, highest: int, room: Room) -> Capped | None:
        """The request with this limit, or a few tokens more where its number is shorter than was allowed for."""
        found = None
        for limit in range(max_tokens, min(max_tokens + DIGITS_MAX, highest) + 1):
            limited = self._limited(request, limit)
            if limited is None or not self._fits(request, limited.bound, room):
                break
            found = Capped(limited.body, limit, self._most_of(request, limited.bound))
        return found

    def _limited(self, request: Request, max_tokens: int) -> "_Limited | None":
        route = request.route
        body = lowered(request.body, route.wire_format, route.provider, max_tokens)
        if body is None:
            return None
        bound = hold_bound(body, route.wire_format, request.facts)
        return None if bound.tokens_output is None else _Limited(body, bound)

    def _fits(self, request: Request, bound: HoldBound, room: Room) -> bool:
        return room.holds(self._most_of(request, bound))

    def _most_of(self, request: Request, bound: HoldBound) -> Most:
        asks_charge = request.account.hard_limit or any(
            limit.measure == "charge" for limit in request.account.limits
        )
        return Most(self._charge_of(request, bound) if asks_charge else None, _tokens_of(bound))

    def _charge_of(self, request: Request, bound: HoldBound) -> Decimal | None:
        """The most that a call with this bound is charged; None where there is no telling."""
        account, model = request.account, request.facts.model or ""
        # The path of /v1/execute does not say whose model it is; where no provider is named the rates do.
        for provider in (provider_of(request.route.provider, request.facts.model), ""):
            most = hold_amount(
                self._card.card,
                bound,
                book=account.list_book,
                currency=account.currency,
                provider=provider,
                model=model,
                at=request.at,
            )
            if most is not None:
                return most
        return None


async def _bound_of(request: Request) -> HoldBound:
    if request.encoding or len(request.body) > WEIGHED_ON_LOOP_MAX:
        return await asyncio.to_thread(_bound_of_plain, request)
    return hold_bound(request.body, request.route.wire_format, request.facts)


def _bound_of_plain(request: Request) -> HoldBound:
    """The bound of a body as it came in."""
    plain = plain_body(request.body, request.encoding) or b""
    return hold_bound(plain, request.route.wire_format, request.facts)


def _tokens_of(bound: HoldBound) -> int | None:
    if bound.tokens_input is None or bound.tokens_output is None:
        return None
    tokens = sum(bound.tokens_input.values()) + bound.tokens_output
    return tokens if tokens <= COUNT_MAX else None


def _least(one: Decimal | None, other: Decimal | None) -> Decimal | None:
    return other if one is None else one if other is None else min(one, other)
