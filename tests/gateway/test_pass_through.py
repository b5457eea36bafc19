"""Calls that go to a provider: what it is sent, what comes back, and what becomes of its faults."""

import gzip
import json
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors as google_errors

from tests.gateway.conftest import ANTHROPIC_KEY, CALLER_KEY, GOOGLE_KEY, OPENAI_KEY, read_until_cut
from tests.gateway.metered import Metered
from tests.upstream import RunningUpstream
from tests.upstream.wire import COMPLETION_TOKENS, PROMPT_TOKENS, WORDS

CHAT: dict[str, Any] = {"model": "gpt-x", "messages": [{"role": "user", "content": "hi"}]}
MESSAGE: dict[str, Any] = {**CHAT, "model": "claude-x", "max_tokens": 9}
GENERATE = "/v1beta/models/gemini-x:generateContent"
GENERATE_EVENTS = "/v1/models/gemini-x:streamGenerateContent?alt=sse"
GENERATE_ARRAY = "/v1beta/models/gemini-x:streamGenerateContent"
CONTENTS: dict[str, Any] = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/responses": {"model": "gpt-x", "input": "hi"},
    "/v1/embeddings": {"model": "embed-x", "input": "hi"},
    "/v1/messages": MESSAGE,
    GENERATE: CONTENTS,
}
STREAMED = ["/v1/chat/completions", "/v1/responses", "/v1/messages"]
STREAM = {**CHAT, "stream": True}


@pytest.mark.parametrize("path", BODIES)
def test_an_answer_passes_byte_for_byte(http: httpx.Client, upstream: RunningUpstream, path: str) -> None:
    answer = http.post(path, json=BODIES[path])
    assert (answer.status_code, answer.content) == (200, upstream.last.answered)
    assert upstream.last.document == BODIES[path]


@pytest.mark.parametrize("fault", ["", "bytewise", "crlf", "huge"])
@pytest.mark.parametrize("path", STREAMED)
def test_a_stream_passes_byte_for_byte(
    http: httpx.Client, upstream: RunningUpstream, path: str, fault: str
) -> None:
    asked = {**BODIES[path], "stream": True, "stream_options": {"include_usage": True}}
    answer = http.post(path, json=asked, headers={"x-fault": fault})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.content == upstream.last.answered
    assert upstream.last.finished


@pytest.mark.parametrize(
    ("path", "fault"),
    [(GENERATE_EVENTS, fault) for fault in ("", "bytewise", "crlf", "huge")]
    + [(GENERATE_ARRAY, fault) for fault in ("", "bytewise", "huge")],
)
def test_a_stream_of_googles_passes_byte_for_byte(
    http: httpx.Client, upstream: RunningUpstream, path: str, fault: str
) -> None:
    answer = http.post(path, json=CONTENTS, headers={"x-fault": fault})
    kind = "text/event-stream; charset=utf-8" if "alt=sse" in path else "application/json; charset=UTF-8"
    assert answer.headers["content-type"] == kind
    assert answer.content == upstream.last.answered
    assert (upstream.last.finished, upstream.last.path) == (True, path.partition("?")[0])


def test_googles_client_is_passed_on_streamed_and_not(
    google_client: genai.Client, upstream: RunningUpstream
) -> None:
    answer = google_client.models.generate_content(model="gemini-x", contents="hi")
    chunks = list(google_client.models.generate_content_stream(model="gemini-x", contents="hi"))
    assert answer.text == "".join(chunk.text or "" for chunk in chunks) == "".join(WORDS)
    for usage in (answer.usage_metadata, chunks[-1].usage_metadata):
        assert usage is not None
        assert (usage.prompt_token_count, usage.candidates_token_count) == (PROMPT_TOKENS, COMPLETION_TOKENS)
    assert [(call.path, call.query) for call in upstream.calls] == [
        ("/v1beta/models/gemini-x:generateContent", ""),
        ("/v1beta/models/gemini-x:streamGenerateContent", "alt=sse"),
    ]
    assert str(upstream.last.header("x-goog-api-client")).startswith("google-genai-sdk/")


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("fields=candidates", {}),
        ("%24fields=candidates", {}),
        ("alt=proto", {"accept": "application/x-protobuf"}),
        ("", {"x-goog-fieldmask": "candidates"}),
        ("", {"content-type": "application/x-protobuf"}),
        ("", {"x-http-method-override": "GET"}),
    ],
)
def test_a_caller_cannot_have_its_usage_left_out_by_google(
    http: httpx.Client, upstream: RunningUpstream, query: str, headers: dict[str, str]
) -> None:
    http.post(f"{GENERATE}?{query}", content=json.dumps(CONTENTS), headers=headers)
    call = upstream.last
    assert (call.query, call.header("accept"), call.header("content-type")) == ("", "*/*", "application/json")
    assert (call.header("x-goog-fieldmask"), call.header("x-http-method-override")) == (None, None)


