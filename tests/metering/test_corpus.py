"""The public corpus: what providers send, what it means and what it costs, worked out by hand in tests/corpus.

One test a file. It checks the file's own arithmetic first, then our reading of the payload, then our charge for it by the
file's own rates, then that the same comes out where only the content tells what it is, and wherever the bytes are cut.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, cast

import msgspec
import pytest

from metering.estimate import RequestFacts, read_request
from metering.extract import wire_format
from metering.read_any import read_any
from metering.tap import open_tap, usage_of_messages
from pricing.pricelist import Rate, RateCard
from pricing.rating import Charge, rate_usage
from pricing.units import REQUEST, is_billable, is_token, rate_candidates
from pricing.usage import Usage
from tests.metering.corpus import (
    Case,
    Cost,
    Expect,
    Line,
    body_of,
    compact,
    load,
    names,
    quantities,
    request_body,
)

NAMES = names()
SHAPES = range(1, 37)
SPLIT_EVERYWHERE = 4096  # bytes; a longer payload is cut at random places
RANDOM_CUTS = 200
START, NOW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 11, 20, 12, tzinfo=UTC)
# The shapes that have no stream, or no other form than one: see the master table in the corpus's README.
NEVER_STREAMED = {4, 9, 10, 16, 35}
ONLY_STREAMED = {7, 8, 14}
SAY_NOTHING_STREAMED = {32}
TOLD_BY_THE_ROUTE_ONLY = {
    "errors/proxy_502_html",  # is no answer
    "openai/images_by_number",  # a list of images, and nothing that says whose
    "openai/transcription_verbose_without_usage",  # a text and how long it took to say
}


@pytest.mark.parametrize("name", NAMES)
def test_a_payload_is_read_and_charged_as_worked_out_by_hand(name: str) -> None:
    case = load(name)
    assert_its_arithmetic_is_right(case)
    assert_its_twin_costs_the_same(case)
    facts = facts_of(case)
    usage = read_whole(case, facts)
    assert_read_as_expected(case, facts, usage)
    assert_charged_as_expected(case, usage)
    if case.response.complete and name not in TOLD_BY_THE_ROUTE_ONLY:
        assert_told_by_its_content(case, facts, usage)
    if case.framing != "websocket":
        assert_any_cut_reads_the_same(case, facts, usage)


# --- the file by itself, without any code of ours but the names of buckets ---


def assert_its_arithmetic_is_right(case: Case) -> None:
    expect, cost = case.expect, case.cost
    for side, stated in (("in_", expect.tokens_input), ("out_", expect.tokens_output)):
        counted = sum(int(count) for bucket, count in expect.buckets.items() if bucket.startswith(side))
        assert stated is None or stated == counted, f"{side} adds up to {counted}"
    if expect.parts:
        assert added([quantities(part.buckets) for part in expect.parts]) == quantities(expect.buckets)
    assert all(is_billable(bucket) for bucket in expect.buckets)
    if cost is None:
        assert expect.usage_source in ("none", "estimated") and not expect.buckets
        return
    for line in cost.lines:
        amount = Decimal(line.quantity) * Decimal(line.price) / line.per
        assert amount == Decimal(line.amount), (
            f"{line.bucket}: {line.quantity} × {line.price} ÷ {line.per} = {amount}"
        )
        assert line.per == (1_000_000 if is_token(line.bucket) else 1)
        assert_price_is_listed(case, line)
    if cost.status == "unpriced":
        assert cost.total is None and not cost.lines
        return
    assert sum((Decimal(line.amount) for line in cost.lines), Decimal(0)) == Decimal(cost.total or "no total")
    priced = added([{line.bucket: Decimal(line.quantity)} for line in cost.lines if line.bucket != REQUEST])
    if cost.status == "partial" and expect.usage_source == "reported":
        assert all(priced[bucket] <= Decimal(expect.buckets[bucket]) for bucket in priced)
    elif cost.lines or not expect.context.byok:
        used = {bucket: count for bucket, count in quantities(expect.buckets).items() if bucket != REQUEST}
        assert priced == used, "each bucket has its line"


def assert_price_is_listed(case: Case, line: Line) -> None:
    model = line.model or case.expect.model
    of_model = [tariff.prices for tariff in case.rates if tariff.model == model]
    listed = {
        prices[bucket] for prices in of_model for bucket in rate_candidates(line.bucket) if bucket in prices
    }
    assert line.price in listed, f"{model} has no price of {line.price} for {line.bucket}"


def assert_its_twin_costs_the_same(case: Case) -> None:
    if case.same_charge_as:
        twin = load(case.same_charge_as)
        assert lines_of(case.cost) == lines_of(twin.cost) and case.cost, f"not as {case.same_charge_as}"


def lines_of(cost: Cost | None) -> Counter[tuple[str, Decimal, Decimal]]:
    """Models may go by several names; what counts is what is paid."""
    lines = cost.lines if cost else []
    return Counter((line.bucket, Decimal(line.quantity), Decimal(line.amount)) for line in lines)


def added(all_buckets: Iterable[dict[str, int | Decimal]]) -> dict[str, int | Decimal]:
    total: dict[str, int | Decimal] = {}
    for buckets in all_buckets:
        for bucket, count in buckets.items():
            total[bucket] = total.get(bucket, 0) + count
    return total


# --- what we read ---


def facts_of(case: Case) -> RequestFacts:
    facts = read_request(request_body(case), wire_format(case.wire_format))
    return msgspec.structs.replace(facts, model=case.request.model or facts.model)


def read(case: Case, facts: RequestFacts, chunks: Iterable[bytes]) -> Usage:
    """Feeds a tap as the middleware does, up to the point where the rest waits for the commit."""
    tap = open_tap(wire_format(case.wire_format), facts, case.provider, case.response.content_type, "")
    for chunk in chunks:
        if tap.feed(chunk) >= 0:
            return tap.finish(complete=True)
    return tap.finish(complete=case.response.complete)


def read_whole(case: Case, facts: RequestFacts) -> Usage:
    if case.framing != "websocket":
        return read(case, facts, [body_of(case)])
    messages = [compact(message) for message in cast(list[Any], case.response.messages)]
    return usage_of_messages(
        wire_format(case.wire_format), messages, facts=facts, provider=case.provider,
        complete=case.response.complete,
    )  # fmt: skip


def assert_read_as_expected(case: Case, facts: RequestFacts, usage: Usage) -> None:
    expect = case.expect
    assert usage.source == expect.usage_source
    assert exact_of(usage.buckets, expect) == quantities(expect.buckets)
    zeros = [bucket for bucket, count in expect.buckets.items() if not count]
    assert all(usage.buckets.get(bucket) == 0 for bucket in zeros), (
        "what was reported as zero is there, as zero"
    )
    assert (usage.consistency, list(usage.rules)) == (expect.consistency, expect.rules)
    if not expect.estimated:
        assert (usage.tokens_input, usage.tokens_output) == (expect.tokens_input, expect.tokens_output)
    assert (usage.model, usage.model_requested) == (expect.model, facts.model)
    assert usage.provider == case.provider
    said = {name: getattr(usage, name) for name in expect.context.__struct_fields__}
    assert said == msgspec.structs.asdict(expect.context)
    cost = expect.reported_cost
    assert usage.reported_cost == (None if cost is None else Decimal(cost))
    assert parts_of_usage(usage) == parts_of_file(expect)
    if any(part.kind for part in expect.parts):
        kinds = [(part.kind, found.kind) for part, found in zip(expect.parts, usage.parts, strict=True)]
        assert all(kind is None or kind == found for kind, found in kinds), kinds


def exact_of(buckets: Any, expect: Expect) -> dict[str, Any]:
    """What was used, without the sides that are our own estimate and no fact about the payload."""
    sides = {"input": "in_", "output": "out_"}
    left_out = tuple(sides[side] for side in expect.estimated)
    return {
        bucket: count
        for bucket, count in buckets.items()
        if count and not (bucket.startswith(left_out) and bucket not in expect.buckets)
    }


Parts = Counter[tuple[str, frozenset[tuple[str, int | Decimal]]]]


def parts_of_usage(usage: Usage) -> Parts:
    return Counter((part.model or usage.model, frozenset(part.buckets.items())) for part in usage.parts)


def parts_of_file(expect: Expect) -> Parts:
    return Counter(
        (part.model or expect.model, frozenset(quantities(part.buckets).items())) for part in expect.parts
    )


# --- what we charge ---


def card_of(case: Case) -> RateCard:
    """A card of the file's own rates and no others."""
    rates: list[Rate] = []
    for tariff in case.rates:
        for bucket, price in tariff.prices.items():
            rates.append(
                Rate(
                    id=len(rates) + 1, book="cost", provider=tariff.provider or case.provider, model=tariff.model,
                    bucket=bucket, price=Decimal(price), per=1_000_000 if is_token(bucket) else 1, currency="USD",
                    effective_from=START, **msgspec.structs.asdict(tariff.when),
                )
            )  # fmt: skip
    return RateCard.compile(rates, {}, version=1)


