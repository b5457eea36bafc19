"""Who pays what, row by row, seen from outside: an application, a client, and the event that comes of them.

gpt-5-mini costs us 1 and 2 dollars a million tokens, in and out; the customer pays twice that.
"""

import asyncio
import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import override_settings

from metering.checks import check_options
from metering.drains import Drains
from metering.estimate import estimate_tokens
from metering.policy import InvalidPolicy, WhoPays
from metering.record_usage import record_usage
from metering.reprice import reprice
from metering.routes import Route
from metering.rows import EventRow
from metering.wiring import who_pays
from pricing.usage import Usage, UsagePart
from tests.metering.asgi import App, Bench, Exchange, a_card, answering, exchange, streaming
from tests.metering.test_django_middleware import Host
from tests.metering.test_middleware import ANSWER, CHARGE, COST, REQUEST, STREAM, USAGE, chunk

PATH = "/v1/chat/completions"
MILLION = Decimal(1_000_000)
ASKED = estimate_tokens(len(REQUEST))  # tokens in, by estimate


def document(value: Any) -> Any:
    return msgspec.json.decode(value) if isinstance(value, msgspec.Raw) else value


def leaving_at_once(bench: Bench, body: bytes = REQUEST) -> None:
    """A client that is gone before a byte of the answer."""

    async def main() -> None:
        made = Exchange(bench, PATH, body, {})
        made.left.set()
        await bench.app(made.scope, made.receive, made.send)
        await bench.recorder.stop()
        assert made.sent == []

    asyncio.run(main())


