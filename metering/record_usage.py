"""`record_usage`: the application says itself what a call used. It wins over whatever could be read from the answer."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from metering.call import Call
from metering.extract import usage_from_mapping
from pricing.usage import Source, UnknownSide, Usage

SCOPE_KEY = "tollgate.call"


def record_usage(
    request: Any,
    *,
    tokens_input: int | None = None,
    tokens_output: int | None = None,
    buckets: Mapping[str, int] | None = None,
    usage: Mapping[str, Any] | None = None,
    model: str | None = None,
    provider: str | None = None,
    feature: str | None = None,
    quantity: int | Decimal | None = None,
    execution_id: str | None = None,
    task_type: str | None = None,
    metadata: dict[str, Any] | None = None,
    cache_hit: bool = False,
) -> bool:
    """Say what the call behind `request` (a Django or Starlette request, or an ASGI scope) used.

    Give one of: `usage`, a provider's usage object of any known shape; `buckets`, disjoint quantities by unit; or
    `tokens_input` and `tokens_output`. An explicit 0 is 0; what is not given is unknown. The last word before the answer
    is complete counts. True when the call is metered, False when it is not (then nothing happens). Raises ValueError for
    a counter that is not a whole number of at least 0 and for a quantity below 0.

    `cache_hit`: the answer is from a cache of the application's own, so that it costs nothing; the customer pays the share
    that WHO_PAYS says. Without any usage beside it, the usage is read from the answer as ever.
    """
    if quantity is not None and not (Decimal(quantity).is_finite() and quantity >= 0):
        raise ValueError(f"quantity must be a finite number of at least 0, not {quantity!r}")
    call = call_of(request)
    if call is None or call.ended:
        return False
    call.cached = cache_hit
    said = (tokens_input, tokens_output, buckets, usage, model, provider, feature, quantity)
    said_more = (execution_id, task_type, metadata)
    if cache_hit and all(value is None for value in (*said, *said_more)):
        call.reported = None
        return True
    read = _read(call, tokens_input, tokens_output, buckets, usage, provider)
    call.reported = msgspec.structs.replace(
        read,
        provider=provider or read.provider,
        model_requested=read.model_requested or call.facts.model,
        model_served=model or read.model_served,
        feature=feature,
        quantity=quantity,
        execution_id=execution_id,
        task_type=task_type,
        metadata=metadata,
    )
    return True


def call_of(request: Any) -> Call | None:
    """The metered call behind a request or an ASGI scope; None when it is not metered."""
    if isinstance(request, Mapping) or hasattr(request, "__getitem__"):
        scope: Any = request
    else:
        scope = getattr(request, "scope", None)
    found = scope.get(SCOPE_KEY) if isinstance(scope, Mapping) else None
    if found is None:
        found = getattr(request, "tollgate_call", None)
    return found if isinstance(found, Call) else None


def _read(
    call: Call,
    tokens_input: int | None,
    tokens_output: int | None,
    buckets: Mapping[str, int] | None,
    usage: Mapping[str, Any] | None,
    provider: str | None,
) -> Usage:
    if usage is not None:
        return usage_from_mapping(usage, call.facts, provider or call.route.provider)
    unknown: tuple[UnknownSide, ...] = ()
    if buckets is None:
        sides = {"in_uncached": tokens_input, "out_visible": tokens_output}
        buckets = {name: count for name, count in sides.items() if count is not None}
        both: tuple[tuple[UnknownSide, int | None], ...] = (
            ("input", tokens_input),
            ("output", tokens_output),
        )
        unknown = tuple(side for side, count in both if count is None)
    for name, count in buckets.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ValueError(f"{name} must be a whole number of at least 0, not {count!r}")
    source: Source = "none" if len(unknown) == 2 else "reported_partial" if unknown else "reported"
    return Usage(
        buckets=dict(buckets),
        provider=call.route.provider,
        source=source,
        unknown_sides=unknown,
        extractor="record_usage/1",
    )
