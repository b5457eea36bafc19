"""`POST /v1/usage/check` in front of Django, for whoever asks with a customer's key before each call. The plan and its limits
come from the gate's snapshot; usage and credits from the database, as they are just now."""

import logging
from datetime import datetime
from typing import Any

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from billing.admission import BillingGate, key_in
from billing.bodies import decoded
from billing.check import Caller, CheckBody, verdict
from billing.features import canonical
from billing.problems import Refused, forbidden
from metering.gate import Account
from metering.ids import uuid7
from metering.limits import applying
from metering.meter import request_id_of
from metering.problem import Refusal, invalid_request, metering_unavailable, problem_response
from pricing import clock
from pricing.pricelist import CurrentCard

log = logging.getLogger("billing.check")

PATH = "/v1/usage/check"
BODY_BYTES_MAX = 64 * 1024
_encode = msgspec.json.Encoder(decimal_format="string").encode


class UsageCheck:
    """Answers keys; whoever comes with a token of an operator or with a session is passed on."""

    def __init__(self, gate: BillingGate, card: CurrentCard, otherwise: ASGIApp) -> None:
        self._gate, self._card, self._otherwise = gate, card, otherwise

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST" or key_in(scope["headers"]) is None:
            return await self._otherwise(scope, receive, send)
        try:
            document = await self._check(scope, await _body(receive), clock.now())
        except Refused as refused:
            await _refuse(scope, send, refused.refusal)
        else:
            await _send(send, 200, [(b"content-type", b"application/json")], _encode(document))

    async def _check(self, scope: Scope, raw: bytes, at: datetime) -> dict[str, Any]:
        """The answer's document. Raises Refused."""
        account = await self._gate.account_of(scope["headers"], at)
        if isinstance(account, Refusal):
            raise Refused(account)
        body = decoded(raw, CheckBody)
        problem = body.problem()
        if problem is not None:
            raise Refused(problem)
        limits = applying(account.limits, canonical(body.feature), body.user_id)
        standing = await self._gate.standing(account, limits)
        if standing is None:
            raise Refused(metering_unavailable(detail="Usage cannot be read just now."))
        if body.customer not in ("", str(account.customer_id), standing.external_id):
            raise forbidden(f"{body.customer!r} is not a customer of yours.")
        rooms = list(zip(limits, standing.rooms, strict=True))
        return verdict(_caller(account), rooms, standing.free, body, self._card.card, at)


def _caller(account: Account) -> Caller:
    return Caller(
        currency=account.currency,
        list_book=account.list_book,
        is_active=True,  # who is not has been refused
        hard_credits=account.hard_limit,
        blocks_unpriced=account.blocks_unpriced,
    )


async def _body(receive: Receive) -> bytes:
    """The request's body. Raises Refused."""
    body: bytes = b""
    while True:
        message: Message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > BODY_BYTES_MAX:
            raise Refused(
                msgspec.structs.replace(
                    invalid_request(f"The body is longer than {BODY_BYTES_MAX} bytes."), status=413
                )
            )
        if not message.get("more_body", False):
            return body


async def _refuse(scope: Scope, send: Send, refusal: Refusal) -> None:
    request_id = request_id_of(dict(scope["headers"]), default=uuid7().hex)
    status, headers, body = problem_response(refusal, request_id)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _send(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    headers = [*headers, (b"content-length", b"%d" % len(body)), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
