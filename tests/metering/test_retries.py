"""One call sent several times with one Idempotency-Key, from outside: what the client sees, and what is charged."""

import asyncio
import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from django.test import RequestFactory

from metering.claim import claim_of
from metering.rows import EventRow
from tests.metering.asgi import App, Bench, Exchange, answering, streaming
from tests.metering.test_django_middleware import Host, whole
from tests.metering.test_middleware import ANSWER, CHARGE, COST, REQUEST, STREAM, chunk

CHAT = "/v1/chat/completions"


def answering_in_turn(*apps: App) -> App:
    """The first request goes to the first application, and so on."""
    waiting = iter(apps)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await next(waiting)(scope, receive, send)

    return app


def exchanges(bench: Bench, *requests: Any, key: str = "retry-1", path: str = CHAT) -> list[Exchange]:
    """One request after another under one key; a request is a body, or a body and after how many messages its client
    leaves. An application that raises has not answered."""

    async def main() -> list[Exchange]:
        done = []
        for request in requests:
            body, leaves = request if isinstance(request, tuple) else (request, None)
            made = Exchange(bench, path, body, {"idempotency-key": key})
            made.leave_after = leaves
            await asyncio.gather(bench.app(made.scope, made.receive, made.send), return_exceptions=True)
            done.append(made)
        await bench.recorder.stop()
        return done

    return asyncio.run(main())


def events(bench: Bench) -> list[EventRow]:
    """In the order in which they were settled."""
    return list(bench.store.events.values())


def context(event: EventRow) -> Any:
    document: Any = event.context
    return msgspec.json.decode(document) if isinstance(document, msgspec.Raw) else document


def test_a_repeat_is_answered_and_free_and_says_whom_it_repeats() -> None:
    bench = Bench(answering(ANSWER))
    first, second = exchanges(bench, REQUEST, REQUEST)
    paid, repeat = events(bench)
    assert (paid.charge_total, repeat.charge_total) == (CHARGE, 0)
    assert (paid.cost_total, repeat.cost_total) == (COST, COST), "each attempt costs us"
    assert context(repeat)["repeat_of"] == str(paid.id) and repeat.tokens_total == 150
    assert first.headers["x-usage-charge"] == "0.0004" and second.headers["x-usage-charge"] == "0"
    assert first.content == second.content == ANSWER
    assert (paid.idempotency_key, repeat.idempotency_key) == ("retry-1", "retry-1")
    (day,) = bench.store.daily.values()
    assert (day["events"], day["quantity"], day["charge_total"]) == (2, 1, CHARGE)


def test_calls_without_a_key_are_charged_each() -> None:
    bench = Bench(answering(ANSWER))
    exchanges(bench, REQUEST, REQUEST, key="")
    assert [event.charge_total for event in events(bench)] == [CHARGE, CHARGE]
    assert bench.store.keys == {} and {event.idempotency_key for event in events(bench)} == {""}


def test_two_keys_are_two_calls() -> None:
    bench = Bench(answering(ANSWER))
    exchanges(bench, REQUEST, key="one")
    bench.recorder.start()
    exchanges(bench, REQUEST, key="two")
    assert [event.charge_total for event in events(bench)] == [CHARGE, CHARGE]


def test_attempts_at_the_same_time_are_both_answered_and_charged_once() -> None:
    bench = Bench(streaming(STREAM, pause=True))

    async def main() -> None:
        made = [Exchange(bench, CHAT, REQUEST, {"idempotency-key": "k"}) for _ in range(4)]
        await asyncio.gather(*(bench.app(one.scope, one.receive, one.send) for one in made))
        assert {one.content for one in made} == {b"".join(STREAM)}
        await bench.recorder.stop()

    asyncio.run(main())
    assert sorted(event.charge_total or 0 for event in events(bench)) == [0, 0, 0, CHARGE]


async def breaking(scope: Any, receive: Any, send: Any) -> None:
    raise RuntimeError("no answer")


NO_USAGE = answering(b'{"model": "gpt-5-mini", "choices": []}')


@pytest.mark.parametrize(
    "failing",
    [breaking, answering(b"{}", status=502), answering(b"{}", status=429), NO_USAGE],
    ids=["raises", "502", "429", "no usage"],
)
def test_an_attempt_that_failed_leaves_the_paying_to_the_next(failing: App) -> None:
    bench = Bench(answering_in_turn(failing, answering(ANSWER), answering(ANSWER)))
    exchanges(bench, REQUEST, REQUEST, REQUEST)
    assert [event.charge_total for event in events(bench)[1:]] == [CHARGE, 0]
    assert events(bench)[0].charge_total in (0, None)


def test_an_attempt_that_fails_after_the_answer_says_whom_it_repeats_as_well() -> None:
    bench = Bench(answering_in_turn(answering(ANSWER), answering(b"{}", status=502), breaking))
    exchanges(bench, REQUEST, REQUEST, REQUEST)
    paid, *failed = events(bench)
    assert [event.charge_total for event in (paid, *failed)] == [CHARGE, 0, 0]
    assert {context(event)["repeat_of"] for event in failed} == {str(paid.id)}
    assert {event.pricing_status for event in failed} == {"partial"}, "their cost is unknown"