def assert_charged_as_expected(case: Case, usage: Usage) -> None:
    charge = rate_usage(card_of(case), usage, book="cost", at=NOW)
    if case.cost is None:
        assert usage.source == "estimated" or (charge.status, charge.total) == ("unpriced", None)
        return
    assert charged_lines(charge, case) == Counter(
        (line.model or case.expect.model, line.bucket, Decimal(line.quantity), Decimal(line.price) / line.per,
         Decimal(line.amount))
        for line in case.cost.lines
    )  # fmt: skip
    if case.expect.estimated:
        return  # the total holds our estimate as well
    assert charge.status == case.cost.status
    assert charge.total == (None if case.cost.total is None else Decimal(case.cost.total))


def charged_lines(charge: Charge, case: Case) -> Counter[tuple[str, str, Decimal, Decimal, Decimal]]:
    wanted = exact_of({line.bucket: line.quantity for line in charge.lines}, case.expect)
    return Counter(
        (line.model or case.expect.model, line.bucket, Decimal(line.quantity), line.unit_price, line.amount)
        for line in charge.lines
        if line.bucket in wanted
    )


# --- without its route, and wherever it is cut ---


def assert_told_by_its_content(case: Case, facts: RequestFacts, whole: Usage) -> None:
    """Bytes of which nothing is known but who sent them. Without the request, its size cannot be estimated."""
    messages = case.response.messages or []
    data = b"\n".join(compact(message) for message in messages) if messages else body_of(case)
    found = read_any(data, provider=case.provider, model=facts.model)
    assert found.framing == case.framing
    assert (found.usage.source, found.usage.parts) == (whole.source, whole.parts)
    assert exact_of(found.usage.buckets, case.expect) == exact_of(whole.buckets, case.expect)


