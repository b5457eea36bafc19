"""The ASGI middleware: what passes, what waits for the commit, and what becomes of calls that end badly."""

import asyncio
import gzip
import json
import zlib
from datetime import datetime
from decimal import Decimal
from typing import Any, cast

import msgspec
import pytest

from metering.drains import Drains
from metering.gate import Account, Headers, OpenGate
from metering.problem import Refusal, invalid_api_key
from metering.record_usage import record_usage
from metering.routes import Route
from tests.metering.asgi import Bench, Exchange, answering, exchange, streaming

REQUEST = json.dumps({"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hi"}]}).encode()
USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
ANSWER = json.dumps({"id": "x", "model": "gpt-5-mini", "choices": [], "usage": USAGE}).encode()
# 100 × 1/1e6 + 50 × 2/1e6 = 0.0002 cost; the list book is twice that
COST, CHARGE = Decimal("0.0002"), Decimal("0.0004")


def chunk(content: str | None, usage: object = None) -> bytes:
    choices = [] if content is None else [{"index": 0, "delta": {"content": content}}]
    body = {"object": "chat.completion.chunk", "model": "gpt-5-mini", "choices": choices, "usage": usage}
    return b"data: " + json.dumps(body).encode() + b"\n\n"


STREAM = [chunk("Hel"), chunk("lo"), chunk(None, USAGE), b"data: [DONE]\n\n"]


def test_an_answer_is_metered_priced_and_told_in_its_headers() -> None:
    bench = Bench(answering(ANSWER))
    done = exchange(bench, REQUEST, headers={"x-request-id": "req-7"})
    event = bench.event
    assert (event.tokens_input, event.tokens_output, event.cost_total, event.charge_total) == (
        100,
        50,
        COST,
        CHARGE,
    )
    assert (event.status, event.usage_source, event.pricing_status, event.consistency) == (
        "ok",
        "reported",
        "priced",
        "ok",
    )
    assert done.content == ANSWER and done.status == 200
    told = {name: value for name, value in done.headers.items() if name.startswith("x-")}
    assert told == {
        "x-request-id": "req-7", "x-usage-event": str(event.id), "x-usage-tokens-input": "100",
        "x-usage-tokens-output": "50", "x-usage-cost": "0.0002", "x-usage-charge": "0.0004",
    }  # fmt: skip


def test_nothing_of_a_whole_answer_leaves_before_the_commit() -> None:
    bench = Bench(answering(ANSWER))
    assert exchange(bench, REQUEST).events_when == [1, 1]


def test_a_stream_passes_at_once_and_its_terminal_event_waits_for_the_commit() -> None:
    bench = Bench(streaming(STREAM))
    done = exchange(bench, REQUEST)
    assert done.content == b"".join(STREAM)
    assert done.events_when == [0, 0, 0, 0, 1, 1], (
        "start and three chunks, then the commit, then [DONE] and the empty frame"
    )
    assert done.headers["x-usage-event"] == str(bench.event.execution_id), "a stream is known by its hold"
    assert "x-usage-charge" not in done.headers
    assert bench.event.charge_total == CHARGE


def test_a_terminal_event_in_one_chunk_with_content_is_cut_off_it() -> None:
    bench = Bench(streaming([STREAM[0], b"".join(STREAM[1:])]))
    done = exchange(bench, REQUEST)
    assert done.content == b"".join(STREAM)
    before = b"".join(
        m.get("body", b"") for m, events in zip(done.sent, done.events_when, strict=True) if not events
    )
    assert before == b"".join(STREAM[:3])


@pytest.mark.parametrize("cut", range(1, len(b"".join(STREAM))))
def test_a_stream_split_anywhere_is_the_same_event_and_never_whole_before_the_commit(cut: int) -> None:
    whole = b"".join(STREAM)
    bench = Bench(streaming([whole[:cut], whole[cut:]]))
    done = exchange(bench, REQUEST)
    assert (done.content, bench.event.charge_total, bench.event.status) == (whole, CHARGE, "ok")
    before = b"".join(
        m.get("body", b"") for m, events in zip(done.sent, done.events_when, strict=True) if not events
    )
    assert b"[DONE]" not in before