async def hanging(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await receive()
    await asyncio.sleep(60)


# Disconnects


def test_a_client_that_leaves_mid_stream_pays_what_the_provider_counted_to_the_end() -> None:
    bench = Bench(streaming(STREAM, pause=True))
    exchange(bench, REQUEST, leave_after=2)
    event = bench.event
    assert (event.status, event.usage_source, event.pricing_status, event.consistency) == (
        "client_disconnected",
        "reported",
        "priced",
        "ok",
    )
    assert (event.cost_total, event.charge_total, event.quantity) == (COST, CHARGE, 1)


def test_a_client_that_leaves_a_whole_answer_pays_it_for_the_view_runs_to_its_end() -> None:
    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        listening = asyncio.ensure_future(receive())  # as Django does
        await asyncio.sleep(0.01)
        listening.cancel()
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": ANSWER})

    bench = Bench(slow)
    leaving_at_once(bench)
    event = bench.event
    assert (event.status, event.usage_source) == ("client_disconnected", "reported")
    assert (event.cost_total, event.charge_total, event.quantity) == (COST, CHARGE, 1)


def test_a_client_that_leaves_before_the_first_byte_pays_nothing_for_what_its_input_cost_us() -> None:
    bench = Bench(hanging, drains=Drains(seconds_max=0.01))
    leaving_at_once(bench)
    event = bench.event
    assert (event.status, event.usage_source, event.status_code) == ("client_disconnected", "estimated", None)
    assert (event.tokens_input, event.tokens_output, event.pricing_status) == (ASKED, None, "partial")
    assert event.cost_total == ASKED * 1 / MILLION
    assert (event.charge_total, event.quantity) == (0, 0)
    assert event.model == "gpt-5-mini"


@pytest.mark.parametrize(
    ("share", "charged"), [("1", ASKED * 2 / MILLION), ("0.25", ASKED * 2 / MILLION / 4)]
)
def test_or_its_share_where_the_operator_says_so(share: str, charged: Decimal) -> None:
    bench = Bench(
        hanging, drains=Drains(seconds_max=0.01), policy=WhoPays.from_options({"unanswered": share})
    )
    leaving_at_once(bench)
    assert (bench.event.charge_total, bench.event.quantity) == (charged, Decimal(share))
    assert bench.event.cost_total == ASKED * 1 / MILLION


def test_an_input_that_could_not_be_read_is_unknown_and_free() -> None:
    bench = Bench(hanging, drains=Drains(seconds_max=0.01))
    leaving_at_once(bench, b"\xff")
    event = bench.event
    assert (event.usage_source, event.tokens_input, event.cost_total, event.charge_total) == (
        "none",
        None,
        None,
        0,
    )
    assert event.pricing_status == "partial"


def test_a_half_of_a_body_is_an_input_that_was_used_and_an_output_that_nobody_knows() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        head = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": ANSWER[:20], "more_body": True})
        await receive()

    bench = Bench(app, routes=[Route("POST", PATH, drain=False)])
    exchange(bench, REQUEST, leave_after=2)
    event = bench.event
    assert (event.status, event.usage_source, event.pricing_status) == (
        "client_disconnected",
        "estimated",
        "partial",
    )
    assert (event.cost_total, event.charge_total) == (ASKED * 1 / MILLION, ASKED * 2 / MILLION)


def test_what_we_stop_before_it_answered_costs_the_customer_nothing() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    bench = Bench(silent)
    exchange(bench, REQUEST)
    event = bench.event
    assert (event.status, event.usage_source) == ("interrupted", "estimated")
    assert (event.cost_total, event.charge_total, event.quantity) == (ASKED * 1 / MILLION, 0, 0)


# Errors


@pytest.mark.parametrize("status", [500, 502, 503, 529])
def test_a_failure_without_tokens_is_free_and_its_cost_is_unknown(status: int) -> None:
    bench = Bench(answering(b'{"error": {"message": "no"}}', status=status))
    exchange(bench, REQUEST)
    event = bench.event
    assert (event.status, event.usage_source, event.pricing_status) == ("error", "none", "partial")
    assert (event.charge_total, event.cost_total, event.quantity) == (0, None, 0)


def test_an_answer_that_nobody_takes_in_time_is_a_failure_where_nothing_is_known_of_it() -> None:
    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        head = [(b"content-type", b"audio/mpeg")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.001)

    bench = Bench(endless, stream_s_max=0.02)
    exchange(bench, REQUEST)
    assert (bench.event.status, bench.event.charge_total, bench.event.cost_total) == ("timeout", 0, None)


PART = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
COST_OF_PART = (100 * 1 + 10 * 2) / MILLION


@pytest.mark.parametrize(
    ("share", "counted"), [(None, 1), ("1", 1), ("0.5", Decimal("0.5")), ("0", 0)], ids=str
)
def test_an_error_after_output_is_charged_for_what_came_by_the_rule_of_goodwill(
    share: str | None, counted: Decimal
) -> None:
    policy = WhoPays.from_options({} if share is None else {"after_error": share})
    bench = Bench(streaming([chunk("Hel", PART)], fail=True), policy=policy)
    with pytest.raises(RuntimeError):
        exchange(bench, REQUEST)
    event = bench.event
    assert (event.status, event.usage_source) == ("error_after_output", "reported_partial")
    assert (event.cost_total, event.charge_total) == (COST_OF_PART, 2 * COST_OF_PART * counted)
    assert event.quantity == counted


@pytest.mark.parametrize(("share", "charged"), [("1", 2 * COST_OF_PART), ("0", 0)])
def test_what_we_stop_in_the_middle_goes_by_the_same_rule(share: str, charged: Decimal) -> None:
    async def stopping(scope: Any, receive: Any, send: Any) -> None:
        head = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": chunk("Hel", PART), "more_body": True})

    bench = Bench(stopping, policy=WhoPays.from_options({"after_error": share}))
    exchange(bench, REQUEST)
    assert (bench.event.status, bench.event.usage_source) == ("interrupted", "reported_partial")
    assert (bench.event.cost_total, bench.event.charge_total) == (COST_OF_PART, charged)


def test_a_failure_that_says_what_it_used_is_an_error_after_output() -> None:
    bench = Bench(answering(ANSWER, status=500))
    exchange(bench, REQUEST)
    assert (bench.event.status, bench.event.status_code, bench.event.charge_total) == (
        "error_after_output",
        500,
        CHARGE,
    )


ERROR = b'data: {"error": {"message": "overloaded", "code": 529}}\n\n'


def test_an_error_that_comes_within_a_good_answer_is_an_error_after_output() -> None:
    bench = Bench(streaming([chunk("abcd" * 5), chunk("efgh" * 5), ERROR, b"data: [DONE]\n\n"]))
    exchange(bench, REQUEST)
    event = bench.event
    assert (event.status, event.status_code, event.usage_source) == ("error_after_output", 200, "estimated")
    assert (event.tokens_input, event.tokens_output) == (ASKED, 10)  # 40 bytes of text
    assert event.charge_total == (ASKED * 2 + 10 * 4) / MILLION


@pytest.mark.parametrize(
    "app",
    [streaming([ERROR]), answering(b'{"model": "gpt-5-mini", "error": {"message": "no", "code": 502}}')],
)
def test_an_error_that_is_all_of_a_good_answer_is_a_failure(app: App) -> None:
    bench = Bench(app)
    exchange(bench, REQUEST)
    event = bench.event
    assert (event.status, event.status_code, event.usage_source) == ("error", 200, "none")
    assert (event.charge_total, event.cost_total, event.quantity, event.pricing_status) == (
        0,
        None,
        0,
        "partial",
    )


def test_a_client_that_left_is_not_told_apart_from_an_error_by_what_came_after() -> None:
    bench = Bench(streaming([chunk("abcd"), chunk("efgh"), ERROR], pause=True))
    exchange(bench, REQUEST, leave_after=2)
    assert (bench.event.status, bench.event.usage_source) == ("client_disconnected", "estimated")


# Nobody said what was used

SAID = "Hello there!"  # 12 bytes: 3 tokens
UNTOLD = json.dumps(
    {"model": "gpt-5-mini", "choices": [{"index": 0, "message": {"content": SAID}}], "usage": None}
).encode()


def test_an_answer_without_usage_is_charged_by_estimate_and_says_so() -> None:
    bench = Bench(answering(UNTOLD))
    done = exchange(bench, REQUEST)
    event = bench.event
    assert (event.status, event.usage_source, event.pricing_status, event.quantity) == (
        "ok",
        "estimated",
        "priced",
        1,
    )
    assert (event.tokens_input, event.tokens_output) == (ASKED, 3)
    assert event.charge_total == (ASKED * 2 + 3 * 4) / MILLION
    assert done.headers["x-usage-source"] == "estimated"
    (day,) = bench.store.daily.values()
    assert day["estimated_events"] == 1


def test_an_answer_whose_usage_was_reported_does_not_say_how_it_is_known() -> None:
    assert "x-usage-source" not in exchange(Bench(answering(ANSWER)), REQUEST).headers


def test_the_same_text_costs_the_same_streamed_or_not() -> None:
    whole, streamed = Bench(answering(UNTOLD)), Bench(streaming([chunk(SAID[:5]), chunk(SAID[5:])]))
    for bench in (whole, streamed):
        exchange(bench, REQUEST)
    assert whole.event.charge_total == streamed.event.charge_total
    assert whole.event.usage_source == streamed.event.usage_source == "estimated"


def test_a_client_that_leaves_a_stream_that_is_not_drained_pays_what_it_was_sent() -> None:
    usage = {"input_tokens": 200, "output_tokens": 1}
    start: dict[str, Any] = {
        "type": "message_start",
        "message": {"model": "claude-sonnet-4-5", "usage": usage},
    }
    delta: dict[str, Any] = {
        "type": "content_block_delta",
        "index": 0,
        "delta": {"type": "text_delta", "text": "abcd" * 10},
    }
    events = [
        f"event: {said['type']}\ndata: {json.dumps(said)}\n\n".encode() for said in (start, *[delta] * 500)
    ]
    bench = Bench(streaming(events, pause=True), drains=Drains(total_max=0))
    done = exchange(bench, REQUEST, "/v1/messages", leave_after=4)
    event = bench.event
    assert (event.status, event.usage_source) == ("client_disconnected", "reported_partial")
    assert event.tokens_input == 200, "as message_start said"
    words = event.tokens_output or 0
    assert words % 10 == 0 and 0 < words < 5000, "40 bytes are 10 tokens; most of it was never asked for"
    assert words >= 10 * done.content.count(b"event: content_block_delta")
    assert event.charge_total == (200 * 2 + words * 4) / MILLION


@pytest.mark.parametrize("answer", [
    b'{"model": "gpt-5-mini", "choices": []}', b'{"model": "gpt-5-mini", "data": [{"b64_json": "aGVsbG8="}]}', b"{}", b"",
])  # fmt: skip
def test_an_answer_of_which_nothing_can_be_told_is_unknown_and_not_zero(answer: bytes) -> None:
    bench = Bench(answering(answer))
    done = exchange(bench, REQUEST)
    event = bench.event
    assert (event.usage_source, event.pricing_status, event.charge_total, event.quantity) == (
        "none",
        "unpriced",
        None,
        1,
    )
    assert not [name for name in done.headers if name.startswith("x-usage-") and name != "x-usage-event"]


def test_text_in_an_error_costs_nobody_anything() -> None:
    bench = Bench(answering(UNTOLD, status=422))
    exchange(bench, REQUEST)
    assert (bench.event.usage_source, bench.event.charge_total, bench.event.cost_total) == ("none", 0, 0)


def test_a_zero_that_was_reported_stays_zero() -> None:
    zero = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    bench = Bench(answering(UNTOLD.replace(b"null", json.dumps(zero).encode())))
    exchange(bench, REQUEST)
    event = bench.event
    assert (event.usage_source, event.tokens_input, event.tokens_output) == ("reported", 0, 0)
    assert (event.cost_total, event.charge_total, event.pricing_status) == (0, 0, "priced")


def test_a_django_view_without_usage_is_estimated_as_well() -> None:
    host = Host()
    response = host.sync(lambda request: HttpResponse(UNTOLD, content_type="application/json"))
    host.close()
    assert (host.event.usage_source, host.event.tokens_output) == ("estimated", 3)
    assert response["X-Usage-Source"] == "estimated"


def test_what_is_known_of_a_call_is_said_fact_by_fact() -> None:
    """How it ended, where its usage is from, whether it has a price, whether its counters agree: none decides another."""
    odd = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 9}
    unknown = chunk(None, odd).replace(b"gpt-5-mini", b"gpt-unheard-of")
    bench = Bench(streaming([chunk("a"), chunk("b"), unknown, b"data: [DONE]\n\n"], pause=True))
    exchange(bench, REQUEST, leave_after=2)
    event = bench.event
    assert (event.status, event.usage_source) == ("client_disconnected", "reported")
    assert event.pricing_status == "unpriced" and event.consistency != "ok"
    assert (event.tokens_input, event.tokens_output) == (100, 50)


