"""What goes wrong at the upstream or at the client: the caller gets what there was, and the books have one true event.

The double answers 12 tokens with 5. Each call bears a name, which its event keeps as the end user.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.servers import WebProcess


def body_for(name: str, *, stream: bool) -> dict[str, Any]:
    return {"model": "o3-mini", "messages": [], "user": name, "stream": stream}


def call(server: WebProcess, fault: str, *, stream: bool) -> tuple[str, int, bytes]:
    """Calls with a fault; the call's name, the status, and the bytes that came before the end or the break."""
    name = f"{fault or 'good'}-{uuid4().hex}"
    read = b""
    with (
        server.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json=body_for(name, stream=stream), headers={"x-fault": fault}
        ) as answer,
    ):
        try:
            for piece in answer.iter_bytes():
                read += piece
        except httpx.TransportError:
            pass  # the upstream broke off, and so does our answer
    return name, answer.status_code, read


def event_of(server: WebProcess, name: str) -> dict[str, Any]:
    """The one event of that call. A client that has gone does not see its commit, so it is waited for."""
    query = f"select * from usage_events where user_id = '{name}'"
    events = server.database.rows(query)
    for _ in range(1000):
        if events:
            break
        time.sleep(0.01)
        events = server.database.rows(query)
    assert len(events) == 1
    return events[0]


@pytest.mark.parametrize("fault", ["", "slow", "huge", "bytewise", "crlf", "gzip"])
def test_a_strange_stream_is_read_all_the_same(server: WebProcess, fault: str) -> None:
    name, status, _ = call(server, fault, stream=True)
    event = event_of(server, name)
    assert status == 200
    assert (event["status"], event["usage_source"]) == ("ok", "reported")
    assert (event["tokens_input"], event["tokens_output"]) == (12, 5)


@pytest.mark.parametrize("fault", ["", "huge", "gzip"])
def test_a_strange_answer_is_read_all_the_same(server: WebProcess, fault: str) -> None:
    name, status, _ = call(server, fault, stream=False)
    event = event_of(server, name)
    assert status == 200
    assert (event["tokens_input"], event["tokens_output"]) == (12, 5)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["no-usage", "garbage"])
def test_an_answer_without_usage_is_unknown_and_not_zero(
    server: WebProcess, fault: str, stream: bool
) -> None:
    name, status, _ = call(server, fault, stream=stream)
    event = event_of(server, name)
    assert status == 200
    assert event["usage_source"] in ("none", "estimated")
    assert event["tokens_output"] != 0
    assert event["charge_total"] != 0


@pytest.mark.parametrize("fault", ["cut", "cut-late"])
def test_a_stream_cut_by_the_upstream_leaves_one_event_that_says_so(server: WebProcess, fault: str) -> None:
    name, _, read = call(server, fault, stream=True)
    event = event_of(server, name)
    assert b"data: " in read
    assert event["status"] != "ok"


@pytest.mark.parametrize(("fault", "status"), [("429", 429), ("500", 500), ("529", 529)])
def test_an_error_of_the_upstream_is_passed_on(server: WebProcess, fault: str, status: int) -> None:
    name, answered, _ = call(server, fault, stream=False)
    event = event_of(server, name)
    assert answered == status
    assert (event["status"], event["status_code"]) == ("error", status)


def test_an_upstream_that_refuses_our_key_does_not_blame_the_callers(server: WebProcess) -> None:
    name, answered, _ = call(server, "401", stream=False)
    assert answered == 502
    assert event_of(server, name)["status"] == "error"


def test_a_client_that_leaves_in_mid_stream_pays_for_the_whole_answer(server: WebProcess) -> None:
    name = f"leaver-{uuid4().hex}"
    headers = {"x-fault": "slow", "x-pause": "0.05"}
    with (
        server.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json=body_for(name, stream=True), headers=headers
        ) as answer,
    ):
        next(answer.iter_raw())
    event = event_of(server, name)
    assert event["status"] == "client_disconnected"
    assert (event["usage_source"], event["tokens_input"], event["tokens_output"]) == ("reported", 12, 5)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"null",
        b"0",
        b"[" * 10_000,
        b'{"model": 5}',
        b'{"model": "\\u0000"}',
        b"\x00" * 64,
    ],
    ids=["empty", "cut", "no text", "list", "null", "number", "deep", "wrong type", "nul", "nuls"],
)
@pytest.mark.parametrize(
    "path", ["/v1/execute", "/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages"]
)
def test_a_bad_body_is_the_callers_mistake_and_never_ours(server: WebProcess, path: str, body: bytes) -> None:
    with server.client() as client:
        answer = client.post(path, content=body, headers={"content-type": "application/json"})
    # A body that the double takes is answered; ours to say is only 4xx.
    assert answer.status_code == 200 or 400 <= answer.status_code < 500, answer.text