def test_a_stream_without_a_terminal_event_waits_with_its_last_frame() -> None:
    bench = Bench(streaming(STREAM[:3]))
    done = exchange(bench, REQUEST)
    assert done.events_when[-1] == 1 and done.events_when[-2] == 0
    assert bench.event.tokens_output == 50


def test_the_message_that_completes_the_content_length_waits() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": ANSWER[:20], "more_body": True})
        await send({"type": "http.response.body", "body": ANSWER[20:], "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    assert exchange(Bench(app), REQUEST).events_when == [0, 0, 1, 1]


def test_what_is_not_metered_passes_untouched() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))
        await send({"type": "http.response.start", "status": 200, "headers": []})

    bench = Bench(app)
    for path, method in (
        ("/v1/models", "POST"),
        ("/v1/chat/completions/", "POST"),
        ("/v1/chat/completions", "GET"),
    ):
        done = exchange(bench, path=path, method=method)
        assert seen[-1] == (done.scope, done.receive, done.send)
    assert bench.store.events == {}


def test_a_request_that_another_entry_has_marked_is_metered_once() -> None:
    inner = Bench(answering(ANSWER))
    outer = Bench(inner.app)
    exchange(outer, REQUEST)
    assert len(outer.store.events) == 1 and inner.store.events == {}


RATES = ((b"ratelimit-policy", b'"requests";q=60;w=60'), (b"ratelimit", b'"requests";r=59;t=1'))


class Rated(OpenGate):
    """Says what is left of a rate limit; the account blocks models without a price, so that one call can be refused."""

    async def resolve(self, headers: Headers, at: datetime) -> Account | Refusal:
        account = await super().resolve(headers, at)
        assert isinstance(account, Account)
        return msgspec.structs.replace(account, blocks_unpriced=True).with_rate_headers(RATES)


@pytest.mark.parametrize("app", [answering(ANSWER), streaming(STREAM)])
def test_an_answer_says_what_is_left_of_the_callers_rate_limits(app: Any) -> None:
    told = exchange(Bench(app, gate=Rated()), REQUEST).headers
    assert told["ratelimit-policy"] == '"requests";q=60;w=60'
    assert told["ratelimit"] == '"requests";r=59;t=1'


def test_a_provider_does_not_say_its_own_rate_limits_in_ours() -> None:
    upstream = answering(ANSWER, RateLimit='"provider";r=1')
    done = exchange(Bench(upstream, gate=Rated()), REQUEST)
    start = done.sent[0]["headers"]
    assert [value for name, value in start if name.lower() == b"ratelimit"] == [RATES[1][1]]
    done = exchange(Bench(upstream), REQUEST)
    assert (b"RateLimit", b'"provider";r=1') in done.sent[0]["headers"], "where we say nothing it passes"


def test_a_call_that_something_else_refuses_says_what_is_left_as_well() -> None:
    body = json.dumps({"model": "gpt-99", "messages": []}).encode()
    refused = exchange(Bench(answering(ANSWER), gate=Rated()), body)
    assert (refused.status, refused.headers["ratelimit"]) == (403, '"requests";r=59;t=1')


class Closed(OpenGate):
    async def resolve(self, headers: Headers, at: Any) -> Account | Refusal:
        return invalid_api_key()


def test_a_refused_call_reaches_no_application_and_leaves_no_event() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("a refused call must not go out")

    bench = Bench(app, gate=Closed())
    done = exchange(bench, REQUEST)
    answer = json.loads(done.content)
    assert done.status == 401 and done.headers["content-type"] == "application/problem+json"
    assert (answer["code"], answer["status"]) == ("invalid_api_key", 401)
    assert done.headers["x-should-retry"] == "false" and "x-request-id" in done.headers
    assert bench.store.events == bench.store.holds == {}


