"""What a price depends on besides the buckets, as it is kept on an event, so that the event can be rated again.

A column holds each of them that was said, and nothing else: the ordinary case is an empty document. An attempt under an
idempotency key also has what its settle decided: `repeat_of`, the event that answered; `key`, the key's hash, where it may
pay; and `charged_before`, what an attempt that was cut short had come to by then (`metering.store.claims`).
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, cast

import msgspec

from metering.rows import EventRow
from pricing.money import decimal_string
from pricing.units import UNITS
from pricing.usage import Quantity, Source, UnknownSide, Usage, UsagePart

_TEXTS = ("service_tier", "speed", "region")


class Terms(msgspec.Struct, frozen=True, gc=False):
    """By whose prices a call is rated, and how much of it its customer pays (`metering.policy`)."""

    cost_book: str = "cost"
    list_book: str = "list"
    free: bool = False  # by a rule of ours the customer pays nothing, whatever was used
    share: Decimal = Decimal(1)  # of the list charge that the customer pays otherwise
    costless: bool = False  # by a rule the provider charges nothing
    served_only: bool = False  # of several models, the customer pays the one that gave the answer


ORDINARY = Terms()


def context_of(usage: Usage, terms: Terms = ORDINARY) -> dict[str, Any]:
    """The document kept on the event."""
    context: dict[str, Any] = {}
    if terms != ORDINARY:
        context["terms"] = {
            name: value
            for name, value in msgspec.structs.asdict(terms).items()
            if value != getattr(ORDINARY, name)
        }
    for name in _TEXTS:
        value = getattr(usage, name)
        if value is not None:
            context[name] = value
    if usage.batch:
        context["batch"] = True
    if usage.byok:
        context["byok"] = True
    if usage.parts:
        context["parts"] = [_part(part) for part in usage.parts]
    if usage.rules:
        context["rules"] = list(usage.rules)
    if usage.reported_cost is not None:
        context["reported_cost"] = decimal_string(usage.reported_cost)
    return context


def usage_of(event: EventRow) -> Usage:
    """The usage that was rated when the event was made, as far as a price can depend on it."""
    context = event.context
    source = cast(Source, event.usage_source)
    return Usage(
        buckets=_quantities(event.buckets),
        provider=event.provider,
        model_requested=event.model_requested or None,
        model_served=event.model or None,
        parts=tuple(
            UsagePart(
                _quantities(part["buckets"]),
                part.get("model", ""),
                part.get("provider", ""),
                part.get("kind", ""),
            )
            for part in context.get("parts", ())
        ),
        source=source,
        consistency=event.consistency,
        rules=tuple(context.get("rules", ())),
        extractor=event.extractor,
        unknown_sides=_unknown_sides(event),
        reported_cost=_amount(context.get("reported_cost")),
        service_tier=context.get("service_tier"),
        speed=context.get("speed"),
        region=context.get("region"),
        batch=bool(context.get("batch")),
        byok=bool(context.get("byok")),
    )


def terms_of(event: EventRow) -> Terms:
    """The terms on which the event was rated when it was made. A repeat is free; what other attempts under the key of one
    that may pay leave of its charge is no term (`metering.keyed`)."""
    context = event.context
    terms = msgspec.convert(context.get("terms", {}), Terms)
    if "repeat_of" in context:
        return msgspec.structs.replace(terms, free=True)
    return terms


def _part(part: UsagePart) -> dict[str, Any]:
    said = {"kind": part.kind, "model": part.model, "provider": part.provider}
    return {**{name: value for name, value in said.items() if value}, "buckets": part.buckets}


def _quantities(buckets: Mapping[str, Any]) -> dict[str, Quantity]:
    """A document that had to be mended or cut when it was stored may hold what is no quantity."""
    found: dict[str, Quantity] = {}
    for name, value in buckets.items():
        if type(value) is int:
            found[name] = value
        elif name in UNITS:  # a fraction is stored as text, which keeps it exact
            fraction = _amount(value)
            if fraction is not None and fraction.is_finite():
                found[name] = fraction
    return found


def _unknown_sides(event: EventRow) -> tuple[UnknownSide, ...]:
    sides: tuple[tuple[UnknownSide, int | None], ...] = (
        ("input", event.tokens_input),
        ("output", event.tokens_output),
    )
    return tuple(side for side, tokens in sides if tokens is None)


def _amount(text: Any) -> Decimal | None:
    try:
        return Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        return None
