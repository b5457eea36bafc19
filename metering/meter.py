"""The meter: the six steps of a metered call, for whoever carries the messages (ASGI, Django).

It holds what all calls of a process share. An adapter asks it to match a request, to admit it, and to settle it.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterable
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from metering import metrics
from metering.call import Call
from metering.claim import HEADER as KEY_HEADER, claim_of
from metering.clean import COUNT_MAX, TEXT_LIMITS, clean_text
from metering.drains import Drains
from metering.estimate import RequestFacts, plain_body, read_request
from metering.extract import WireFormat, provider_of, read_header, wire_format
from metering.gate import Account, Gate
from metering.hold_bound import HoldBound, hold_amount, hold_bound
from metering.ids import uuid7
from metering.limits import LimitExceeded
from metering.policy import WhoPays
from metering.problem import (
    Refusal,
    credits_do_not_cover,
    idempotency_conflict,
    metering_unavailable,
    model_not_priced,
)
from metering.rated import ZERO
from metering.recorder import KeyConflict, Recorder, RecorderUnavailable
from metering.routes import Route, RouteTable
from metering.rows import EventRow, Status
from metering.tap import Tap
from pricing.money import SQLITE_AMOUNT_LIMIT
from pricing.pricelist import CurrentCard
from pricing.usage import Usage

log = logging.getLogger("metering.meter")

NOTHING = Usage(buckets={}, source="none")
NO_BOUND = (
    "There is no telling what this call may cost at the most, and the limit of this customer is a hard one: name a model that "
    "has a price, and limit what it may write."
)
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}\Z")
# Bytes of a body that are weighed on the event loop. One of 8 MiB that is made to be slow takes two seconds.
WEIGHED_ON_LOOP_MAX = 131_072
Headers = Iterable[tuple[bytes, bytes]]


class Meter:
    """Everything that the calls of a process share."""

    def __init__(
        self,
        *,
        gate: Gate,
        recorder: Recorder,
        card: CurrentCard,
        routes: RouteTable,
        now: Callable[[], datetime],
        request_bytes_max: int = 8 * 2**20,  # of a request are read for its model; a longer one passes unread
        stream_s_max: float = 3600.0,  # a client that reads nothing may hold a call open for so long
        drains: Drains | None = None,
        policy: WhoPays | None = None,
    ) -> None:
        self.gate, self.recorder, self.card, self.routes, self.now = gate, recorder, card, routes, now
        self.request_bytes_max, self.stream_s_max = request_bytes_max, stream_s_max
        self.drains, self.policy = drains or Drains(), policy or WhoPays()

    async def identify(self, headers: Headers, at: datetime) -> Account | Refusal:
        """Step 1, who: the caller's account, or the refusal to send."""
        found = await self.gate.resolve(headers, at)
        if isinstance(found, Refusal):
            metrics.gate_refusals.labels(found.code).inc()
        return found

    async def admit(
        self,
        route: Route,
        account: Account,
        *,
        at: datetime,
        headers: Headers,
        body: bytes | None,  # None: it is not all there
        path: str,
        method: str,
        query: bytes = b"",
    ) -> Call | Refusal:
        """Step 2, may they: commit the hold. What comes back is the call, which has to be settled, or the refusal."""
        wanted = dict(headers)
        facts = self._facts(route, path, body or b"", wanted)
        if account.blocks_unpriced:
            unpriced = self._unpriced(route, account, facts, at, is_empty=body == b"")
            if unpriced is not None:
                return self._refused(unpriced)
        most = UNBOUND
        if account.hard_limit or account.limits:
            weighed = await self._most(route, account, facts, body or b"", wanted, at)
            if isinstance(weighed, Refusal):
                return self._refused(weighed)
            most = weighed
        call_id = uuid7(at)
        call = Call(
            id=call_id, at=at, route=route, account=account, facts=facts,
            request_id=request_id_of(wanted, default=call_id.hex),
            endpoint=path, method=method,
            user_id=wanted.get(b"x-end-user", b"").decode("utf-8", "replace") or facts.user_id or "",
            held=(most.charge or ZERO) if account.hard_limit else ZERO,
            charge_most=most.charge if account.limits else None, tokens_most=most.tokens, policy=self.policy,
        )  # fmt: skip
        key = wanted.get(KEY_HEADER)
        if key:
            call.key = key.decode("utf-8", "replace")
            call.claim = claim_of(
                key, method=method, path=path, query=query, body=body,
                content_type=b",".join(value for name, value in headers if name == b"content-type"),
            )  # fmt: skip
        started = time.perf_counter()
        try:
            admitted = await self.recorder.hold(call.hold(), spools=account.outage == "open")
        except RecorderUnavailable as error:
            log.error("call refused, its hold cannot be recorded: %s", error)
            return self._refused(metering_unavailable())
        except KeyConflict:
            return self._refused(idempotency_conflict())
        except LimitExceeded as error:
            return self._refused(error.limit.refusal(at))
        metrics.hold_seconds.observe(time.perf_counter() - started)
        if not admitted:
            contribution = self.gate.hold([call.hold()])
            return self._refused(
                contribution.refusal if contribution and contribution.refusal else credits_do_not_cover()
            )
        return call

    def settle(
        self, call: Call, tap: Tap | None, *, complete: bool, status: Status, status_code: int | None,
        latency_ms: int | None, execution_ms: int | None,
    ) -> "Settlement":  # fmt: skip
        """Steps 4 to 6: read the usage, rate it, and queue event, daily usage and the end of the hold as one transaction.
        From here on the event is on its way, whatever becomes of the call. Raises nothing. `tap` has watched the answer, as
        far as there was one; `complete` when that was all of it."""
        row = self._event(call, tap, complete, status, status_code, latency_ms, execution_ms)
        call.ended = True
        settlement = Settlement(row)
        self.recorder.book(row, settlement)
        return settlement

    def take_header(self, call: Call, value: str) -> None:
        """The application says the usage in a header of its answer, `X-Usage: {…}`. `record_usage` goes before it."""
        said = read_header(value, call.facts, call.route.provider)
        if call.reported is None and said.source != "none":
            call.reported = said

    def format_of(self, route: Route) -> WireFormat:
        """The wire format of a route; its name was checked at start-up."""
        return wire_format(route.wire_format)

    def _event(
        self, call: Call, tap: Tap | None, complete: bool, status: Status, status_code: int | None,
        latency_ms: int | None, execution_ms: int | None,
    ) -> EventRow:  # fmt: skip
        try:
            usage = tap.finish(complete) if tap is not None else NOTHING
            if status == "ok" and tap is not None and tap.failed:
                status = "error"  # said within an answer that had begun well
            usage = call.reported or usage
            return call.event(usage, self.card.card, now=self.now(), status=status, status_code=status_code,
                              latency_ms=latency_ms, execution_ms=execution_ms, complete=complete)  # fmt: skip
        except Exception:  # an API never breaks because of metering; the event says that it is incomplete
            log.exception("the answer to call %s cannot be read", call.id)
            return call.bare_event(now=self.now(), status=status, status_code=status_code)

    def _unpriced(
        self, route: Route, account: Account, facts: RequestFacts, at: datetime, *, is_empty: bool
    ) -> Refusal | None:
        """Why a call that must have a price may not go out. A request that names no model leaves the choice to the
        application, which may not need one; one that cannot be read may name any."""
        if facts.model is None:
            return (
                None
                if facts.readable or is_empty
                else model_not_priced("The model cannot be read from the request.")
            )
        provider = provider_of(route.provider, facts.model)
        tariff = self.card.card.tariff_for(account.list_book, provider, facts.model, at)
        if tariff is not None and account.currency in ("", tariff.plain.currency):
            return None
        if self._knows_no_prices:
            return metering_unavailable(detail="The prices are not loaded yet.")
        return model_not_priced(f"The plan admits no model without a price: {facts.model!r}.")

    async def _most(
        self, route: Route, account: Account, facts: RequestFacts, body: bytes, headers: dict[bytes, bytes], at: datetime
    ) -> "Most | Refusal":  # fmt: skip
        """The most that a call can come to, as far as a limit of its customer asks for it, or why that cannot be said."""
        asked = {limit.measure: limit for limit in account.limits}
        asks_charge = account.hard_limit or "charge" in asked
        if not asks_charge and "tokens" not in asked:
            return UNBOUND
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        if encoding or len(body) > WEIGHED_ON_LOOP_MAX:
            bound = await asyncio.to_thread(_bound_of, body, encoding, route.wire_format, facts)
        else:
            bound = hold_bound(body, route.wire_format, facts)
        tokens = _tokens_of(bound)
        if "tokens" in asked and tokens is None:
            return asked["tokens"].without_bound(at, NO_BOUND)
        if not asks_charge:
            return Most(None, tokens)
        charge = self._charge_of(route, account, facts, bound, at)
        if charge is not None:
            # Beyond it one of the databases could not write the hold, and nobody has such credits.
            return Most(charge, tokens) if charge <= SQLITE_AMOUNT_LIMIT else credits_do_not_cover()
        if self._knows_no_prices:
            return metering_unavailable(detail="The prices are not loaded yet.")
        return (
            credits_do_not_cover(NO_BOUND)
            if account.hard_limit
            else asked["charge"].without_bound(at, NO_BOUND)
        )

    def _charge_of(
        self, route: Route, account: Account, facts: RequestFacts, bound: HoldBound, at: datetime
    ) -> Decimal | None:
        """The most that a call with this bound is charged; None where there is no telling."""
        model = facts.model or ""
        # The path of /v1/execute does not say whose model it is; where no provider is named the rates do.
        for provider in (provider_of(route.provider, facts.model), ""):
            most = hold_amount(
                self.card.card,
                bound,
                book=account.list_book,
                currency=account.currency,
                provider=provider,
                model=model,
                at=at,
            )
            if most is not None:
                return most
        return None

    @property
    def _knows_no_prices(self) -> bool:
        return self.card.card.rates == 0 and self.card.loaded_at is None

    def _facts(self, route: Route, path: str, body: bytes, headers: dict[bytes, bytes]) -> RequestFacts:
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        model = self.routes.model_in(route, path)
        if model is not None:
            model = clean_text(model, TEXT_LIMITS["model"])
        return read_request(body, self.format_of(route), encoding, path_model=model)

    def _refused(self, refusal: Refusal) -> Refusal:
        metrics.gate_refusals.labels(refusal.code).inc()
        return refusal