def test_a_model_with_a_question_mark_in_its_name_makes_no_query(
    http: httpx.Client, upstream: RunningUpstream
) -> None:
    http.post("/v1beta/models/gemini-x%3Ffields=candidates&x:generateContent", json=CONTENTS)
    assert (upstream.last.model, upstream.last.query) == ("gemini-x?fields=candidates&x", "")


def test_a_key_of_ours_that_google_refuses_is_our_error(
    http: httpx.Client, upstream: RunningUpstream
) -> None:
    answer = http.post(GENERATE, json=CONTENTS, headers={"x-fault": "401"})
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_refused_key")
    assert answer.json()["error"]["status"] == "UNAVAILABLE"


def test_googles_own_error_reaches_its_client(google_client: genai.Client, upstream: RunningUpstream) -> None:
    with pytest.raises(google_errors.ClientError, match="The double says 429") as caught:
        list(google_client.models.generate_content_stream(model="fault-429", contents="hi"))
    assert (caught.value.code, caught.value.status) == (429, "RESOURCE_EXHAUSTED")


@pytest.mark.parametrize("query", ["?alt=sse", ""])
@pytest.mark.parametrize("fault", ["cut", "cut-late"])
def test_a_stream_of_googles_that_is_cut_off_ends_cut_off(
    http: httpx.Client, upstream: RunningUpstream, query: str, fault: str
) -> None:
    path = f"/v1/models/fault-{fault}:streamGenerateContent{query}"
    received = read_until_cut(http, path, CONTENTS)
    assert received
    assert b"finishReason" not in received
    assert not upstream.last.finished


def test_the_body_goes_up_as_it_came(http: httpx.Client, upstream: RunningUpstream) -> None:
    body = b'{ "model" : "gpt-x",  "temperature": 1.0, "seed": 12345678901234567890, "messages": [] }'
    http.post("/v1/chat/completions", content=body)
    assert upstream.last.body == body


def test_a_compressed_request_goes_up_unfolded(http: httpx.Client, upstream: RunningUpstream) -> None:
    http.post(
        "/v1/chat/completions",
        content=gzip.compress(json.dumps(CHAT).encode()),
        headers={"content-encoding": "gzip"},
    )
    assert upstream.last.document == CHAT
    assert upstream.last.header("content-encoding") is None


@pytest.mark.parametrize("path", BODIES)
def test_the_upstream_sees_our_key_and_never_the_callers(
    http: httpx.Client, upstream: RunningUpstream, path: str
) -> None:
    secret = {
        "x-api-key": CALLER_KEY,
        "x-goog-api-key": CALLER_KEY,
        "cookie": f"s={CALLER_KEY}",
        "x-forwarded-for": CALLER_KEY,
    }
    http.post(f"{path}?beta=true&key={CALLER_KEY}", json=BODIES[path], headers=secret)
    call = upstream.last
    assert CALLER_KEY not in f"{call.headers} {call.query} {call.body!r}"
    expected = {"/v1/messages": (None, ANTHROPIC_KEY, None), GENERATE: (None, None, GOOGLE_KEY)}.get(
        path, (f"Bearer {OPENAI_KEY}", None, None)
    )
    assert tuple(map(call.header, ("authorization", "x-api-key", "x-goog-api-key"))) == expected
    assert call.query == ("" if path == GENERATE else "beta=true")
    assert call.header("accept-encoding") == "identity"


def test_the_official_clients_protocol_headers_go_up(
    anthropic_client: anthropic.Anthropic, upstream: RunningUpstream
) -> None:
    anthropic_client.messages.create(
        model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    )
    assert upstream.last.header("anthropic-version") == anthropic_client.default_headers["anthropic-version"]