# What went as it should


@pytest.mark.parametrize("reason", ["content_filter", "length", "refusal"])
def test_what_a_filter_or_a_refusal_used_is_charged_as_reported(reason: str) -> None:
    choices = [{"index": 0, "message": {"content": None, "refusal": "No."}, "finish_reason": reason}]
    body = json.dumps({"model": "gpt-5-mini", "choices": choices, "usage": USAGE}).encode()
    bench = Bench(answering(body))
    exchange(bench, REQUEST)
    assert (bench.event.status, bench.event.charge_total) == ("ok", CHARGE)


@pytest.mark.parametrize(
    ("share", "charged"), [(None, Decimal(0)), ("0.5", CHARGE / 2), ("1", CHARGE)], ids=str
)
def test_an_answer_from_our_own_cache_costs_nothing_and_is_charged_by_its_rule(
    share: str | None, charged: Decimal
) -> None:
    async def cached(scope: Any, receive: Any, send: Any) -> None:
        record_usage(scope, cache_hit=True)
        await answering(ANSWER)(scope, receive, send)

    policy = WhoPays.from_options({} if share is None else {"cached": share})
    bench = Bench(cached, policy=policy)
    done = exchange(bench, REQUEST)
    event = bench.event
    assert (event.cost_total, event.cost_input, event.charge_total) == (0, 0, charged)
    assert (event.tokens_total, event.usage_source, event.pricing_status) == (150, "reported", "priced")
    assert event.quantity == Decimal(share or 0), "a call that is not paid for is none that a plan counts"
    assert document(event.context)["cache"] == "hit"
    assert done.headers["x-usage-cost"] == "0"


