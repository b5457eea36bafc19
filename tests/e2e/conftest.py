"""A started server whose providers are the upstream double."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

import anthropic
import openai
import pytest
from google import genai

from tests.servers import Databases, WebProcess, start_web
from tests.upstream import RunningUpstream, upstream_server

UPSTREAM_KEY = "sk-upstream-of-the-operator"
_numbers = count(1)


@dataclass(frozen=True)
class Payer:
    """A customer of its own for one test, on a server that tests share."""

    name: str
    key: str

    @classmethod
    def on(cls, server: WebProcess, plan: str | None = None) -> Payer:
        """Made by the operator, as anybody would."""
        name = f"payer-{next(_numbers)}"
        with server.client(api_key=server.database.seed.operator_token) as client:
            body = {"external_id": name, "name": name} | ({"plan": plan} if plan else {})
            client.post("/v1/customers", json=body).raise_for_status()
            made = client.post(f"/v1/customers/{name}/keys", json={"label": "tests"}).raise_for_status()
        return cls(name, made.json()["key"])


@pytest.fixture(scope="session")
def upstream() -> Iterator[RunningUpstream]:
    """OpenAI, Anthropic and Google, on this machine. It answers 12 tokens with 5."""
    with upstream_server() as running:
        yield running


@pytest.fixture(scope="session")
def server(databases: Databases, upstream: RunningUpstream) -> Iterator[WebProcess]:
    """The server that passes calls on to the double. Tests share it, so each uses a model of its own."""
    providers = {
        f"UPSTREAM_{name}_{part}": value
        for name in ("OPENAI", "ANTHROPIC", "GOOGLE")
        for part, value in (("URL", upstream.url), ("KEY", UPSTREAM_KEY))
    }
    web = start_web(databases.fresh(), providers)
    yield web
    web.stop()


@pytest.fixture
def openai_client(server: WebProcess) -> Iterator[openai.OpenAI]:
    """The official client, as a customer has it: only the base URL is ours."""
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=server.database.seed.api_key, max_retries=0
    ) as client:
        yield client


@pytest.fixture
def anthropic_client(server: WebProcess) -> Iterator[anthropic.Anthropic]:
    """The official client of Anthropic; it sends the key as x-api-key."""
    with anthropic.Anthropic(
        base_url=server.url, api_key=server.database.seed.api_key, max_retries=0
    ) as client:
        yield client


@pytest.fixture
def google_client(server: WebProcess) -> Iterator[genai.Client]:
    """The official client of Google; it sends the key as x-goog-api-key."""
    options = genai.types.HttpOptions(base_url=server.url)
    with genai.Client(api_key=server.database.seed.api_key, http_options=options) as client:
        yield client
