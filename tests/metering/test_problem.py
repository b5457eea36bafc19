"""Refusals on the wire, as a plain client and as the official clients see them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anthropic
import openai
import pytest
from google import genai
from google.genai import errors as google_errors

from metering import problem
from metering.problem import Native, Refusal, problem_response

EVERY_REFUSAL = [
    (problem.invalid_api_key(), 401, "invalid_api_key", None, False),
    (problem.customer_suspended(), 403, "customer_suspended", None, False),
    (problem.credits_do_not_cover(), 402, "insufficient_credits", None, False),
    (problem.quota_exceeded(3600), 429, "quota_exceeded", "3600", False),
    (problem.budget_exceeded(60), 429, "budget_exceeded", "60", False),
    (problem.rate_limited(2), 429, "rate_limited", "2", True),
    (problem.model_not_priced("gpt-9"), 403, "model_not_priced", None, False),
    (problem.metering_unavailable(5), 503, "metering_unavailable", "5", True),
    (problem.invalid_request("No."), 400, "invalid_request", None, False),
    (problem.idempotency_conflict(), 409, "idempotency_conflict", None, False),
]


@pytest.mark.parametrize(("refusal", "status", "code", "retry_after", "retryable"), EVERY_REFUSAL)
def test_every_refusal_has_its_status_code_and_retry_advice(
    refusal: Refusal, status: int, code: str, retry_after: str | None, retryable: bool
) -> None:
    answered, pairs, body = problem_response(refusal, "req-1")
    headers = {name.decode(): value.decode() for name, value in pairs}
    document = json.loads(body)
    assert (answered, document["status"], document["code"]) == (status, status, code)
    assert document["type"] == f"urn:tollgate:problem:{code}"
    assert document["title"] and document["detail"] and document["request_id"] == "req-1"
    assert headers["content-type"] == "application/problem+json"
    assert headers["content-length"] == str(len(body))
    assert headers["x-request-id"] == "req-1"
    assert headers.get("retry-after") == retry_after
    assert ("retry-after-ms" in headers) == retryable == ("x-should-retry" not in headers)
    assert headers.get("x-should-retry", "false") == "false"
    assert ("www-authenticate" in headers) == (status == 401)


def test_milliseconds_are_a_thousand_times_the_seconds() -> None:
    assert (b"retry-after-ms", b"2000") in problem_response(problem.rate_limited(2), "r")[1]


@pytest.mark.parametrize("request_id", ["a\r\nx: y", "é", "\udc80"])
def test_a_request_id_that_is_no_header_text_stays_out_of_the_headers(request_id: str) -> None:
    _, headers, body = problem_response(problem.invalid_api_key(), request_id)
    assert b"x-request-id" not in dict(headers)
    assert json.loads(body)["code"] == "invalid_api_key"


@contextmanager
def a_server_that_refuses(refusal: Refusal, native: Native) -> Iterator[tuple[str, list[str]]]:
    """A real HTTP server that answers everything with `refusal`; its address and the paths it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            asked.append(self.path)
            status, headers, body = problem_response(refusal, "req-1", native)
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name.decode(), value.decode())
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_openai_client_raises_its_own_error_with_our_message() -> None:
    with (
        a_server_that_refuses(problem.invalid_api_key("Unknown key."), "openai") as (url, asked),
        openai.OpenAI(api_key="wrong", base_url=f"{url}/v1") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="gpt-5.6", messages=[{"role": "user", "content": "Hi"}])
    assert "Unknown key." in str(caught.value)
    assert caught.value.code == "invalid_api_key" and caught.value.request_id == "req-1"
    assert asked == ["/v1/chat/completions"]