def test_a_cached_answer_of_a_model_without_a_price_is_free_all_the_same() -> None:
    async def cached(scope: Any, receive: Any, send: Any) -> None:
        record_usage(scope, tokens_input=5, tokens_output=5, model="unheard-of", quantity=4, cache_hit=True)
        await answering(ANSWER)(scope, receive, send)

    bench = Bench(cached)
    exchange(bench, REQUEST)
    event = bench.event
    assert (event.cost_total, event.charge_total, event.pricing_status, event.missing) == (
        0,
        0,
        "priced",
        None,
    )
    assert (event.tokens_total, event.quantity) == (10, 0)


def test_a_cached_answer_is_known_in_a_django_view_as_well() -> None:
    def view(request: Any) -> HttpResponse:
        record_usage(request, cache_hit=True)
        return HttpResponse(ANSWER, content_type="application/json")

    host = Host()
    host.sync(view)
    host.close()
    assert (host.event.cost_total, host.event.charge_total, host.event.tokens_total) == (0, 0, 150)


MODELS: Sequence[tuple[str, int, int]] = (("gpt-5-mini", 100, 10), ("claude-sonnet-4-5", 50, 50))


def of_two_models() -> Usage:
    """An answer of claude's, of which another model had already written a part."""
    parts = tuple(
        UsagePart({"in_uncached": read, "out_visible": written}, model, provider)
        for (model, read, written), provider in zip(MODELS, ("openai", "anthropic"), strict=True)
    )
    buckets = {"in_uncached": 150, "out_visible": 60}
    return Usage(buckets=buckets, provider="anthropic", model_served="claude-sonnet-4-5", parts=parts)


