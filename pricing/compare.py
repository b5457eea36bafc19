"""Our rates beside what the catalogues state: what is confirmed, and what differs. Pure.

A difference is a finding and never a change. `guard` says why a finding may not be applied without a person's approval,
whatever the policy is; it is empty only where several catalogues state one and the same modest change.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Literal

import msgspec

from pricing.money import EXACT, decimal_string, round_amount
from pricing.sources import Line, SourceCatalogue
from pricing.units import rate_candidates

Kind = Literal["new", "changed", "disagreement", "withdrawn"]

AGREEING_MIN = 2  # one catalogue alone is a claim, whoever keeps it
# A catalogue that differs from us in more of a provider's prices than this share has been broken, or we have.
MASS_CHANGE_SHARE = Decimal("0.25")
MASS_CHANGE_MIN = 20  # lines; below it a share says nothing

ANCHOR_DAYS = 30  # how far back the price lies that a change is measured against

Statements = tuple[tuple[str, str, Decimal], ...]  # (catalogue, its version, the price that it states)


class OurPrice(msgspec.Struct, frozen=True):
    """A rate of ours that is in force."""

    rate_id: int
    price: Decimal
    per: int
    anchor: Decimal  # the price that the line had a while ago: many small changes are one large one
    scheduled: Decimal | None = None  # the price that follows, where one is dated already


class Finding(msgspec.Struct, frozen=True):
    """One difference. `price` is None where there is none to propose: the catalogues disagree, or say nothing any more."""

    kind: Kind
    line: Line
    price: Decimal | None  # of `per`, as our rates count
    per: int
    ours: OurPrice | None
    statements: Statements
    change_percent: Decimal | None = None  # against our price; None where we have none, or it is 0
    guard: str = ""


class Comparison(msgspec.Struct, frozen=True):
    """What came of comparing."""

    findings: tuple[Finding, ...]
    confirmed: int  # lines whose price every catalogue that states one confirms


class Guard(msgspec.Struct, frozen=True):
    """How much may change without a person. All amounts are percent."""

    change_max: Decimal = Decimal(10)
    takes_new: bool = False  # may prices of lines that have none be taken over


def compare(
    ours: Mapping[Line, OurPrice],
    sources: Iterable[SourceCatalogue],
    canonical: Callable[[str, str], str],
    followed: frozenset[str],
    guard: Guard,
) -> Comparison:
    """Every difference between `ours` and the sources in the providers that are `followed`.

    `canonical(provider, model)` is our name of a model that a source may call otherwise.
    """
    stated, listed = _statements(sources, canonical, followed)
    findings: list[Finding] = []
    confirmed = 0
    for line, (per, statements) in stated.items():
        found = _finding(ours, line, per, statements)
        if found is None:
            confirmed += 1
        else:
            findings.append(found)
    findings += _withdrawn(ours, listed)
    alarmed = _broken(stated, findings)
    return Comparison(
        tuple(msgspec.structs.replace(found, guard=_guard(found, guard, alarmed)) for found in findings),
        confirmed,
    )


def _statements(
    sources: Iterable[SourceCatalogue], canonical: Callable[[str, str], str], followed: frozenset[str]
) -> tuple[dict[Line, tuple[int, Statements]], dict[str, set[str]]]:
    """What is stated for each line, and which models of each provider are listed at all, both by our names.

    A source may state a line twice, by two names of one model. Where both say the same that is one statement; where they
    do not, the source contradicts itself, and both are kept: a disagreement.
    """
    stated: dict[Line, tuple[int, Statements]] = {}
    listed: dict[str, set[str]] = defaultdict(set)
    for source in sources:
        for provider, model in source.models:
            if provider in followed:
                listed[provider].add(canonical(provider, model))
        for price in source.prices.values():
            if price.provider not in followed:
                continue
            line = price.line
            line = msgspec.structs.replace(line, model=canonical(line.provider, line.model))
            statement = (source.name, source.version, price.price)
            _, others = stated.get(line, (price.per, ()))
            if statement not in others:
                stated[line] = (price.per, (*others, statement))
    return stated, listed


def _finding(ours: Mapping[Line, OurPrice], line: Line, per: int, statements: Statements) -> Finding | None:
    own_line, own = _own(ours, line)
    prices = {price for _, _, price in statements}
    if own is None:
        fallback = _fallback(ours, line)
        if fallback is not None and all(_same(fallback, price, per) for price in prices):
            return None
    elif all(_same(own, price, per) for price in prices) or _is_scheduled(own, prices, per):
        return None
    if len(prices) > 1:
        return Finding("disagreement", own_line, None, per, own, statements)
    price = next(iter(prices))
    if own is None:
        return Finding("new", line, price, per, None, statements)
    # A rate goes on counting as it did: its successor has the same `per`.
    price = EXACT.divide(EXACT.multiply(price, Decimal(own.per)), Decimal(per))
    return Finding("changed", own_line, price, own.per, own, statements, _percent(own.price, price))


def _own(ours: Mapping[Line, OurPrice], line: Line) -> tuple[Line, OurPrice | None]:
    """Our rate for a line. What is written into a cache without a time to live is kept for five minutes."""
    if line not in ours and line.bucket == "in_cache_write_unknown":
        short = msgspec.structs.replace(line, bucket="in_cache_write_5m")
        if short in ours:
            return short, ours[short]
    return line, ours.get(line)


def _fallback(ours: Mapping[Line, OurPrice], line: Line) -> OurPrice | None:
    """The rate that prices a line which has none of its own, under the same conditions."""
    for bucket in rate_candidates(line.bucket):
        found = ours.get(msgspec.structs.replace(line, bucket=bucket))
        if found is not None:
            return found
    return None


def _same(own: OurPrice, price: Decimal, per: int) -> bool:
    return EXACT.multiply(own.price, Decimal(per)) == EXACT.multiply(price, Decimal(own.per))


def _is_scheduled(own: OurPrice, prices: set[Decimal], per: int) -> bool:
    """Whether what is stated is what our line will cost anyway."""
    if own.scheduled is None:
        return False
    later = msgspec.structs.replace(own, price=own.scheduled)
    return all(_same(later, price, per) for price in prices)


def _percent(before: Decimal, after: Decimal) -> Decimal | None:
    if not before:
        return None
    share = EXACT.divide(EXACT.subtract(after, before), before)
    return round_amount(EXACT.multiply(share, Decimal(100)))


def _is_beyond(before: Decimal, after: Decimal, percent: Decimal) -> bool:
    """Whether the change is larger than so many percent; exact, where the shown percentage is rounded."""
    change = EXACT.subtract(after, before).copy_abs()
    return EXACT.multiply(change, Decimal(100)) > EXACT.multiply(before, percent)


def _withdrawn(ours: Mapping[Line, OurPrice], listed: Mapping[str, set[str]]) -> list[Finding]:
    """Rates of models that no catalogue lists any more, where one lists that provider."""
    return [
        Finding("withdrawn", line, None, own.per, own, ())
        for line, own in ours.items()
        if line.provider in listed and line.model not in listed[line.provider]
    ]


def _broken(
    stated: Mapping[Line, tuple[int, Statements]], findings: Iterable[Finding]
) -> frozenset[tuple[str, str]]:
    """(catalogue, provider) of which so much differs at once that none of it can be trusted."""
    lines: Counter[tuple[str, str]] = Counter()
    differ: Counter[tuple[str, str]] = Counter()
    for line, (_, statements) in stated.items():
        lines.update((source, line.provider) for source, _, _ in statements)
    for found in findings:
        if found.ours is not None:
            differ.update((source, found.line.provider) for source, _, _ in found.statements)
    return frozenset(
        key
        for key, count in differ.items()
        if lines[key] >= MASS_CHANGE_MIN and Decimal(count) > MASS_CHANGE_SHARE * lines[key]
    )


def _guard(found: Finding, guard: Guard, broken: frozenset[tuple[str, str]]) -> str:
    """Why a person must approve this; "" when none need to."""
    if found.kind == "disagreement":
        return "the catalogues disagree"
    if found.kind == "withdrawn":
        return "no catalogue lists the model any more"
    sources = {source for source, _, _ in found.statements}
    if len(sources) < AGREEING_MIN:
        return f"only {next(iter(sources))} says so"
    if suspicious := sorted(source for source in sources if (source, found.line.provider) in broken):
        return f"{suspicious[0]} differs in more than a quarter of the provider's prices"
    if not found.price:
        return "a price of 0"
    if found.ours is None:
        return "" if guard.takes_new else "a price where we have none"
    if _is_beyond(found.ours.anchor, found.price, guard.change_max):
        return (
            f"a change of more than {decimal_string(guard.change_max)} % within the last {ANCHOR_DAYS} days"
        )
    return ""
