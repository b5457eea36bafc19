"""What reading an answer costs: extraction and rating per response, and the tap per chunk of a stream.

What it does not show: the gate, the recorder and the network, which stand in the other sections.
"""

import gc
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import genai_prices
from genai_prices import calc_price, extract_usage

from benchmarks.answers import CHAT, EMBEDDING, MESSAGE, RESPONSE, STREAM_CHUNK
from benchmarks.figures import Figure, median
from benchmarks.prices import bench_card
from metering.estimate import read_request
from metering.extract import wire_format
from metering.tap import open_tap
from pricing.rating import rate_usage

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ROUNDS, CALLS = 15, 2_000
CASES = (
    ("openai chat", "openai_chat", "openai", "chat", CHAT),
    ("openai responses", "openai_responses", "openai", "responses", RESPONSE),
    ("anthropic messages", "anthropic_messages", "anthropic", "default", MESSAGE),
    ("openai embeddings", "openai_embeddings", "openai", "embeddings", EMBEDDING),
)


def measure() -> Iterator[Figure]:
    """Sections (c) and (d)."""
    card = bench_card()
    for title, format_name, provider, flavor, body in CASES:
        fmt = wire_format(format_name)
        facts = read_request(b'{"model": "x"}', fmt)

        def ours(fmt=fmt, facts=facts, provider=provider, body=body) -> object:  # type: ignore[no-untyped-def]
            return rate_usage(card, fmt.read_body(body, facts, provider), book="cost", at=AT)

        def theirs(provider=provider, flavor=flavor, body=body) -> object:  # type: ignore[no-untyped-def]
            import json

            found = extract_usage(json.loads(body), provider_id=provider, api_flavor=flavor)
            return calc_price(
                found.usage,
                found.model.id if found.model else "",
                provider_id=provider,
                genai_request_timestamp=AT,
            )

        pairs = [(_microseconds(ours, CALLS), _microseconds(theirs, CALLS // 10)) for _ in range(ROUNDS)]
        yield Figure(
            f"extract and rate, {title}", median([a for a, _ in pairs]), "µs", goal=15, better="lower"
        )
        yield Figure(
            f"extract and rate, {title}: genai-prices / ours",
            median([b / a for a, b in pairs]),
            "ratio",
            goal=8,
        )
    yield _tap()
    assert genai_prices.__version__


def _tap() -> Figure:
    fmt = wire_format("openai_chat")
    facts = read_request(b'{"model": "x", "stream": true}', fmt)

    def thousand_chunks() -> None:
        feed = open_tap(fmt, facts, "openai", "text/event-stream", "").feed
        for _ in range(1000):
            feed(STREAM_CHUNK)

    took = [_microseconds(thousand_chunks, 20) / 1000 for _ in range(ROUNDS)]
    return Figure(
        f"tap per stream chunk of {len(STREAM_CHUNK)} bytes", median(took), "µs", goal=0.5, better="lower"
    )


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
