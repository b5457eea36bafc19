"""What reading an answer costs: extraction and rating per response, and the tap per chunk of a stream.

What it does not show: the gate, the recorder and the network, which stand in the other sections.
"""

import asyncio
import gc
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from genai_prices import calc_price, extract_usage

from benchmarks.answers import CHAT, EMBEDDING, GENERATION, MESSAGE, RESPONSE, STREAM_CHUNK
from benchmarks.figures import Figure, median, percentile
from benchmarks.prices import catalogue_rates
from metering.estimate import read_request
from metering.extract import wire_format
from metering.tap import open_tap
from pricing.pricelist import CurrentCard, Rate, RateCard
from pricing.rating import Charge, rate_usage

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ROUNDS, CALLS = 15, 2_000
RATES_COMPILED = 5_000
SWAPS = 20


class Case(NamedTuple):
    """An answer, and how much faster than genai-prices it is to be read and priced."""

    title: str
    wire_format: str
    provider: str
    flavor: str  # as genai-prices calls the format
    body: bytes
    times: float


CASES = (
    Case("openai chat", "openai_chat", "openai", "chat", CHAT, 12),
    Case("openai responses", "openai_responses", "openai", "responses", RESPONSE, 12),
    Case("anthropic messages", "anthropic_messages", "anthropic", "default", MESSAGE, 12),
    Case("gemini", "gemini_generate", "google", "default", GENERATION, 12),
    Case("openai embeddings", "openai_embeddings", "openai", "embeddings", EMBEDDING, 8),
)
P50_MAX, P99_MAX = 8.0, 20.0  # µs


def measure() -> Iterator[Figure]:
    """Reading and pricing beside genai-prices with a whole catalogue loaded, compiling a card, the tap."""
    rates = catalogue_rates(AT)
    card = RateCard.compile(rates, {}, version=1)
    for case in CASES:
        yield from _extract_and_rate(case, card)
    yield _compile(rates)
    yield from _swap(rates)
    yield _tap()


def _extract_and_rate(case: Case, card: RateCard) -> Iterator[Figure]:
    fmt = wire_format(case.wire_format)
    facts = read_request(b'{"model": "x"}', fmt)

    def ours() -> Charge:
        return rate_usage(card, fmt.read_body(case.body, facts, case.provider), book="cost", at=AT)

    def theirs() -> object:
        found = extract_usage(json.loads(case.body), provider_id=case.provider, api_flavor=case.flavor)
        model = found.model.id if found.model else ""
        return calc_price(found.usage, model, provider_id=case.provider, genai_request_timestamp=AT)

    if ours().status != "priced":  # a figure for an answer that was not priced would say nothing
        raise AssertionError(f"{case.title} has no price: {ours().unpriced}")
    pairs = [(_microseconds(ours, CALLS), _microseconds(theirs, CALLS // 10)) for _ in range(ROUNDS)]
    single = _each(ours, CALLS * 10)
    name = f"extract and rate, {case.title}"
    yield Figure(f"{name}: p50", percentile(single, 0.5), f"µs (goal of {P50_MAX} reported)")
    yield Figure(f"{name}: p99", percentile(single, 0.99), f"µs (goal of {P99_MAX} reported)")
    yield Figure(f"{name}: genai-prices / ours", median([b / a for a, b in pairs]), "ratio", goal=case.times)


def _compile(rates: list[Rate]) -> Figure:
    """A card of so many rates, with every name asked for once: a card works a name out when it is first asked."""
    some = rates[:RATES_COMPILED]
    names = {(rate.book, rate.provider, rate.model) for rate in some}

    def compiled() -> None:
        card = RateCard.compile(some, {}, version=1)
        for book, provider, model in names:
            card.prices_for(book, provider, model, AT)

    took = median([_microseconds(compiled, 1) / 1000 for _ in range(ROUNDS)])
    return Figure(f"rate card of {len(some):,} rates compiled", took, "ms (goal of 250 reported)")


def _swap(rates: list[Rate]) -> Iterator[Figure]:
    """How late the event loop runs while another thread compiles and swaps cards, as it does when prices change."""
    current = CurrentCard(RateCard.compile(rates, {}, version=0))
    fmt = wire_format("openai_chat")
    facts = read_request(b'{"model": "x"}', fmt)
    swapped = threading.Event()

    def swap() -> None:
        for version in range(1, SWAPS + 1):
            current.card = RateCard.compile(rates[:RATES_COMPILED], {}, version=version)
            time.sleep(0.05)
        swapped.set()

    async def traffic() -> tuple[list[float], int]:
        late, priced = [], 0
        thread = threading.Thread(target=swap)
        thread.start()
        while not swapped.is_set():
            due = time.perf_counter() + 0.001
            await asyncio.sleep(0.001)
            late.append((time.perf_counter() - due) * 1000)
            charge = rate_usage(current.card, fmt.read_body(CHAT, facts, "openai"), book="cost", at=AT)
            priced += charge.status == "priced"
        thread.join()
        return late, priced

    late, priced = asyncio.run(traffic())
    if priced != len(late):
        raise AssertionError(
            f"{len(late) - priced} of {len(late)} calls had no price while cards were swapped"
        )
    yield Figure("event loop late while rate cards are swapped: p99", percentile(late, 0.99), "ms")
    yield Figure("event loop late while rate cards are swapped: most", max(late), "ms")


def _tap() -> Figure:
    fmt = wire_format("openai_chat")
    facts = read_request(b'{"model": "x", "stream": true}', fmt)

    def thousand_chunks() -> None:
        feed = open_tap(fmt, facts, "openai", "text/event-stream", "").feed
        for _ in range(1000):
            feed(STREAM_CHUNK)

    took = [_microseconds(thousand_chunks, 20) / 1000 for _ in range(ROUNDS)]
    return Figure(
        f"tap per stream chunk of {len(STREAM_CHUNK)} bytes", median(took), "µs (goal of 0.5 reported)"
    )


def _each(act: Callable[[], object], times: int) -> list[float]:
    """Each call by itself, in µs."""
    act()
    took = []
    for _ in range(times):
        began = time.perf_counter_ns()
        act()
        took.append((time.perf_counter_ns() - began) / 1000)
    return took


def _microseconds(act: Callable[[], object], times: int) -> float:
    act()
    gc.collect()
    gc.disable()
    try:
        began = time.perf_counter()
        for _ in range(times):
            act()
        return (time.perf_counter() - began) / times * 1e6
    finally:
        gc.enable()
