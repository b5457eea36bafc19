"""Reading other people's price catalogues: what each says now, in our units, with what could not be understood.

Owns: the two catalogues that are compared (the shipped data of genai-prices, a price map in LiteLLM's form).
Does not own: what is done about a difference (`pricing.compare`, `pricing.proposals`). Nothing here changes a price, and
nothing here is imported by a process that rates: a catalogue is a claim, and any entry of it may be wrong or hostile.
"""

from decimal import Decimal
from typing import Any, Self

import msgspec

from pricing.conditions import Conditions
from pricing.money import EXACT, round_amount
from pricing.units import is_billable, is_token

PER_TOKENS = 1_000_000
PER_UNITS = 1_000
MODEL_LENGTH_MAX = 200
# Beyond these a price is a slip of the pen or worse: the dearest tokens sold cost 600 dollars per million.
TOKENS_PRICE_MAX = Decimal(10_000)  # USD per 1,000,000 tokens
UNITS_PRICE_MAX = Decimal(100_000)  # USD per 1,000 units


class SourceUnreadable(ValueError):
    """A catalogue as a whole cannot be read; the message says which and why. Nothing was compared with it."""


class ImplausiblePrice(ValueError):
    """What a catalogue states is no price: negative, not finite, absurdly high, of nothing that we know."""


class SourcePrice(Conditions, frozen=True, kw_only=True):
    """The price that one catalogue states for one bucket of one model under some conditions, in USD."""

    provider: str
    model: str
    bucket: str
    price: Decimal  # of `per`
    per: int

    @property
    def line(self) -> "Line":
        """What it prices."""
        conditions = Conditions(**{name: getattr(self, name) for name in Conditions.__struct_fields__})
        return Line(self.provider, self.model, self.bucket, conditions)

    @classmethod
    def of(cls, provider: str, model: str, bucket: str, price: Decimal, per: int, **conditions: Any) -> Self:
        """`price` for `per` of them, brought to our `per`. Raises ImplausiblePrice."""
        if not is_billable(bucket):
            raise ImplausiblePrice(f"{bucket} is nothing that can be billed")
        if not price.is_finite() or price < 0:
            raise ImplausiblePrice(f"{bucket} = {price} is no price")
        our_per, most = (PER_TOKENS, TOKENS_PRICE_MAX) if is_token(bucket) else (PER_UNITS, UNITS_PRICE_MAX)
        ours = EXACT.divide(EXACT.multiply(price, Decimal(our_per)), Decimal(per)).normalize(EXACT)
        if ours > most:
            raise ImplausiblePrice(f"{bucket} = {ours} per {our_per:,} is too much to be true")
        if ours != round_amount(ours):
            raise ImplausiblePrice(f"{bucket} = {ours:.15} … per {our_per:,} has more than 12 decimal places")
        return cls(provider=provider, model=model, bucket=bucket, price=ours, per=our_per, **conditions)


class Line(msgspec.Struct, frozen=True):
    """What has one price at a time: a bucket of a model under conditions."""

    provider: str
    model: str
    bucket: str
    conditions: Conditions


class SourceCatalogue(msgspec.Struct, frozen=True):
    """One catalogue as it is now."""

    name: str
    version: str
    prices: dict[Line, SourcePrice]
    models: frozenset[tuple[str, str]]  # (provider, model) that it lists, with a price or without
    problems: tuple[str, ...]  # entries that were left out, each with its reason


def collect(name: str, version: str, models: frozenset[tuple[str, str]], found: Any) -> SourceCatalogue:
    """The catalogue of what `found` yields: prices, or the reasons why there is none. Two prices for one line are none."""
    prices: dict[Line, SourcePrice] = {}
    problems: list[str] = []
    twice: set[Line] = set()
    for item in found:
        if isinstance(item, str):
            problems.append(item)
        elif prices.setdefault(line := item.line, item).price != item.price:
            twice.add(line)
    for line in sorted(twice, key=str):
        problems.append(f"{line.provider}/{line.model}: {line.bucket} has two prices")
        del prices[line]
    return SourceCatalogue(name, version, prices, models, tuple(problems))