def test_the_anthropic_client_raises_its_own_error_with_our_message() -> None:
    with (
        a_server_that_refuses(problem.invalid_api_key("Unknown key."), "anthropic") as (url, asked),
        anthropic.Anthropic(api_key="wrong", base_url=url) as client,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        client.messages.create(model="demo-small", max_tokens=8, messages=[{"role": "user", "content": "Hi"}])
    assert "Unknown key." in str(caught.value)
    assert (
        isinstance(caught.value.body, dict) and caught.value.body["error"]["type"] == "authentication_error"
    )
    assert asked == ["/v1/messages"]


@pytest.mark.parametrize(
    "refusal", [problem.quota_exceeded(3600), problem.idempotency_conflict(), problem.credits_do_not_cover()]
)
def test_the_clients_do_not_repeat_what_cannot_help(refusal: Refusal) -> None:
    with (
        a_server_that_refuses(refusal, "openai") as (url, asked),
        openai.OpenAI(api_key="key", base_url=f"{url}/v1") as client,
        pytest.raises(openai.APIStatusError),
    ):
        client.embeddings.create(model="text-embedding-3-small", input="Hi")
    assert asked == ["/v1/embeddings"]


def test_the_anthropic_client_does_not_repeat_a_spent_quota() -> None:
    with (
        a_server_that_refuses(problem.quota_exceeded(3600), "anthropic") as (url, asked),
        anthropic.Anthropic(api_key="key", base_url=url) as client,
        pytest.raises(anthropic.RateLimitError),
    ):
        client.messages.create(model="demo-small", max_tokens=8, messages=[{"role": "user", "content": "Hi"}])
    assert asked == ["/v1/messages"]


def google_client(url: str, *, attempts: int = 1) -> genai.Client:
    """Google's client, which is told its retries at its making; it repeats nothing by itself."""
    retries = genai.types.HttpRetryOptions(attempts=attempts, initial_delay=0.01, max_delay=0.01, jitter=0)
    return genai.Client(
        api_key="key", http_options=genai.types.HttpOptions(base_url=url, retry_options=retries)
    )


@pytest.mark.parametrize(
    ("refusal", "code", "status"),
    [
        (problem.invalid_api_key("Unknown key."), 401, "UNAUTHENTICATED"),
        (problem.customer_suspended("Unknown key."), 403, "PERMISSION_DENIED"),
        (problem.credits_do_not_cover("Unknown key."), 402, "RESOURCE_EXHAUSTED"),
        (problem.quota_exceeded(3600, "Unknown key."), 429, "RESOURCE_EXHAUSTED"),
        (problem.invalid_request("Unknown key."), 400, "INVALID_ARGUMENT"),
    ],
)
def test_the_google_client_raises_its_own_error_with_our_message(
    refusal: Refusal, code: int, status: str
) -> None:
    with (
        a_server_that_refuses(refusal, "google") as (url, asked),
        google_client(url) as client,
        pytest.raises(google_errors.ClientError) as caught,
    ):
        client.models.generate_content(model="demo-small", contents="Hi")
    assert (caught.value.code, caught.value.status, caught.value.message) == (code, status, "Unknown key.")
    assert [path.partition("/models/")[2] for path in asked] == ["demo-small:generateContent"]


def test_the_google_client_raises_a_server_error_where_usage_cannot_be_recorded() -> None:
    with (
        a_server_that_refuses(problem.metering_unavailable(5), "google") as (url, asked),
        google_client(url, attempts=2) as client,
        pytest.raises(google_errors.ServerError) as caught,
    ):
        list(client.models.generate_content_stream(model="demo-small", contents="Hi"))
    assert (caught.value.code, caught.value.status) == (503, "UNAVAILABLE")
    assert caught.value.details["error"]["details"] == [
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "5s"}
    ]
    assert len(asked) == 2


def test_googles_document_leaves_the_number_to_the_error_object() -> None:
    """Its client reads a `status` at the top in place of the name in the error object."""
    document = problem.problem_document(problem.rate_limited(2), "req-1", "google")
    assert "status" not in document and document["error"]["code"] == 429
    assert (document["code"], document["request_id"]) == ("rate_limited", "req-1")