class Most(NamedTuple):
    """The most that a call can come to: charge in the account's currency, and tokens in and out. None: nobody asks."""

    charge: Decimal | None
    tokens: int | None


UNBOUND = Most(None, None)


def _tokens_of(bound: HoldBound) -> int | None:
    if bound.tokens_input is None or bound.tokens_output is None:
        return None
    tokens = sum(bound.tokens_input.values()) + bound.tokens_output
    return tokens if tokens <= COUNT_MAX else None


def _bound_of(body: bytes, encoding: str, format_name: str, facts: RequestFacts) -> HoldBound:
    """The bound of a body as it came in."""
    return hold_bound(plain_body(body, encoding) or b"", format_name, facts)


def request_id_of(headers: dict[bytes, bytes], *, default: str) -> str:
    """The caller's X-Request-Id where it is a sane one, else ours."""
    given = headers.get(b"x-request-id", b"")
    return clean_text(given.decode("ascii"), 128) if REQUEST_ID.match(given) else default


class Settlement:
    """An event on its way to the database: the answer that the recorder tells. Several may wait for it, and each of them may
    be cancelled, which takes it from none of the others; the event goes its way."""

    __slots__ = ("_began", "_is_done", "_waiters", "row")

    def __init__(self, row: EventRow) -> None:
        self.row = row
        self._began = time.perf_counter()
        self._is_done = False
        self._waiters: list[asyncio.Future[None]] = []

    async def committed(self) -> EventRow:
        """Wait until the event is durable, or has kept its call waiting for too long."""
        if not self._is_done:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
            metrics.settle_seconds.observe(time.perf_counter() - self._began)
        return self.row

    def done(self) -> bool:
        return self._is_done

    def set_result(self, result: bool, /) -> None:
        self._is_done = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def set_exception(self, exception: Exception, /) -> None:
        log.error("event %s is not committed in time: %s", self.row.id, str(exception) or "it stays queued")
        self.set_result(False)