def test_an_application_that_breaks_before_it_answers_is_an_event_without_a_charge() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("no answer")

    bench = Bench(app)
    with pytest.raises(RuntimeError, match="no answer"):
        exchange(bench, REQUEST)
    event = bench.event
    assert (event.status, event.status_code, event.quantity) == ("error", 500, 0)
    assert (event.charge_total, event.cost_total, event.tokens_input) == (0, None, None)
    assert bench.store.holds == {}


def test_a_stream_that_breaks_off_is_settled_with_what_came() -> None:
    bench = Bench(streaming(STREAM[:2], fail=True))
    with pytest.raises(RuntimeError):
        exchange(bench, REQUEST)
    event = bench.event
    assert event.status in ("error", "error_after_output") and event.usage_source in ("estimated", "none")
    assert bench.store.holds == {}


@pytest.mark.parametrize("status", [400, 401, 404, 429])
def test_an_answer_in_the_400s_is_free(status: int) -> None:
    bench = Bench(answering(b'{"error": {"message": "no"}}', status=status))
    done = exchange(bench, REQUEST)
    assert done.status == status
    assert (bench.event.charge_total, bench.event.cost_total, bench.event.quantity) == (0, 0, 0)
    assert (bench.event.status, bench.event.tokens_total) == ("error", None)


def test_an_answer_without_usage_is_unpriced_and_not_zero() -> None:
    bench = Bench(answering(b'{"model": "gpt-5-mini", "choices": []}'))
    done = exchange(bench, REQUEST)
    event = bench.event
    assert (event.charge_total, event.cost_total, event.tokens_input) == (None, None, None)
    assert (event.usage_source, event.pricing_status, event.quantity) == ("none", "unpriced", 1)
    assert "x-usage-charge" not in done.headers and "x-usage-tokens-input" not in done.headers


def test_an_unknown_model_keeps_its_tokens_and_has_no_price() -> None:
    bench = Bench(answering(ANSWER.replace(b"gpt-5-mini", b"gpt-unheard-of")))
    exchange(bench, REQUEST)
    assert (bench.event.tokens_input, bench.event.model, bench.event.pricing_status) == (
        100,
        "gpt-unheard-of",
        "unpriced",
    )
    assert bench.event.charge_total is None


def test_a_model_in_the_path_is_what_was_requested_whatever_the_body_says() -> None:
    route = Route("POST", "/v1beta/models/{model}:generateContent", provider="google")
    bench = Bench(answering(b'{"usage": {"prompt_tokens": 1, "completion_tokens": 1}}'), routes=[route])
    exchange(bench, REQUEST, "/v1beta/models/gemini-\0flash:generateContent")
    assert (bench.event.model_requested, bench.event.provider) == (
        "gemini-\N{REPLACEMENT CHARACTER}flash",
        "google",
    )
    assert bench.event.endpoint == "/v1beta/models/gemini-\N{REPLACEMENT CHARACTER}flash:generateContent"


HOSTILE = [
    b"", b"null", b"[]", b"\xff\xfe", b"{" * 10_000, b"[" * 10_000 + b"]" * 10_000, b'{"usage": ' * 5_000,
    b'{"usage": {"prompt_tokens": -5, "completion_tokens": 1.5}}', b'{"usage": {"prompt_tokens": true}}',
    b'{"usage": {"prompt_tokens": 9007199254740993, "completion_tokens": 1e400}}', b'{"usage": "many"}',
    b'{"usage": {"prompt_tokens": {"a": []}}}', b'{"model": "\\ud800\\u0000", "usage": {"prompt_tokens": 1}}',
    b'{"model": {"a": 1}, "usage": {"prompt_tokens": 3, "completion_tokens": 4}}', b'{"usage": {"prompt_tokens": NaN}}',
]  # fmt: skip


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_the_application_answers_the_client_gets_it_and_one_event_is_kept(body: bytes) -> None:
    bench = Bench(answering(body))
    done = exchange(bench, REQUEST)
    assert (done.status, done.content) == (200, body)
    assert len(bench.store.events) == 1 and bench.store.quarantined == {}
    assert bench.event.tokens_input is None or 0 <= bench.event.tokens_input <= 2**53