def test_a_cookie_of_one_callers_answer_never_travels_with_another(
    http: httpx.Client, upstream: RunningUpstream
) -> None:
    answer = http.post("/v1/chat/completions", json=CHAT, headers={"x-fault": "cookie"})
    http.post("/v1/chat/completions", json=CHAT)
    assert "set-cookie" not in answer.headers
    assert "openai-organization" not in answer.headers
    assert upstream.last.header("cookie") is None


def test_usage_is_asked_for_where_the_caller_did_not_and_taken_out_again(
    openai_client: openai.OpenAI, upstream: RunningUpstream, metered: Metered
) -> None:
    stream = openai_client.chat.completions.create(
        model="gpt-x", messages=[{"role": "user", "content": "hi"}], stream=True
    )
    chunks = list(stream)
    assert upstream.last.document["stream_options"] == {"include_usage": True}
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "".join(WORDS)
    assert all(chunk.usage is None for chunk in chunks)
    assert metered.reported is not None
    assert metered.reported.buckets["in_uncached"] == PROMPT_TOKENS
    assert metered.reported.buckets["out_visible"] == COMPLETION_TOKENS
    assert (metered.reported.model, metered.reported.provider) == ("gpt-x", "openai")


@pytest.mark.parametrize("fault", ["", "bytewise", "crlf", "huge", "gzip"])
def test_only_the_usage_chunk_is_taken_out(
    http: httpx.Client, upstream: RunningUpstream, metered: Metered, fault: str
) -> None:
    answer = http.post("/v1/chat/completions", json=STREAM, headers={"x-fault": fault})
    sent = gzip.decompress(upstream.last.answered) if fault == "gzip" else upstream.last.answered
    end = b"\r\n\r\n" if fault == "crlf" else b"\n\n"
    kept = [event for event in sent.split(end) if b'"choices":[]' not in event]
    comment = (
        b": keep-alive" + end if fault == "crlf" else b""
    )  # stood in front of the chunk, and is an event of its own
    assert answer.content.count(b"data:") == len([event for event in kept if b"data:" in event])
    assert answer.content.replace(comment, b"") == end.join(kept).replace(comment, b"")
    assert metered.reported is not None
    assert metered.reported.tokens_total == PROMPT_TOKENS + COMPLETION_TOKENS


@pytest.mark.parametrize("options", [None, {"include_usage": False}, {"include_obfuscation": False}])
def test_other_stream_options_are_kept(
    http: httpx.Client, upstream: RunningUpstream, options: object
) -> None:
    answer = http.post("/v1/chat/completions", json={**STREAM, "stream_options": options})
    assert upstream.last.document["stream_options"] == {
        **(options if isinstance(options, dict) else {}),
        "include_usage": True,
    }
    assert b"prompt_tokens" not in answer.content


@pytest.mark.parametrize(
    "asked",
    [CHAT, {**CHAT, "stream": False}, {**CHAT, "stream": "yes"}, {**STREAM, "stream_options": []},
     {**STREAM, "stream_options": {"include_usage": True}}],
)  # fmt: skip
def test_nothing_is_added_where_nothing_is_missing(
    http: httpx.Client, upstream: RunningUpstream, metered: Metered, asked: dict[str, Any]
) -> None:
    if asked.get("stream_options") == []:
        asked = {**asked, "model": "fault-500"}  # the double would not know what to make of it
    body = json.dumps(asked).encode()
    http.post("/v1/chat/completions", content=body)
    assert upstream.last.body == body
    assert metered.reported is None


def test_a_stream_without_usage_reports_none(
    http: httpx.Client, upstream: RunningUpstream, metered: Metered
) -> None:
    answer = http.post("/v1/chat/completions", json=STREAM, headers={"x-fault": "no-usage"})
    assert answer.content == upstream.last.answered
    assert metered.reported is None


@pytest.mark.parametrize(
    ("path", "asked", "begins"),
    [
        ("/v1/chat/completions", STREAM, b"data:"),
        (GENERATE_EVENTS, CONTENTS, b"data:"),
        (GENERATE_ARRAY, CONTENTS, b"[{"),
    ],
)
def test_events_pass_while_the_upstream_is_still_speaking(
    http: httpx.Client, upstream: RunningUpstream, path: str, asked: dict[str, Any], begins: bytes
) -> None:
    with http.stream("POST", path, json=asked, headers={"x-fault": "slow", "x-pause": "0.1"}) as answer:
        first = next(answer.iter_raw())
        assert first.startswith(begins)
        assert not upstream.last.finished


