"""Requests that cannot be served get a clear 4xx in the caller's own protocol, and nothing goes upstream."""

import gzip
import zlib
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.upstream import RunningUpstream

GENERATE = "/v1beta/models/demo-small:generateContent"
PATHS = ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages", "/v1/execute", GENERATE]
DEEP = b'{"model":"demo-small","messages":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
USER = {"role": "user", "content": "hi"}
SAYS = [{"role": "user", "parts": [{"text": "hi"}]}]


def problem_of(answer: httpx.Response, path: str) -> dict[str, Any]:
    """The problem document; on a provider's path it holds that provider's error object."""
    problem: dict[str, Any] = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    # Google's own client takes a `status` at the top for the name in the error object.
    assert (problem["error"]["code"] if "/models/" in path else problem["status"]) == answer.status_code
    assert ("error" in problem) is (path != "/v1/execute")
    return problem


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"not json", b'{"model":"demo-small"', b'"text"', b'{"model":"\xff\xfe"}', b"\x00", DEEP],
    ids=["empty", "null", "list", "words", "cut", "string", "bytes", "nul", "deep"],
)  # fmt: skip
def test_a_body_that_cannot_be_read_is_a_400(
    http: httpx.Client, upstream: RunningUpstream, path: str, body: bytes
) -> None:
    answer = http.post(path, content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, problem_of(answer, path)["code"]) == (400, "invalid_request")
    assert answer.headers["x-should-retry"] == "false"
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("path", "asked", "word"),
    [
        ("/v1/chat/completions", {"messages": []}, "messages"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": 5}]}, "content"),
        ("/v1/chat/completions", {"messages": [USER], "max_tokens": 0}, "max_tokens"),
        ("/v1/chat/completions", {"messages": [USER], "max_completion_tokens": -1}, "max_completion_tokens"),
        ("/v1/chat/completions", {"messages": [USER], "max_tokens": True}, "max_tokens"),
        ("/v1/chat/completions", {"messages": [USER], "max_tokens": 1.5}, "max_tokens"),
        ("/v1/chat/completions", {"messages": [USER], "stream": "yes"}, "stream"),
        ("/v1/chat/completions", {"messages": [USER], "n": 2}, "n must be 1"),
        ("/v1/chat/completions", {"model": "demo-embed", "messages": [USER]}, "demo-embed"),
        ("/v1/responses", {"input": ""}, "input"),
        ("/v1/responses", {"input": "hi", "max_output_tokens": 0}, "max_output_tokens"),
        ("/v1/embeddings", {"input": "hi"}, "does not embed"),
        ("/v1/embeddings", {"model": "demo-embed", "input": []}, "input"),
        ("/v1/embeddings", {"model": "demo-embed", "input": ["a", ""]}, "input"),
        ("/v1/embeddings", {"model": "demo-embed", "input": ["a", 1]}, "not both"),
        ("/v1/embeddings", {"model": "demo-embed", "input": "hi", "dimensions": 0}, "dimensions"),
        ("/v1/embeddings", {"model": "demo-embed", "input": "hi", "dimensions": 257}, "dimensions"),
        ("/v1/messages", {"messages": [USER]}, "max_tokens"),
        ("/v1/messages", {"messages": [], "max_tokens": 5}, "messages"),
        ("/v1/messages", {"messages": [USER], "max_tokens": 0}, "max_tokens"),
        (GENERATE, {}, "contents"),
        (GENERATE, {"contents": []}, "contents"),
        (GENERATE, {"contents": [{"role": "user"}]}, "contents"),
        (GENERATE, {"contents": "hi"}, "contents"),
        (GENERATE, {"contents": SAYS, "generationConfig": {"maxOutputTokens": 0}}, "maxOutputTokens"),
        (GENERATE, {"contents": SAYS, "generation_config": {"max_output_tokens": -1}}, "maxOutputTokens"),
        (GENERATE, {"contents": SAYS, "generationConfig": {"candidateCount": 2}}, "candidateCount must be 1"),
        ("/v1beta/models/demo-embed:streamGenerateContent", {"contents": SAYS}, "demo-embed"),
        ("/v1/execute", {}, "prompt or messages"),
        ("/v1/execute", {"prompt": "hi", "messages": [USER]}, "prompt or messages"),
        ("/v1/execute", {"messages": []}, "prompt or messages"),
        ("/v1/execute", {"prompt": "hi", "max_tokens": 0}, "max_tokens"),
        ("/v1/execute", {"prompt": "hi", "colour": "red"}, "colour"),
        ("/v1/execute", {"prompt": "hi", "model": 5}, "model"),
        ("/v1/execute", {"prompt": "hi", "model": "demo-embed"}, "demo-embed"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(http: httpx.Client, path: str, asked: dict[str, Any], word: str) -> None:
    answer = http.post(path, json={"model": "demo-small", **asked})
    assert answer.status_code == 400
    assert word in problem_of(answer, path)["detail"]


def test_a_model_that_is_missing_or_no_name_is_a_400_without_an_upstream(demo_url: str) -> None:
    for model in ({}, {"model": ""}, {"model": 5}, {"model": ["demo-small"]}, {"model": {"demo-small": 1}}):
        answer = httpx.post(f"{demo_url}/v1/chat/completions", json={"messages": [USER], **model})
        assert (answer.status_code, answer.json()["detail"]) == (400, "model is missing.")


def test_the_official_clients_raise_what_they_raise_for_their_own_provider(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.BadRequestError, match="must be at least 1") as one:
        openai_client.chat.completions.create(
            model="demo-small", messages=[{"role": "user", "content": "hi"}], max_tokens=0
        )
    assert one.value.code == "invalid_request"
    with pytest.raises(anthropic.BadRequestError, match="must be at least 1"):
        anthropic_client.messages.create(
            model="demo-small", messages=[{"role": "user", "content": "hi"}], max_tokens=0
        )
    with pytest.raises(openai.NotFoundError, match="demo-none"):
        openai_client.responses.create(model="demo-none", input="hi")


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"xx", 415),
        ("gzip", b"not gzip", 400),
        ("gzip", gzip.compress(b"{}" * 500, mtime=0)[:-9], 400),
        ("gzip", gzip.compress(b" " * 1_000_000, mtime=0), 413),
        ("deflate", zlib.compress(b" " * 1_000_000), 413),
        ("identity", b" " * 100_001, 413),
    ],
)
def test_a_body_that_cannot_be_unfolded_is_refused(
    http: httpx.Client, upstream: RunningUpstream, encoding: str, body: bytes, status: int
) -> None:
    answer = http.post("/v1/chat/completions", content=body, headers={"content-encoding": encoding})
    assert answer.status_code == status
    assert upstream.calls == []


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/v1/execute", 405), ("POST", "/v1/models", 404)]
)
def test_other_methods_and_paths_are_not_here(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    assert http.request(method, path).status_code == status