@pytest.mark.parametrize("body", HOSTILE, ids=range(len(HOSTILE)))
def test_whatever_the_client_sends_the_application_gets_it(body: bytes) -> None:
    got: list[bytes] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        got.append((await receive())["body"])
        await answering(ANSWER)(scope, receive_nothing, send)

    async def receive_nothing() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    bench = Bench(app)
    assert exchange(bench, body).status == 200
    assert got == [body] and bench.event.charge_total == CHARGE


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
def test_a_compressed_answer_is_read_and_passed_on_as_it_is(encoding: str) -> None:
    packed = gzip.compress(ANSWER) if encoding == "gzip" else zlib.compress(ANSWER)
    bench = Bench(answering(packed, content_encoding=encoding))
    assert exchange(bench, REQUEST).content == packed
    assert bench.event.charge_total == CHARGE


def test_an_answer_in_an_unknown_encoding_is_kept_as_unknown() -> None:
    bench = Bench(answering(b"\x1b\x00\x00", content_encoding="br"))
    exchange(bench, REQUEST)
    assert (bench.event.usage_source, bench.event.charge_total) == ("none", None)


@pytest.mark.parametrize("refuses", [False, True], ids=["silent server", "raising server"])
def test_a_client_that_leaves_mid_stream_is_drained_and_settled_exactly(refuses: bool) -> None:
    bench = Bench(streaming(STREAM, pause=True))
    exchange(bench, REQUEST, leave_after=2, refuses=refuses)
    assert (bench.event.status, bench.event.usage_source) == ("client_disconnected", "reported")
    assert bench.event.charge_total == CHARGE


def test_beyond_the_bound_a_drain_is_cut_and_settled_by_estimate() -> None:
    bench = Bench(streaming([chunk("word ")] * 10_000, pause=True), drains=Drains(total_max=0))
    done = exchange(bench, REQUEST, leave_after=3)
    assert bench.event.status == "client_disconnected" and bench.event.usage_source != "reported"
    assert len(done.sent) < 10_000 and bench.store.holds == {}


def test_a_route_that_must_not_drain_lets_the_application_see_the_disconnect() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        assert (await receive())["type"] == "http.disconnect"

    bench = Bench(app, routes=[Route("POST", "/v1/chat/completions", drain=False)])
    exchange(bench, REQUEST, leave_after=2)
    assert bench.event.status == "client_disconnected"


def test_what_the_application_says_itself_wins_over_the_answer() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (
            record_usage(
                scope, tokens_input=7, tokens_output=0, model="demo-small", provider="demo", task_type="ocr"
            )
            is True
        )
        await answering(ANSWER)(scope, receive, send)

    bench = Bench(app)
    exchange(bench, REQUEST)
    event = bench.event
    assert (event.tokens_input, event.tokens_output, event.provider, event.task_type) == (7, 0, "demo", "ocr")
    assert event.charge_total == Decimal("0.000014")  # 7 × 2/1e6, and an explicit zero of output


