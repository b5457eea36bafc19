"""A rate card in memory with the models that the benchmarks call."""

from datetime import UTC, datetime
from decimal import Decimal

import msgspec

from pricing.pricelist import Rate, RateCard
from pricing.sources.genai_catalogue import read_genai_catalogue

# US dollars for a million tokens: uncached input, cache read, cache writes, output.
PER_MILLION = {
    ("openai", "gpt-5-mini"): {"in_uncached": "0.25", "in_cache_read": "0.025", "out_visible": "2"},
    ("anthropic", "claude-sonnet-4-5"): {
        "in_uncached": "3", "in_cache_read": "0.3", "in_cache_write_5m": "3.75", "in_cache_write_1h": "6", "out_visible": "15",
    },
    ("openai", "text-embedding-3-small"): {"in_uncached": "0.02"},
}  # fmt: skip


def bench_card() -> RateCard:
    """Book `cost` at these prices, book `list` at 1.2 times."""
    rates: list[Rate] = []
    for book, factor in (("cost", Decimal(1)), ("list", Decimal("1.2"))):
        for (provider, model), prices in PER_MILLION.items():
            for bucket, price in prices.items():
                rates.append(
                    Rate(
                        id=len(rates) + 1, book=book, provider=provider, model=model, bucket=bucket,
                        price=Decimal(price) * factor, per=1_000_000, currency="USD",
                        effective_from=datetime(2025, 1, 1, tzinfo=UTC), effective_to=None,
                    )
                )  # fmt: skip
    return RateCard.compile(rates, {}, version=1)


def catalogue_rates(at: datetime) -> list[Rate]:
    """Every price of a public catalogue, of more than 2,000 models, in the books `cost` and `list`."""
    since = datetime(2025, 1, 1, tzinfo=UTC)
    prices = [msgspec.structs.asdict(price) for price in read_genai_catalogue(at).prices.values()]
    return [
        Rate(id=number, book=book, currency="USD", effective_from=since, **price)
        for number, (book, price) in enumerate(
            ((book, price) for book in ("cost", "list") for price in prices), start=1
        )
    ]