def test_a_client_that_left_pays_for_the_answer_that_was_read_to_its_end_and_not_for_its_retry() -> None:
    bench = Bench(streaming(STREAM, pause=True))
    exchanges(bench, (REQUEST, 2), REQUEST)
    assert [(event.status, event.charge_total) for event in events(bench)] == [
        ("client_disconnected", CHARGE),
        ("ok", 0),
    ]


def test_an_answer_that_broke_off_and_the_whole_one_cost_together_what_the_whole_one_costs() -> None:
    part = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    broken = streaming([chunk("Hel", part)], fail=True)
    bench = Bench(answering_in_turn(broken, streaming(STREAM), streaming(STREAM)))
    exchanges(bench, REQUEST, REQUEST, REQUEST)
    of_part = (100 * 2 + 10 * 4) / Decimal(1_000_000)
    assert [event.charge_total for event in events(bench)] == [of_part, CHARGE - of_part, 0]
    assert events(bench)[0].status == "error_after_output"


OTHER = REQUEST.replace(b"hi", b"ho")


def test_the_same_key_with_another_payload_is_refused_as_openai_says_it() -> None:
    reached = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope["path"])
        await answering(ANSWER)(scope, receive, send)

    bench = Bench(app)
    _, refused = exchanges(bench, REQUEST, OTHER)
    answer = json.loads(refused.content)
    assert (refused.status, answer["code"]) == (409, "idempotency_conflict")
    assert answer["error"]["code"] == "idempotency_conflict" and answer["error"]["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert reached == [CHAT], "no upstream call"
    assert len(events(bench)) == 1 and bench.store.holds == {}


def test_the_same_key_with_another_payload_is_refused_as_anthropic_says_it() -> None:
    bench = Bench(answering(b'{"usage": {"input_tokens": 1, "output_tokens": 1}}'))
    _, refused = exchanges(bench, REQUEST, OTHER, path="/v1/messages")
    answer = json.loads(refused.content)
    assert (refused.status, answer["type"]) == (409, "error")
    assert answer["error"]["type"] == "invalid_request_error"


def test_a_key_is_taken_by_its_payload_even_before_anybody_answered() -> None:
    bench = Bench(breaking)
    _, refused = exchanges(bench, REQUEST, OTHER)
    assert refused.status == 409


def test_a_request_too_long_to_be_read_repeats_nothing() -> None:
    bench = Bench(answering(ANSWER), request_bytes_max=8)
    exchanges(bench, REQUEST, REQUEST, OTHER)
    assert [event.charge_total for event in events(bench)] == [CHARGE] * 3
    assert bench.store.keys == {}


def test_the_django_entry_knows_repeats_and_conflicts() -> None:
    host = Host()

    def post(body: bytes) -> Any:
        request = RequestFactory().post(
            CHAT, body, content_type="application/json", HTTP_IDEMPOTENCY_KEY="retry-1"
        )
        return host.entry.call(whole, request)

    told = [post(REQUEST)["X-Usage-Charge"] for _ in range(2)]
    refused = post(OTHER)
    host.close()
    assert told == ["0.0004", "0"]
    assert (refused.status_code, json.loads(refused.content)["code"]) == (409, "idempotency_conflict")


def claim(key: bytes = b"k", body: bytes | None = b"{}", **changed: Any) -> Any:
    values: dict[str, Any] = {
        "method": "POST",
        "path": CHAT,
        "query": b"",
        "content_type": b"application/json",
    }
    return claim_of(key, body=body, **(values | changed))


@pytest.mark.parametrize(
    "changed", [{"method": "PUT"}, {"path": "/v1/responses"}, {"query": b"a=1"}, {"body": b"[]"}]
)
def test_the_payload_of_a_key_is_method_path_query_and_body(changed: dict[str, Any]) -> None:
    assert claim().key_hash == claim(**changed).key_hash
    assert claim().payload_hash != claim(**changed).payload_hash


def test_a_form_sent_again_is_the_same_although_its_boundary_is_drawn_anew() -> None:
    def form(boundary: bytes, text: bytes = b"x") -> Any:
        body = b'--%b\r\nContent-Disposition: form-data; name="file"\r\n\r\n%b\r\n--%b--\r\n'
        kind = b"multipart/form-data; boundary=" + boundary
        return claim(content_type=kind, body=body % (boundary, text, boundary))

    assert form(b"abc123") == form(b"def456")
    assert form(b"abc123") != form(b"abc123", b"y")


def test_nothing_can_be_claimed_without_a_key_or_without_a_body_to_compare() -> None:
    assert claim(b"") is None and claim(body=None) is None
    assert claim(body=b"") is not None, "an empty body is one"
