"""What passes between caller and upstream, and what never does."""

import pytest

from project.gateway.headers import for_caller, for_upstream, query_for_upstream

OURS = [(b"authorization", b"Bearer ours")]


@pytest.mark.parametrize(
    "name",
    [
        "authorization", "x-api-key", "x-goog-api-key", "api-key", "cookie", "host", "connection", "te", "upgrade",
        "transfer-encoding", "keep-alive", "proxy-authorization", "content-length", "accept-encoding", "expect",
        "helicone-auth", "x-portkey-api-key", "x-forwarded-for", "forwarded", "x-amz-security-token",
        "openai-organization", "openai-project", "idempotency-key", "x-litellm-customer-id", "x-end-user",
        "x-goog-fieldmask", "x-goog-user-project", "x-http-method-override",
    ],
)  # fmt: skip
def test_what_tells_of_the_caller_or_of_the_connection_stays_here(name: str) -> None:
    sent = for_upstream([(name.encode(), b"the caller's")], OURS)
    assert sent == [(b"accept-encoding", b"identity"), *OURS]


@pytest.mark.parametrize(
    "name",
    [
        "content-type",
        "accept",
        "user-agent",
        "anthropic-version",
        "anthropic-beta",
        "openai-beta",
        "x-stainless-lang",
        "x-goog-api-client",
    ],
)
def test_what_belongs_to_the_protocol_goes_up(name: str) -> None:
    assert (name.encode(), b"value") in for_upstream([(name.encode(), b"value")], OURS)


def test_a_header_that_connection_names_is_for_this_hop_only() -> None:
    received = [(b"connection", b"close, X-Private"), (b"x-private", b"1"), (b"x-other", b"2")]
    names = [name for name, _ in for_upstream(received, [])]
    assert names == [b"x-other", b"accept-encoding"]


def test_what_we_say_replaces_what_the_caller_said() -> None:
    received = [(b"content-type", b"application/x-protobuf"), (b"x-other", b"2")]
    own = [(b"content-type", b"application/json")]
    assert for_upstream(received, own) == [(b"x-other", b"2"), (b"accept-encoding", b"identity"), *own]


def test_the_answer_tells_nothing_of_our_account() -> None:
    received = [
        (b"Set-Cookie", b"a=1"),
        (b"OpenAI-Organization", b"org"),
        (b"Server", b"x"),
        (b"X-Usage-Charge", b"0"),
    ]
    assert for_caller([*received, (b"Retry-After", b"2")], rewritten=False) == [(b"retry-after", b"2")]


def test_the_providers_request_id_keeps_apart_from_ours() -> None:
    assert for_caller([(b"x-request-id", b"req_1")], rewritten=False) == [
        (b"x-upstream-request-id", b"req_1")
    ]


def test_a_rewritten_body_loses_its_length_and_encoding() -> None:
    received = [
        (b"content-length", b"9"),
        (b"content-encoding", b"gzip"),
        (b"content-type", b"text/event-stream"),
    ]
    assert for_caller(received, rewritten=True) == [(b"content-type", b"text/event-stream")]
    assert for_caller(received, rewritten=False) == received


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (b"", b""),
        (b"beta=true", b"beta=true"),
        (b"key=secret&beta=true&api_key=secret&access_token=secret", b"beta=true"),
        (b"a=1&&b=%20", b"a=1&&b=%20"),
    ],
)
def test_a_key_in_the_query_stays_here(query: bytes, expected: bytes) -> None:
    assert query_for_upstream(query) == expected
