"""The least of a meter: marks each request as a metered call, as the middleware does, and keeps the calls."""

from datetime import UTC, datetime

from starlette.types import ASGIApp, Receive, Scope, Send

from metering.call import Call
from metering.estimate import RequestFacts
from metering.gate import Account
from metering.ids import NIL, uuid7
from metering.record_usage import SCOPE_KEY
from metering.routes import Route
from pricing.usage import Usage

START, END = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 12, 1, tzinfo=UTC)


class Metered:
    """Wraps the gateway; `calls` holds what came through it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.calls: list[Call] = []

    @property
    def reported(self) -> Usage | None:
        """What the gateway itself said of the latest call."""
        return self.calls[-1].reported

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            call = _call(scope)
            self.calls.append(call)
            scope = {**scope, SCOPE_KEY: call}
        await self._app(scope, receive, send)


def _call(scope: Scope) -> Call:
    account = Account(
        customer_id=NIL, api_key_id=NIL, api_key_hash="", plan="test", currency="USD", period_start=START,
        period_end=END,
    )  # fmt: skip
    return Call(
        id=uuid7(), at=START, route=Route("POST", scope["path"]), account=account, facts=RequestFacts(),
        request_id="req-of-the-meter", endpoint=scope["path"], method="POST",
    )  # fmt: skip
