"""Rates and cards to test with."""

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from pricing.pricelist import Rate, RateCard

START = datetime(2026, 1, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)


def usd(price: str, per: int = 1_000_000) -> Decimal:
    """The price of a single one."""
    return Decimal(price) / per


def rate(price: str, bucket: str = "in_uncached", **given: Any) -> Rate:
    """One rate of acme's `large` in the book `list`, USD per 1,000,000 since START, with what is given instead."""
    known: dict[str, Any] = {
        "id": 1, "book": "list", "provider": "acme", "model": "large", "per": 1_000_000, "currency": "USD",
        "effective_from": START,
    }  # fmt: skip
    return Rate(**{**known, "bucket": bucket, "price": Decimal(price), **given})


def rates(
    prices: Mapping[str, str], *, model: str = "large", provider: str = "acme", book: str = "cost", first_id: int = 1,
    start: datetime = START, end: datetime | None = None, input_above: int = 0, **conditions: Any,
) -> list[Rate]:  # fmt: skip
    """One rate for each bucket, with ids that count up from `first_id`; prices are USD per 1,000,000."""
    return [
        rate(
            price, bucket, id=first_id + index, book=book, provider=provider, model=model,
            effective_from=start, effective_to=end, input_above=input_above, **conditions,
        )
        for index, (bucket, price) in enumerate(prices.items())
    ]  # fmt: skip


def card(prices: Mapping[str, str], *, also: Mapping[str, Mapping[str, str]] | None = None) -> RateCard:
    """A card with acme's `large`, and `also` others of acme's models."""
    others = (rates(found, model=model, first_id=100) for model, found in (also or {}).items())
    return RateCard.compile([*rates(prices), *(rate for found in others for rate in found)], {}, version=1)
