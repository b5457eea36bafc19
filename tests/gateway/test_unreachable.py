"""An upstream that is not there."""

import socket
from collections.abc import Iterator

import httpx
import openai
import pytest

from project.gateway import GatewaySettings, Upstream, build_gateway
from tests.upstream import serving


@pytest.fixture(scope="module")
def lonely_url() -> Iterator[str]:
    """A gateway whose upstream's port nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with serving(
            build_gateway(GatewaySettings(openai=Upstream("openai", nowhere, "k"))), lifespan=True
        ) as url:
            yield url


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/execute"])
def test_an_upstream_that_is_not_there_is_a_502(lonely_url: str, path: str, stream: bool) -> None:
    said = {"prompt": "hi"} if path == "/v1/execute" else {"messages": [{"role": "user", "content": "hi"}]}
    answer = httpx.post(
        lonely_url + path, json={"model": "gpt-x", "stream": stream, **said}, headers={"x-request-id": "r-1"}
    )
    assert (answer.status_code, answer.json()["code"]) == (502, "upstream_unreachable")
    assert (answer.json()["request_id"], answer.headers["x-request-id"]) == ("r-1", "r-1")
    assert "x-should-retry" not in answer.headers  # the next try may find it


def test_the_official_client_names_the_reason(lonely_url: str) -> None:
    with (
        openai.OpenAI(base_url=f"{lonely_url}/v1", api_key="any", max_retries=0) as client,
        pytest.raises(openai.InternalServerError, match="cannot be reached"),
    ):
        client.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "hi"}])


def test_the_demo_models_do_not_need_it(lonely_url: str) -> None:
    assert httpx.post(f"{lonely_url}/v1/execute", json={"prompt": "hi"}).status_code == 200
