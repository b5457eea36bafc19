"""Who pays for an answer that did not go as ordinary ones do: what is a rule of the house, and what the operator chooses.

`docs/who-pays.md` tells the customer. Pure; the table is in `metering.call`.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal

import msgspec

from metering.context import Terms
from metering.estimate import RequestFacts
from metering.rows import Status
from pricing.usage import Usage

ZERO, ONE = Decimal(0), Decimal(1)
Outcome = Literal["used", "answered", "refused", "failed", "unanswered", "cut"]


class InvalidPolicy(ValueError):
    """A choice that cannot be used; the message names it."""


class WhoPays(msgspec.Struct, frozen=True):
    """What the operator chooses: shares of the list charge that the customer pays, from 0 to 1, and what a call that
    several models served costs. What is not paid for in full counts as a call by the same share."""

    unanswered: Decimal = (
        ZERO  # of the estimated input, where nothing of the answer had come when the call ended
    )
    after_error: Decimal = ONE  # of what had come when the answer broke off on our side
    cached: Decimal = ZERO  # of an answer that the application took from its own cache
    parts: Literal["sum", "served"] = "sum"  # every model at its own prices, or the one that gave the answer

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> "WhoPays":
        """From TOLLGATE["WHO_PAYS"]. Raises InvalidPolicy for an unknown name, a share that is no number from 0 to 1 (text,
        whole number or Decimal; a binary fraction is none), and a rule that does not exist."""
        unknown = sorted(set(options) - set(cls.__struct_fields__))
        if unknown:
            raise InvalidPolicy(f"{unknown[0]!r} is none of {', '.join(cls.__struct_fields__)}")
        shares = {name: _share(name, value) for name, value in options.items() if name != "parts"}
        parts = options.get("parts", "sum")
        if parts not in ("sum", "served"):
            raise InvalidPolicy(f"parts={parts!r} is neither 'sum' nor 'served'")
        return cls(parts=parts, **shares)


def outcome_of(
    usage: Usage, status: Status, status_code: int | None, *, begun: bool, complete: bool
) -> Outcome:
    """What became of a call. `begun`: a byte of the answer had come; `complete`: all of it had."""
    if usage.source != "none":
        return "used"
    if status_code is not None and status_code >= 400:
        return "refused" if status_code < 500 else "failed"
    if not complete and status == "client_disconnected" and begun:
        return "cut"
    if not complete and status in ("client_disconnected", "interrupted"):
        return "unanswered"
    return "failed" if status in ("error", "timeout") or status_code is None else "answered"


def terms_for(
    books: Terms, outcome: Outcome, status: Status, policy: WhoPays, *, cached: bool, parts: bool
) -> Terms:
    """The terms of a call that is not the ordinary one."""
    share = ONE
    if outcome in ("refused", "failed"):
        share = ZERO
    elif outcome == "unanswered":
        share = policy.unanswered
    elif cached:
        share = policy.cached
    elif outcome == "used" and status in ("error", "interrupted"):
        share = policy.after_error
    return msgspec.structs.replace(
        books,
        free=not share,
        share=share or ONE,
        costless=cached or outcome == "refused",
        served_only=parts and policy.parts == "served",
    )


def asked_for(facts: RequestFacts, provider: str) -> Usage:
    """The usage of a call of which nobody will say what it used: its input as estimated, its output unknown."""
    if not facts.readable:
        return Usage(buckets={}, source="none", provider=provider, model_requested=facts.model)
    return Usage(
        buckets={"in_uncached": facts.tokens_input_estimate}, provider=provider, model_requested=facts.model,
        source="estimated", unknown_sides=("output",), extractor="request/1",
    )  # fmt: skip


def _share(name: str, value: Any) -> Decimal:
    try:
        share = Decimal(value) if isinstance(value, (str, int, Decimal)) else None
    except InvalidOperation:
        share = None
    if share is None or not share.is_finite() or not 0 <= share <= 1:
        raise InvalidPolicy(f"{name}={value!r} is no number from 0 to 1, as text or Decimal")
    return share