def assert_any_cut_reads_the_same(case: Case, facts: RequestFacts, whole: Usage) -> None:
    body = body_of(case)
    places: Iterable[int] = range(1, len(body))
    if len(body) > SPLIT_EVERYWHERE:
        places = random.Random(len(body)).sample(range(1, len(body)), RANDOM_CUTS)
    for place in places:
        assert read(case, facts, [body[:place], body[place:]]) == whole, f"cut at {place}"
    assert read(case, facts, [body[at : at + 1] for at in range(len(body))]) == whole, "byte by byte"


def test_a_last_event_of_a_megabyte_is_read_as_a_short_one() -> None:
    case = load("openai/responses_search_stream")
    events = json.loads(json.dumps(case.response.events))
    events[-1]["data"]["response"]["output"][-1]["content"][0]["text"] = "é☂🦀 " * 120_000
    long = msgspec.structs.replace(case, response=msgspec.structs.replace(case.response, events=events))
    body = body_of(long)
    assert len(body) > 2**20
    facts = facts_of(case)
    short = read_whole(case, facts)
    for size in (1_000, 65_536, len(body)):
        usage = read(long, facts, [body[at : at + size] for at in range(0, len(body), size)])
        assert (usage.buckets, usage.model, usage.source) == (short.buckets, short.model, "reported")


# --- the corpus as a whole ---


def test_the_corpus_has_every_shape_streamed_and_not() -> None:
    cases = [load(name) for name in NAMES]
    assert len(cases) >= 150
    streamed = {shape for case in cases for shape in case.shapes if case.framing != "json"}
    whole = {shape for case in cases for shape in case.shapes if case.framing == "json"}
    assert set(SHAPES) - NEVER_STREAMED <= streamed
    assert set(SHAPES) - ONLY_STREAMED <= whole
    assert streamed | whole == set(SHAPES)


def test_a_streamed_answer_has_a_twin_that_is_not() -> None:
    streams = [case for case in map(load, NAMES) if case.framing != "json"]
    twins = {case.shapes[0] for case in streams if case.same_charge_as}
    assert set(SHAPES) - NEVER_STREAMED - ONLY_STREAMED - SAY_NOTHING_STREAMED <= twins