def test_what_the_application_says_keeps_all_that_a_price_depends_on() -> None:
    said = {
        "model": "groq/compound", "service_tier": "flex",
        "usage": {"prompt_tokens": 30, "completion_tokens": 7, "total_tokens": 37, "cost": 0.001, "is_byok": True},
        "usage_breakdown": {"models": [
            {"model": "demo-small", "usage": {"prompt_tokens": 20, "completion_tokens": 3, "total_tokens": 23}},
            {"model": "other", "usage": {"prompt_tokens": 10, "completion_tokens": 4, "total_tokens": 14}},
        ]},
    }  # fmt: skip

    async def app(scope: Any, receive: Any, send: Any) -> None:
        record_usage(scope, usage=said)
        await answering(ANSWER)(scope, receive, send)

    bench = Bench(app)
    exchange(bench, REQUEST)
    context = json.loads(bytes(cast(Any, bench.event.context)))
    assert [part["model"] for part in context["parts"]] == ["demo-small", "other"]
    assert (context["service_tier"], context["byok"], context["reported_cost"]) == ("flex", True, "0.001")


def test_usage_in_a_header_wins_over_the_answer() -> None:
    bench = Bench(
        answering(ANSWER, x_usage='{"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}')
    )
    exchange(bench, REQUEST)
    assert (bench.event.tokens_input, bench.event.tokens_output) == (7, 0)


@pytest.mark.parametrize("value", ["", "{", "null", "[1]", "many"])
def test_a_header_that_says_nothing_readable_leaves_the_answer_its_word(value: str) -> None:
    bench = Bench(answering(ANSWER, x_usage=value))
    exchange(bench, REQUEST)
    assert bench.event.charge_total == CHARGE


def test_a_handed_over_file_cannot_slip_past() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["extensions"])
        await answering(ANSWER)(scope, receive, send)

    exchange(Bench(app), REQUEST)
    assert seen == [{}]


def test_a_client_cannot_choose_an_encoding_that_hides_its_usage() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"])[b"accept-encoding"])
        await answering(ANSWER)(scope, receive, send)

    for asked in ("br", "gzip, br;q=0.9, zstd", "*"):
        exchange(Bench(app), REQUEST, headers={"accept-encoding": asked})
    assert seen == [b"identity", b"gzip", b"identity"]


def test_chunks_that_are_no_bytes_objects_are_read_as_well() -> None:
    bench = Bench(streaming([memoryview(chunk) for chunk in STREAM]))  # type: ignore[misc]
    exchange(bench, REQUEST)
    assert bench.event.charge_total == CHARGE


def test_an_application_that_fails_to_start_says_so() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("no database")

    said: list[Any] = []

    async def receive() -> Any:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        said.append(message)

    asyncio.run(Bench(app).app({"type": "lifespan"}, receive, send))
    assert said == [{"type": "lifespan.startup.failed", "message": "no database"}]


def test_at_shutdown_calls_in_flight_are_settled_as_interrupted() -> None:
    bench = Bench(streaming([chunk("a")] * 50, pause=True))

    async def main() -> None:
        made = Exchange(bench, "/v1/chat/completions", REQUEST, {})
        call = asyncio.create_task(bench.app(made.scope, made.receive, made.send))
        while len(made.sent) < 3:  # noqa: ASYNC110  the call goes on meanwhile
            await asyncio.sleep(0.001)
        messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        said: list[Any] = []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            said.append(message["type"])

        async def no_lifespan(scope: Any, receive: Any, send: Any) -> None:
            raise ValueError("Django can only handle ASGI/HTTP connections, not lifespan.")

        bench.app.app = no_lifespan
        await bench.app({"type": "lifespan"}, receive, send)
        assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
        assert bench.event.status == "interrupted" and bench.store.holds == {}
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)

    asyncio.run(main())
    assert len(bench.store.events) == 1


def test_the_end_user_and_an_own_execution_id_are_kept() -> None:
    bench = Bench(
        answering(json.dumps({"execution_id": "exec-1", "model": "demo-small", "usage": USAGE}).encode())
    )
    exchange(bench, b'{"prompt": "x", "task_type": "sum"}', "/v1/execute", headers={"x-end-user": "mia"})
    assert (bench.event.execution_id, bench.event.user_id, bench.event.task_type) == ("exec-1", "mia", "sum")
