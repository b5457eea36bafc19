"""A customer who must not use what has no price: its calls are refused before they go out."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from metering.gate import Account, Headers, OpenGate
from metering.problem import Refusal
from pricing.pricelist import Rate, RateCard
from tests.metering.asgi import Bench, answering, exchange
from tests.metering.rows import NOON

ANSWER = json.dumps(
    {"model": "gpt-5-mini", "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}}
).encode()


class Strict(OpenGate):
    """Admits no call to a model that the customer's own book has no rate for."""

    list_book = "list"

    async def resolve(self, headers: Headers, at: datetime) -> Account | Refusal:
        account = await super().resolve(headers, at)
        assert isinstance(account, Account)
        return msgspec.structs.replace(account, blocks_unpriced=True, list_book=self.list_book)


def asking(model: Any, **values: Any) -> bytes:
    return json.dumps({"model": model, **values} if model else values).encode()


def sent(body: bytes, gate: OpenGate | None = None, **options: Any) -> Any:
    done = exchange(Bench(answering(ANSWER), gate=gate or Strict()), body, **options)
    return (
        done.status,
        (json.loads(done.content).get("code") if done.status != 200 else None),
        len(done.bench.store.events),
    )


ADMITTED, REFUSED = (200, None, 1), (403, "model_not_priced", 0)


def test_a_model_with_a_price_is_admitted_and_one_without_is_not() -> None:
    assert sent(asking("gpt-5-mini")) == ADMITTED
    assert sent(asking("gpt-99")) == REFUSED
    assert sent(asking("gpt-99"), OpenGate()) == ADMITTED


def test_the_refusal_names_the_model_and_asks_for_no_repeat() -> None:
    done = exchange(Bench(answering(ANSWER), gate=Strict()), asking("gpt-99"))
    assert "'gpt-99'" in json.loads(done.content)["detail"]
    assert json.loads(done.content)["error"]["code"] == "model_not_priced"
    assert done.headers["x-should-retry"] == "false"
    assert done.bench.store.holds == {}, "refused before a hold was written"


def test_the_customers_own_book_decides() -> None:
    class OfAnotherBook(Strict):
        list_book = "vip"

    assert sent(asking("gpt-5-mini"), OfAnotherBook()) == REFUSED


def test_a_built_in_model_is_priced_on_every_route() -> None:
    assert sent(asking("demo-small")) == ADMITTED


def test_a_price_that_begins_later_or_has_ended_is_none() -> None:
    bench = Bench(answering(ANSWER), gate=Strict())
    rate = Rate(
        id=1, book="list", provider="openai", model="gpt-5-mini", bucket="in_uncached", price=Decimal(1), per=1_000_000,
        currency="USD", effective_from=datetime(2025, 1, 1, tzinfo=UTC), effective_to=NOON,
    )  # fmt: skip
    bench.meter.card.card = RateCard.compile([rate], {}, version=2)
    assert exchange(bench, asking("gpt-5-mini")).status == 403
    later = msgspec.structs.replace(rate, effective_from=NOON, effective_to=NOON + timedelta(days=1))
    bench.meter.card.card = RateCard.compile([later], {}, version=3)
    bench.recorder.start()
    assert exchange(bench, asking("gpt-5-mini")).status == 200


@pytest.mark.parametrize("body", [b"", asking(None, messages=[])])
def test_a_request_that_names_no_model_leaves_the_choice_to_the_application(body: bytes) -> None:
    assert sent(body, path="/v1/execute") == ADMITTED


@pytest.mark.parametrize(("body", "headers"), [
    (b"not JSON", {}),
    (gzip.compress(asking("gpt-5-mini"), mtime=0)[:20], {"content-encoding": "gzip"}),
    (asking("gpt-99"), {"content-encoding": "zstd-of-a-kind"}),
])  # fmt: skip
def test_a_request_that_cannot_be_read_could_name_any_model(body: bytes, headers: dict[str, str]) -> None:
    assert sent(body, headers=headers) == REFUSED


def test_a_request_that_is_too_long_to_be_read_could_name_any_model() -> None:
    bench = Bench(answering(ANSWER), gate=Strict(), request_bytes_max=100)
    assert exchange(bench, asking("gpt-5-mini", input="x" * 200)).status == 403


def test_prices_that_were_never_loaded_are_no_reason_to_say_that_there_are_none() -> None:
    bench = Bench(answering(ANSWER), gate=Strict())
    bench.meter.card.card = RateCard.empty()
    done = exchange(bench, asking("gpt-5-mini"))
    assert (done.status, json.loads(done.content)["code"]) == (503, "metering_unavailable")
    assert done.headers["retry-after"] == "1"


def test_a_price_in_another_currency_is_no_price() -> None:
    in_euros = Strict(currency="EUR")
    assert sent(asking("gpt-5-mini"), in_euros) == REFUSED
