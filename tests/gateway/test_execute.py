"""`POST /v1/execute`: one shape for demo models and for each provider's."""

import json
from typing import Any

import httpx
import pytest

from project.demo_models import CHAT_MODELS, reply
from tests.gateway.conftest import ANTHROPIC_KEY, OPENAI_KEY, read_until_cut
from tests.gateway.metered import Metered
from tests.upstream import RunningUpstream
from tests.upstream.wire import COMPLETION_TOKENS, PROMPT_TOKENS, WORDS

SMALL = reply(CHAT_MODELS["demo-small"], ["Name a river"])
PROMPT = {"task_type": "naming", "prompt": "Name a river"}
OPENAI_USAGE = {
    "prompt_tokens": PROMPT_TOKENS,
    "completion_tokens": COMPLETION_TOKENS,
    "total_tokens": PROMPT_TOKENS + COMPLETION_TOKENS,
}
ANTHROPIC_USAGE = {"input_tokens": PROMPT_TOKENS, "output_tokens": COMPLETION_TOKENS}
REMOTE = [("gpt-x", "openai", OPENAI_USAGE), ("claude-x", "anthropic", ANTHROPIC_USAGE)]


def events_of(answer: httpx.Response) -> list[dict[str, Any]]:
    """The data of each event; its `type` repeats the event's name."""
    events = answer.text.rstrip("\n").split("\n\n")
    assert all(
        event.startswith(f"event: {json.loads(event.split('data: ')[1])['type']}\n") for event in events
    )
    return [json.loads(event.split("data: ")[1]) for event in events]


def test_without_a_model_the_small_demo_model_answers(http: httpx.Client, metered: Metered) -> None:
    answer = http.post("/v1/execute", json=PROMPT).json()
    assert (answer["model"], answer["task_type"], answer["output"]) == ("demo-small", "naming", SMALL.text)
    assert answer["usage"]["prompt_tokens"] == SMALL.tokens_input
    assert answer["usage"]["completion_tokens"] == SMALL.tokens_output
    assert metered.reported is not None
    assert (metered.reported.execution_id, metered.reported.task_type) == (answer["execution_id"], "naming")


def test_messages_are_taken_in_place_of_a_prompt(http: httpx.Client) -> None:
    answer = http.post(
        "/v1/execute", json={"messages": [{"role": "user", "content": "Name a river"}], "max_tokens": 3}
    )
    assert answer.json()["output"] == "".join(SMALL.tokens[:3])
    assert answer.json()["finish_reason"] == "length"


def test_a_stream_says_the_same_in_pieces(http: httpx.Client, metered: Metered) -> None:
    started, *deltas, completed = events_of(http.post("/v1/execute", json={**PROMPT, "stream": True}))
    assert [event["delta"] for event in deltas] == SMALL.tokens
    assert completed["output"] == SMALL.text
    assert started["execution_id"] == completed["execution_id"]
    assert metered.reported is not None
    assert metered.reported.buckets["out_visible"] == SMALL.tokens_output


def test_every_execution_has_an_id_of_its_own(http: httpx.Client) -> None:
    ids = {http.post("/v1/execute", json=PROMPT).json()["execution_id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("model", "provider", "usage"), REMOTE)
def test_a_providers_model_answers_in_the_same_shape(
    http: httpx.Client, upstream: RunningUpstream, metered: Metered, model: str, provider: str,
    usage: dict[str, int], stream: bool,
) -> None:  # fmt: skip
    answer = http.post("/v1/execute", json={**PROMPT, "model": model, "stream": stream})
    told = events_of(answer)[-1] if stream else answer.json()
    assert (told["model"], told["output"], told["usage"]) == (model, "".join(WORDS), usage)
    assert metered.reported is not None
    assert (metered.reported.provider, metered.reported.model) == (provider, model)
    assert metered.reported.buckets == {"in_uncached": PROMPT_TOKENS, "out_visible": COMPLETION_TOKENS}
    assert metered.reported.task_type == "naming"


def test_openai_is_asked_in_its_own_words(http: httpx.Client, upstream: RunningUpstream) -> None:
    http.post("/v1/execute", json={**PROMPT, "model": "gpt-x", "max_tokens": 7, "stream": True})
    assert upstream.last.path == "/v1/chat/completions"
    assert upstream.last.header("authorization") == f"Bearer {OPENAI_KEY}"
    assert upstream.last.document == {
        "model": "gpt-x", "stream": True, "max_completion_tokens": 7, "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Name a river"}],
    }  # fmt: skip


def test_anthropic_is_asked_in_its_own_words(http: httpx.Client, upstream: RunningUpstream) -> None:
    said = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "hi"}]
    http.post("/v1/execute", json={"model": "claude-x", "messages": said})
    assert upstream.last.path == "/v1/messages"
    assert upstream.last.header("x-api-key") == ANTHROPIC_KEY
    assert upstream.last.header("anthropic-version") == "2026-10-21"
    assert upstream.last.document == {
        "model": "claude-x", "stream": False, "max_tokens": 1024, "system": "Be brief",
        "messages": [{"role": "user", "content": "hi"}],
    }  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("429", 429, "upstream_error"), ("500", 500, "upstream_error"), ("401", 502, "upstream_refused_key"),
     ("hang", 504, "upstream_timeout"), ("garbage", 502, "upstream_garbled")],
)  # fmt: skip
def test_a_fault_of_the_provider_is_a_problem_of_this_call(
    http: httpx.Client,
    upstream: RunningUpstream,
    metered: Metered,
    fault: str,
    status: int,
    code: str,
    stream: bool,
) -> None:
    answer = http.post("/v1/execute", json={**PROMPT, "model": f"fault-{fault}", "stream": stream})
    if fault == "garbage" and stream:
        code = "upstream_broken"
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers.get("retry-after") == ("2" if status == 429 else None)
    assert metered.reported is None


def test_a_stream_that_the_provider_cuts_is_never_completed(
    http: httpx.Client, upstream: RunningUpstream
) -> None:
    received = read_until_cut(http, "/v1/execute", {**PROMPT, "model": "fault-cut", "stream": True})
    assert b"execution.delta" in received
    assert b"execution.completed" not in received


def test_an_answer_without_usage_says_so(
    http: httpx.Client, upstream: RunningUpstream, metered: Metered
) -> None:
    answer = http.post("/v1/execute", json={**PROMPT, "model": "fault-no-usage"}).json()
    assert (answer["output"], answer["usage"]) == ("".join(WORDS), None)
    assert metered.reported is None
