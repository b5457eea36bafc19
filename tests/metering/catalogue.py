"""A catalogue for tests: books and rates of the demo models, in the database."""

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from metering.context import ORDINARY, Terms, context_of
from metering.rated import PRICED_COLUMNS, rate_event
from metering.rows import EventRow, HoldRow
from pricing.models import PriceBook, Rate
from pricing.pricelist import RateCard
from pricing.usage import Usage
from tests.metering.rows import NOON, an_event

LONG_AGO = NOON - timedelta(days=300)


def a_rate(
    bucket: str, price: str, *, book: str = "list", model: str = "demo-small", since: datetime = LONG_AGO, until: datetime | None = None
) -> Rate:  # fmt: skip
    """A rate in dollars a million, in a book that is made where there is none."""
    shelf, _ = PriceBook.objects.get_or_create(slug=book, defaults={"name": book})
    rate = Rate(
        book=shelf, provider="demo", model=model, bucket=bucket, price=Decimal(price), per=1_000_000,
        effective_from=since, effective_to=until,
    )  # fmt: skip
    rate.save()
    return rate


def rated_event(
    hold: HoldRow, card: RateCard, usage: Usage | None = None, *, terms: Terms = ORDINARY,
    after: timedelta = timedelta(seconds=1), **values: Any,
) -> EventRow:  # fmt: skip
    """The call settled a second later with 10 tokens in and 5 out, as this card prices them."""
    used = usage or Usage(
        buckets={"in_uncached": 10, "out_visible": 5}, provider=hold.provider, model_served=hold.model
    )
    rated = rate_event(card, used, terms, at=hold.created_at, currency=hold.currency)
    priced = {name: getattr(rated, name) for name in (*PRICED_COLUMNS, "missing")}
    event = an_event(hold, after, **priced)
    return msgspec.structs.replace(
        event, buckets=used.buckets, provider=used.provider, model=used.model, context=context_of(used, terms),
        tokens_input=used.tokens_input, tokens_output=used.tokens_output, tokens_total=used.tokens_total,
        usage_source=used.source, **values,
    )  # fmt: skip