COST_OF_BOTH = (100 * 1 + 10 * 2 + 50 * 1 + 50 * 2) / MILLION
SERVED = (50 * 2 + 50 * 4) / MILLION


@pytest.mark.parametrize(("rule", "charged"), [("sum", 2 * COST_OF_BOTH), ("served", SERVED)])
def test_where_several_models_served_the_customer_pays_all_or_the_one_that_answered(
    rule: str, charged: Decimal
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        scope["tollgate.call"].reported = of_two_models()
        await answering(ANSWER)(scope, receive, send)

    bench = Bench(app, policy=WhoPays.from_options({"parts": rule}))
    exchange(bench, REQUEST)
    assert (bench.event.cost_total, bench.event.charge_total) == (COST_OF_BOTH, charged)
    assert bench.event.model == "claude-sonnet-4-5"


# Rated again


def rated_again(event: EventRow) -> Any:
    stored = {name: document(getattr(event, name)) for name in ("buckets", "context")}
    return reprice(msgspec.structs.replace(event, **stored), a_card())


async def cached(scope: Any, receive: Any, send: Any) -> None:
    record_usage(scope, cache_hit=True)
    await answering(ANSWER)(scope, receive, send)


@pytest.mark.parametrize(
    "choices", [{}, {"unanswered": "0.3", "after_error": "0.3", "cached": "0.3"}], ids=str
)
@pytest.mark.parametrize("app", [
    hanging, cached, answering(ANSWER), answering(ANSWER, status=500), streaming([chunk("Hel", PART)]),
])  # fmt: skip
def test_rating_again_at_the_same_rates_changes_nothing(app: App, choices: Any) -> None:
    policy = WhoPays.from_options(choices)
    bench = Bench(app, drains=Drains(seconds_max=0.01), policy=policy)
    if app is hanging:
        leaving_at_once(bench)
    else:
        exchange(bench, REQUEST)
    again = rated_again(bench.event)
    assert not again.differs
    assert again.event.charge_total == bench.event.charge_total


# The choices


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"cashed": 1}, "'cashed' is none of unanswered, after_error, cached, parts"),
        ({"cached": "2"}, "cached='2' is no number from 0 to 1"),
        ({"cached": 0.5}, "cached=0.5 is no number from 0 to 1, as text or Decimal"),
        ({"unanswered": "-1"}, "unanswered='-1'"),
        ({"after_error": "NaN"}, "after_error='NaN'"),
        ({"after_error": "half"}, "after_error='half'"),
        ({"parts": "all"}, "parts='all' is neither 'sum' nor 'served'"),
    ],
)
def test_a_choice_that_cannot_be_used_is_refused_by_its_name(options: Any, named: str) -> None:
    with pytest.raises(InvalidPolicy, match=named):
        WhoPays.from_options(options)
    with override_settings(TOLLGATE={"WHO_PAYS": options}):
        (found,) = check_options(None)
        assert found.id == "tollgate.E002" and named in found.msg
        with pytest.raises(ImproperlyConfigured, match="WHO_PAYS"):
            who_pays()


def test_the_choices_of_the_settings_are_taken() -> None:
    with override_settings(TOLLGATE={"WHO_PAYS": {"cached": "0.1", "unanswered": 1, "parts": "served"}}):
        assert check_options(None) == []
        assert who_pays() == WhoPays(unanswered=Decimal(1), cached=Decimal("0.1"), parts="served")