@pytest.mark.parametrize(("fault", "status"), [("429", 429), ("500", 500), ("529", 529)])
@pytest.mark.parametrize("stream", [False, True])
def test_the_providers_own_errors_pass(
    http: httpx.Client, upstream: RunningUpstream, fault: str, status: int, stream: bool
) -> None:
    answer = http.post("/v1/messages", json={**MESSAGE, "stream": stream}, headers={"x-fault": fault})
    assert (answer.status_code, answer.content) == (status, upstream.last.answered)
    assert answer.headers.get("retry-after") == ("2" if status == 429 else None)


def test_the_official_client_reads_the_providers_error(
    openai_client: openai.OpenAI, upstream: RunningUpstream
) -> None:
    with pytest.raises(openai.RateLimitError, match="The double says 429"):
        openai_client.chat.completions.create(model="fault-429", messages=[{"role": "user", "content": "hi"}])


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("401", 502, "upstream_refused_key"), ("redirect", 502, "upstream_redirected"), ("hang", 504, "upstream_timeout"),
     ("cut", 502, "upstream_broken")],
)  # fmt: skip
def test_what_the_upstream_says_to_us_becomes_an_error_of_ours(
    http: httpx.Client, upstream: RunningUpstream, fault: str, status: int, code: str
) -> None:
    answer = http.post("/v1/chat/completions", json=CHAT, headers={"x-fault": fault})
    problem = answer.json()
    assert (answer.status_code, problem["code"], problem["request_id"]) == (status, code, "req-of-the-meter")
    assert problem["error"]["message"] == problem["detail"]
    assert answer.headers["content-type"] == "application/problem+json"
    assert "x-request-id" not in answer.headers  # the meter sets it
    assert OPENAI_KEY not in answer.text


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("fault", ["cut", "cut-late"])
def test_a_stream_that_is_cut_off_ends_cut_off(
    http: httpx.Client, upstream: RunningUpstream, path: str, fault: str
) -> None:
    asked = {**BODIES[path], "stream": True}
    received = read_until_cut(http, path, {**asked, "model": f"fault-{fault}"})
    assert received
    assert b"[DONE]" not in received
    assert b"message_stop" not in received
    assert not upstream.last.finished


@pytest.mark.parametrize("stream", [False, True])
def test_garbage_passes_as_it_is(
    http: httpx.Client, upstream: RunningUpstream, metered: Metered, stream: bool
) -> None:
    answer = http.post(
        "/v1/chat/completions", json={**CHAT, "stream": stream}, headers={"x-fault": "garbage"}
    )
    assert (answer.status_code, answer.content) == (200, upstream.last.answered)
    assert metered.reported is None


def test_a_compressed_answer_passes_compressed(http: httpx.Client, upstream: RunningUpstream) -> None:
    with http.stream("POST", "/v1/chat/completions", json=CHAT, headers={"x-fault": "gzip"}) as answer:
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == "gzip"
    assert raw == upstream.last.answered


def test_a_demo_model_never_goes_up(http: httpx.Client, upstream: RunningUpstream) -> None:
    assert http.post("/v1/chat/completions", json={**CHAT, "model": "demo-small"}).status_code == 200
    assert http.post("/v1/chat/completions", json={**CHAT, "model": "demo-huge"}).status_code == 404
    assert upstream.calls == []


def test_an_upstream_says_itself_that_the_model_is_missing(
    http: httpx.Client, upstream: RunningUpstream
) -> None:
    answer = http.post("/v1/chat/completions", json={"messages": []})
    assert (answer.status_code, answer.content) == (400, upstream.last.answered)


def test_calls_are_told_to_whoever_asks_the_double(http: httpx.Client, upstream: RunningUpstream) -> None:
    http.post("/v1/chat/completions", json={**CHAT, "user": "ann"})
    http.post("/v1/messages", json={**MESSAGE, "metadata": {"user_id": "bob"}})
    told = httpx.get(f"{upstream.url}/_calls").json()
    assert [(call["path"], call["caller"], call["finished"]) for call in told] == [
        ("/v1/chat/completions", "ann", True),
        ("/v1/messages", "bob", True),
    ]
