"""A served gateway with a served upstream behind it, one with none, and the official clients."""

from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import openai
import pytest
from google import genai

from project.gateway import GatewaySettings, Upstream, build_gateway
from tests.gateway.metered import Metered
from tests.upstream import RunningUpstream, serving, upstream_server

OPENAI_KEY, ANTHROPIC_KEY, GOOGLE_KEY = "sk-upstream-openai", "sk-upstream-anthropic", "upstream-google"
CALLER_KEY = "tg_test_caller"


@pytest.fixture(scope="module")
def served_upstream() -> Iterator[RunningUpstream]:
    with upstream_server() as running:
        yield running


@pytest.fixture
def upstream(served_upstream: RunningUpstream) -> RunningUpstream:
    """The provider's API behind the gateway; nothing has reached it yet."""
    served_upstream.forget()
    return served_upstream


@pytest.fixture(scope="module")
def metered(served_upstream: RunningUpstream) -> Metered:
    """The gateway as the meter sees it: each request is a metered call, whose reported usage is kept."""
    settings = GatewaySettings(
        openai=Upstream("openai", f"{served_upstream.url}/v1", OPENAI_KEY),
        anthropic=Upstream("anthropic", served_upstream.url, ANTHROPIC_KEY),
        google=Upstream("google", served_upstream.url, GOOGLE_KEY),
        read_timeout_s=0.5,
        request_bytes_max=100_000,
    )
    return Metered(build_gateway(settings))


@pytest.fixture(scope="module")
def gateway_url(metered: Metered) -> Iterator[str]:
    with serving(metered, lifespan=True) as url:
        yield url


@pytest.fixture(scope="module")
def demo_url() -> Iterator[str]:
    """A gateway without any upstream, and with no meter around it."""
    with serving(build_gateway(GatewaySettings()), lifespan=True) as url:
        yield url


@pytest.fixture
def http(gateway_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=gateway_url, headers={"authorization": f"Bearer {CALLER_KEY}"}) as client:
        yield client


@pytest.fixture
def openai_client(gateway_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{gateway_url}/v1", api_key=CALLER_KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def anthropic_client(gateway_url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=gateway_url, api_key=CALLER_KEY, max_retries=0) as client:
        yield client


def a_google_client(url: str, api_version: str = "v1beta") -> genai.Client:
    """Google's official client; only the base URL is ours."""
    options = genai.types.HttpOptions(base_url=url, api_version=api_version)
    return genai.Client(api_key=CALLER_KEY, http_options=options)


@pytest.fixture
def google_client(gateway_url: str) -> Iterator[genai.Client]:
    with a_google_client(gateway_url) as client:
        yield client


def read_until_cut(http: httpx.Client, path: str, asked: dict[str, Any]) -> bytes:
    """What arrives of an answer before its connection is cut. Raises AssertionError when it comes to its end."""
    received = b""
    try:
        with http.stream("POST", path, json=asked) as answer:
            for chunk in answer.iter_raw():
                received += chunk
    except httpx.RemoteProtocolError:
        return received
    raise AssertionError(f"the answer came to its end: {received[-200:]!r}")
