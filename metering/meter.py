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
from metering.clean import TEXT_LIMITS, clean_text
from metering.drains import Drains
from metering.estimate import RequestFacts, read_request
from metering.extract import WireFormat, provider_of, read_header, wire_format
from metering.gate import Account, Gate
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
from metering.weighing import UNBOUND, Request, Room, Scales
from pricing.pricelist import CurrentCard
from pricing.usage import Usage

log = logging.getLogger("metering.meter")

NOTHING = Usage(buckets={}, source="none")
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}\Z")
CAPS_MAX = 5  # attempts to let a call out with less, before it is refused
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
        self.scales = Scales(card)
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
        most, request = UNBOUND, None
        if account.hard_limit or account.limits:
            encoding = wanted.get(b"content-encoding", b"").decode("latin-1")
            request = Request(route, account, facts, body or b"", encoding, at)
            weighed = await self.scales.most(request)
            if isinstance(weighed, Refusal):
                return self._refused(weighed)
            most = weighed
        call_id = uuid7(at)
        call = Call(
            id=call_id, at=at, route=route, account=account, facts=facts,
            request_id=request_id_of(wanted, default=call_id.hex),
            endpoint=path, method=method,
            user_id=wanted.get(b"x-end-user", b"").decode("utf-8", "replace") or facts.user_id or "",
            policy=self.policy,
        )  # fmt: skip
        if most is not UNBOUND:
            call.weighs(most.charge, most.tokens)
        key = wanted.get(KEY_HEADER)
        if key:
            call.key = key.decode("utf-8", "replace")
            call.claim = claim_of(
                key, method=method, path=path, query=query, body=body,
                content_type=b",".join(value for name, value in headers if name == b"content-type"),
            )  # fmt: skip
        short = await self._hold(call)
        if short is not None and request is not None and short.measure and account.when_short == "cap":
            short = await self._capped(call, request, short)
        return call if short is None else self._refused(short.refusal)

    async def _hold(self, call: Call) -> "Short | None":
        """Commit the hold; or what is short of it, with the refusal to send."""
        started = time.perf_counter()
        row = call.hold()
        try:
            admitted = await self.recorder.hold(row, spools=call.account.outage == "open")
        except RecorderUnavailable as error:
            log.error("call refused, its hold cannot be recorded: %s", error)
            return Short(metering_unavailable())
        except KeyConflict:
            return Short(idempotency_conflict())
        except LimitExceeded as error:
            measure = error.limit.measure
            return Short(
                error.limit.refusal(call.at), measure if measure in ("charge", "tokens") else "", error.room
            )
        metrics.hold_seconds.observe(time.perf_counter() - started)
        if admitted:
            return None
        contribution = self.gate.hold([row])
        refusal = contribution.refusal if contribution and contribution.refusal else credits_do_not_cover()
        return Short(refusal, "credits")

    async def _capped(self, call: Call, request: Request, short: "Short") -> "Short | None":
        """Let the call go out with its output limited to what there is room for; what is short of it where that cannot be.
        The database decides each time, so nobody gets beyond what there is: another call may have taken it meanwhile."""
        first, room = short, Room()
        for _ in range(CAPS_MAX):
            room = room.less(await self._room(call, short))
            capped = await self.scales.capped(request, room)
            if capped is None:
                return first
            call.cap(capped.body, capped.max_tokens)
            call.weighs(capped.most.charge, capped.most.tokens)
            again = await self._hold(call)
            if again is None:
                return None
            if not again.measure:
                return again
            short = again
        return first

    async def _room(self, call: Call, short: "Short") -> Room:
        """What there is room for under the limit that was in the way."""
        if short.measure == "tokens":
            return Room(tokens=short.room)
        if short.measure == "charge":
            return Room(charge=short.room)
        return Room(charge=await self.gate.free(call.account) or ZERO)

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
        if self.scales.knows_no_prices:
            return metering_unavailable(detail="The prices are not loaded yet.")
        return model_not_priced(f"The plan admits no model without a price: {facts.model!r}.")

    def _facts(self, route: Route, path: str, body: bytes, headers: dict[bytes, bytes]) -> RequestFacts:
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        model = self.routes.model_in(route, path)
        if model is not None:
            model = clean_text(model, TEXT_LIMITS["model"])
        return read_request(body, self.format_of(route), encoding, path_model=model)

    def _refused(self, refusal: Refusal) -> Refusal:
        metrics.gate_refusals.labels(refusal.code).inc()
        return refusal


class Short(NamedTuple):
    """Why a call was not admitted. `measure`: what there is too little of, "credits", "charge" or "tokens"; "" where less would
    not help. `room`: how much there is."""

    refusal: Refusal
    measure: str = ""
    room: Decimal | None = None


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
