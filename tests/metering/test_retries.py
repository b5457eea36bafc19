"""One call sent several times with one Idempotency-Key, from outside: what the client sees, and what is charged."""

import asyncio
import json
import tracemalloc
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
    "changed",
    [
        {"method": "PUT"},
        {"path": "/v1/responses"},
        {"query": b"a=1"},
        {"content_type": b"application/json; charset=utf-16"},
        {"body": b"[]"},
    ],
)
def test_the_payload_of_a_key_is_method_path_query_content_type_and_body(changed: dict[str, Any]) -> None:
    assert claim().key_hash == claim(**changed).key_hash
    assert claim().payload_hash != claim(**changed).payload_hash


def test_a_form_sent_again_is_the_same_although_its_boundary_is_drawn_anew() -> None:
    def form(boundary: bytes, text: bytes = b"x") -> Any:
        body = b'--%b\r\nContent-Disposition: form-data; name="file"\r\n\r\n%b\r\n--%b--\r\n'
        kind = b"multipart/form-data; boundary=" + boundary
        return claim(content_type=kind, body=body % (boundary, text, boundary))

    assert form(b"abc123") == form(b"def456")
    assert form(b"abc123") != form(b"abc123", b"y")


def boundary(value: bytes) -> bytes:
    return b"multipart/form-data; boundary=" + value


def test_a_boundary_that_is_the_prompt_does_not_hide_the_prompt() -> None:
    def posing(prompt: bytes) -> Any:
        return claim(content_type=boundary(prompt), body=REQUEST.replace(b'"hi"', b'"%b"' % prompt))

    assert posing(b"one").payload_hash != posing(b"two").payload_hash


def test_two_prompts_that_pose_as_the_boundary_are_never_one_call() -> None:
    bench = Bench(answering(ANSWER))

    async def main() -> list[int]:
        statuses = []
        for prompt, key in ((b"hi", "k"), (b"ho", "k"), (b"ho", "another")):
            headers = {"idempotency-key": key, "content-type": boundary(prompt).decode()}
            made = Exchange(bench, CHAT, REQUEST.replace(b"hi", prompt), headers)
            await bench.app(made.scope, made.receive, made.send)
            statuses.append(made.status)
        await bench.recorder.stop()
        return statuses

    assert asyncio.run(main()) == [200, 409, 200], "under one key the second is another payload"
    assert [event.charge_total for event in events(bench)] == [CHARGE, CHARGE], "each under its own key"


FORM = b"--%b\r\n\r\n%b\r\n--%b--\r\n"
PLAIN = b"--%b\r\n\r\nx\r\n--%b--\r\n"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"application/json; boundary=%b", PLAIN),
        (b"multipart/form-data; boundary=A; boundary=%b", PLAIN),
        (b"multipart/form-data; boundary=%b; boundary*=A", PLAIN),
        (b"multipart/form-data; boundary=A,multipart/form-data; boundary=%b", PLAIN),
        (b"multipart/form-data; boundary=%b", b"notes--\r\n" + PLAIN),
        (b"multipart/form-data; boundary=%b", b"--%b\r\n\r\n\r\n--%b is text\r\n--%b--"),
        (b"multipart/form-data; boundary=%b", b"--%b goes on\r\nx\r\n--%b--"),
        (b"multipart/form-data; boundary=%b" + b"x" * 70, PLAIN),
    ],
    ids=[
        "no form",
        "two boundaries",
        "an extended one",
        "two headers",
        "a preamble",
        "at the start of a line",
        "no line of its own",
        "too long",
    ],
)
def test_a_boundary_that_may_be_content_is_compared(kind: bytes, body: bytes) -> None:
    def of(value: bytes) -> Any:
        sent = value + kind.partition(b"=%b")[2] if kind.endswith(b"x") else value
        return claim(content_type=kind % value, body=body.replace(b"%b", sent))

    assert of(b"one") == of(b"one")
    assert of(b"one").payload_hash != of(b"two").payload_hash


def test_of_two_content_types_none_is_taken_for_the_other() -> None:
    bench = Bench(answering(ANSWER))

    async def main() -> list[int]:
        statuses = []
        for value in (b"one", b"two"):
            made = Exchange(bench, CHAT, PLAIN.replace(b"%b", value), {"idempotency-key": "k"})
            types = [(b"content-type", boundary(b"A")), (b"content-type", boundary(value))]
            made.scope["headers"] = [*made.scope["headers"], *types]
            await bench.app(made.scope, made.receive, made.send)
            statuses.append(made.status)
        await bench.recorder.stop()
        return statuses

    assert asyncio.run(main()) == [200, 409]


@pytest.mark.parametrize(
    "kind", [b'Multipart/Form-Data; charset=utf-8; boundary="%b"', b"multipart/mixed;boundary=%b;a=b"]
)
def test_a_boundary_is_known_in_quotes_and_among_other_parameters(kind: bytes) -> None:
    def form(value: bytes, text: bytes = b"x") -> Any:
        return claim(content_type=kind % value, body=FORM % (value, text, value))

    assert form(b"abc123") == form(b"def456") != form(b"def456", b"y")


def test_what_stands_between_delimiters_cannot_pass_for_a_delimiter() -> None:
    in_two = b"--B1\r\n\r\nx\r\n--B1\r\n\r\ny\r\n--B1--"
    in_one = b"--B2\r\n\r\nx\r\n--B1\r\n\r\ny\r\n--B2--"
    joined = b"--B1\r\n\r\nx\r\n\r\ny\r\n--B1--"
    sent = [(b"B1", in_two), (b"B2", in_one), (b"B2", in_two), (b"B1", joined)]
    told = {claim(content_type=boundary(name), body=body).payload_hash for name, body in sent}
    assert len(told) == len(sent)
    renamed = in_one.replace(b"B2", b"boundary")
    assert claim(content_type=boundary(b"boundary"), body=renamed).payload_hash in told, "B2 by another name"


def test_a_boundary_in_a_part_is_compared_for_a_lenient_reader_may_take_it_for_a_delimiter() -> None:
    body = b"--%b\r\n\r\nx\n--B1\ny\r\n--%b--"  # a line that ends in LF alone
    found, other = (claim(content_type=boundary(name), body=body % (name, name)) for name in (b"B1", b"B2"))
    assert found.payload_hash != other.payload_hash


@pytest.mark.parametrize(("delimiters", "same"), [(1_000, True), (1_001, False)])
def test_a_form_of_more_than_a_thousand_delimiters_is_compared_as_it_was_sent(
    delimiters: int, same: bool
) -> None:
    def form(value: bytes) -> Any:
        return claim(content_type=boundary(value), body=b"\r\n".join([b"--%b\r\n" % value] * delimiters))

    assert (form(b"abc") == form(b"def")) is same


def test_no_boundary_makes_more_of_a_body_than_was_sent() -> None:
    size = 8 * 2**20
    bodies = [b"0" * size, (b"--0\r\n" + b"0" * size)[:size], (b"--0\r\n\r\n" * (size // 7))[:size]]
    tracemalloc.start()
    for body in bodies:
        assert claim(content_type=boundary(b"0"), body=body) is not None
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * size, "the pieces of a body are as long as the body; beside them one rest at most"


def test_nothing_can_be_claimed_without_a_key_or_without_a_body_to_compare() -> None:
    assert claim(b"") is None and claim(body=None) is None
    assert claim(body=b"") is not None, "an empty body is one"
