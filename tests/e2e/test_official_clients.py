"""The official clients against a started server, with another base URL and nothing else changed.

The double counts 12 tokens in and 5 out for every call. Prices are USD per 1,000,000 tokens; the list is 20 % above cost.
"""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from email.utils import parsedate_to_datetime

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors as google_errors

from tests.e2e.conftest import UPSTREAM_KEY
from tests.servers import WebProcess, manage
from tests.upstream import RunningUpstream

SAID = "Viele liebe Grüße vom Modell"
MARKUP = Decimal("1.20")


def cost(price_input: str, price_output: str = "0") -> Decimal:
    """12 tokens in, 5 tokens out, at prices per million."""
    return (12 * Decimal(price_input) + 5 * Decimal(price_output)) / 1_000_000


def usage_of(server: WebProcess, model: str) -> dict[str, object]:
    """What the customer's usage says of that model."""
    with server.client() as client:
        answer = client.get("/v1/billing/usage", params=these_days(client) | {"group_by": "model"})
    rows = {row["model"]: row for row in answer.raise_for_status().json()["rows"]}
    found: dict[str, object] = rows.get(model, {})
    return found


def these_days(client: httpx.Client) -> dict[str, str]:
    """Two days around the server's own date: a test may run over midnight."""
    today = parsedate_to_datetime(client.get("/healthz").headers["date"]).date()
    return {"start_date": str(today - timedelta(days=1)), "end_date": str(today + timedelta(days=1))}


def assert_charged_once(server: WebProcess, model: str, price_input: str, price_output: str = "0") -> None:
    row = usage_of(server, model)
    assert row["calls"] == 1
    assert row["tokens_input"] == 12
    assert Decimal(str(row["cost_total"])) == cost(price_input, price_output)
    assert Decimal(str(row["charge_total"])) == cost(price_input, price_output) * MARKUP
    assert row["unpriced_events"] == 0


def test_a_chat_completion_is_charged(server: WebProcess, openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "Hallo"}]
    )
    assert answer.choices[0].message.content == SAID
    assert_charged_once(server, "gpt-4o-mini", "0.15", "0.60")


def test_a_streamed_chat_completion_is_charged_and_its_usage_chunk_kept_from_who_did_not_ask(
    server: WebProcess, openai_client: openai.OpenAI
) -> None:
    stream = openai_client.chat.completions.create(
        model="gpt-4.1-mini", messages=[{"role": "user", "content": "Hallo"}], stream=True
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
    assert [chunk.usage for chunk in chunks if chunk.usage] == []
    assert_charged_once(server, "gpt-4.1-mini", "0.40", "1.60")


def test_a_stream_that_asks_for_its_usage_gets_it(server: WebProcess, openai_client: openai.OpenAI) -> None:
    stream = openai_client.chat.completions.create(
        model="gpt-4.1-nano",
        messages=[{"role": "user", "content": "Hallo"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    told = [chunk.usage for chunk in stream if chunk.usage]
    assert [(usage.prompt_tokens, usage.completion_tokens) for usage in told] == [(12, 5)]
    assert_charged_once(server, "gpt-4.1-nano", "0.10", "0.40")


def test_a_response_is_charged(server: WebProcess, openai_client: openai.OpenAI) -> None:
    answer = openai_client.responses.create(model="gpt-4.1", input="Hallo")
    assert answer.output_text == SAID
    assert_charged_once(server, "gpt-4.1", "2.00", "8.00")


def test_a_streamed_response_is_charged(server: WebProcess, openai_client: openai.OpenAI) -> None:
    with openai_client.responses.create(model="o4-mini", input="Hallo", stream=True) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == "response.completed"
    assert_charged_once(server, "o4-mini", "1.10", "4.40")


def test_an_embedding_is_charged_for_its_input(server: WebProcess, openai_client: openai.OpenAI) -> None:
    answer = openai_client.embeddings.create(
        model="text-embedding-3-small", input="Hallo", encoding_format="float"
    )
    assert answer.data[0].embedding == [0.25, -0.5, 1.0]
    assert_charged_once(server, "text-embedding-3-small", "0.02")


def test_a_message_is_charged(server: WebProcess, anthropic_client: anthropic.Anthropic) -> None:
    answer = anthropic_client.messages.create(
        model="claude-3-haiku", max_tokens=100, messages=[{"role": "user", "content": "Hallo"}]
    )
    assert [block.text for block in answer.content if block.type == "text"] == [SAID]
    assert_charged_once(server, "claude-3-haiku", "0.25", "1.25")


def test_a_streamed_message_is_charged(server: WebProcess, anthropic_client: anthropic.Anthropic) -> None:
    with anthropic_client.messages.stream(
        model="claude-haiku-4-5", max_tokens=100, messages=[{"role": "user", "content": "Hallo"}]
    ) as stream:
        assert "".join(stream.text_stream) == SAID
    assert_charged_once(server, "claude-haiku-4-5", "1.00", "5.00")


def test_generated_content_is_charged(server: WebProcess, google_client: genai.Client) -> None:
    answer = google_client.models.generate_content(model="gemini-2.5-flash", contents="Hallo")
    assert answer.text == SAID
    assert_charged_once(server, "gemini-2.5-flash", "0.30", "2.50")


def test_a_stream_of_generated_content_is_charged_for_its_last_totals(
    server: WebProcess, google_client: genai.Client
) -> None:
    chunks = list(google_client.models.generate_content_stream(model="gemini-2.5-pro", contents="Hallo"))
    assert "".join(chunk.text or "" for chunk in chunks) == SAID
    assert_charged_once(server, "gemini-2.5-pro", "1.25", "10.00")


@pytest.mark.anyio
async def test_googles_asynchronous_client_is_charged_alike(
    server: WebProcess, google_client: genai.Client
) -> None:
    client = google_client.aio
    stream = await client.models.generate_content_stream(model="gemini-2.5-flash-lite", contents="Hallo")
    assert "".join([chunk.text or "" async for chunk in stream]) == SAID
    await client.aclose()
    assert_charged_once(server, "gemini-2.5-flash-lite", "0.10", "0.40")


def test_a_stream_in_one_array_is_charged_and_says_no_more_than_it_may(
    server: WebProcess, upstream: RunningUpstream
) -> None:
    """`fields` would have Google leave the usage out of each chunk."""
    with server.client(api_key="") as client:
        answer = client.post(
            "/v1beta/models/gemini-3-flash-preview:streamGenerateContent",
            params={"fields": "candidates", "$alt": "json;enum-encoding=int"},
            headers={"x-goog-api-key": server.database.seed.api_key, "x-goog-fieldmask": "candidates"},
            json={"contents": [{"parts": [{"text": "Hallo"}]}]},
        )
    assert [len(chunk["candidates"]) for chunk in answer.json()] == [1] * 6
    assert (upstream.last.query, upstream.last.header("x-goog-fieldmask")) == ("", None)
    assert_charged_once(server, "gemini-3-flash-preview", "0.50", "3.00")


def test_google_is_sent_the_operators_key_and_no_other(
    server: WebProcess, upstream: RunningUpstream, google_client: genai.Client
) -> None:
    google_client.models.generate_content(model="gemini-3.1-pro-preview", contents="Hallo")
    assert upstream.last.header("x-goog-api-key") == UPSTREAM_KEY
    assert server.database.seed.api_key not in str(upstream.last)


def test_a_key_in_the_query_is_no_identity_and_is_kept_nowhere(
    server: WebProcess, upstream: RunningUpstream
) -> None:
    before = len(upstream.calls)
    asked = {"contents": [{"parts": [{"text": "Hallo"}]}]}
    key = server.database.seed.api_key
    path = "/v1beta/models/gemini-3.5-flash:generateContent"
    with server.client(api_key="") as client:
        refused = client.post(path, params={"key": key}, json=asked)
        client.post(path, params={"key": key}, headers={"x-goog-api-key": key}, json=asked)
    assert (refused.status_code, refused.json()["error"]["status"]) == (401, "UNAUTHENTICATED")
    assert [call.query for call in upstream.calls[before:]] == [""]
    events = server.database.rows("select * from usage_events where model_requested = 'gemini-3.5-flash'")
    assert len(events) == 1
    assert key not in str(events) + server.output


def test_the_demo_models_answer_googles_client_without_an_upstream(
    server: WebProcess, upstream: RunningUpstream, google_client: genai.Client
) -> None:
    before = len(upstream.calls)
    config = genai.types.GenerateContentConfig(max_output_tokens=3)
    whole = google_client.models.generate_content(model="demo-small", contents="Hello", config=config)
    *_, last = google_client.models.generate_content_stream(
        model="demo-small", contents="Hello", config=config
    )
    for answer in (whole, last):
        assert answer.usage_metadata is not None
        assert (answer.usage_metadata.prompt_token_count, answer.usage_metadata.candidates_token_count) == (
            1,
            3,
        )
    row = usage_of(server, "demo-small")
    assert (row["calls"], row["tokens_input"], row["tokens_output"]) == (2, 2, 6)
    # 2 × 0.50 + 6 × 1.50 per million
    assert Decimal(str(row["cost_total"])) == (2 * Decimal("0.50") + 6 * Decimal("1.50")) / 1_000_000
    assert len(upstream.calls) == before


def test_the_google_client_is_told_of_a_wrong_key(server: WebProcess, upstream: RunningUpstream) -> None:
    before = len(upstream.calls)
    options = genai.types.HttpOptions(base_url=server.url)
    client = genai.Client(api_key="tg_live_wrong", http_options=options)
    with client, pytest.raises(google_errors.ClientError) as refused:
        client.models.generate_content(model="gemini-2.5-flash", contents="Hallo")
    assert (refused.value.code, refused.value.status) == (401, "UNAUTHENTICATED")
    assert refused.value.details["code"] == "invalid_api_key"
    assert len(upstream.calls) == before


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_googles_429_reaches_its_client_and_is_free(server: WebProcess, version: str) -> None:
    model = {"v1": "gemini-3.6-flash", "v1beta": "gemini-3.7-flash"}[version]
    options = genai.types.HttpOptions(base_url=server.url, api_version=version, headers={"x-fault": "429"})
    client = genai.Client(api_key=server.database.seed.api_key, http_options=options)
    with client, pytest.raises(google_errors.ClientError, match="The double says 429") as refused:
        list(client.models.generate_content_stream(model=model, contents="Hallo"))
    assert (refused.value.code, refused.value.status) == (429, "RESOURCE_EXHAUSTED")
    (event,) = server.database.rows(
        f"select status, status_code, charge_total, quantity from usage_events where model_requested = '{model}'"
    )
    assert (event["status"], event["status_code"]) == ("error", 429)
    assert (Decimal(str(event["charge_total"])), Decimal(str(event["quantity"]))) == (0, 0)


def test_the_demo_models_need_no_upstream(
    server: WebProcess, upstream: RunningUpstream, openai_client: openai.OpenAI
) -> None:
    before = len(upstream.calls)
    answer = openai_client.chat.completions.create(
        model="demo-large", messages=[{"role": "user", "content": "Hello"}], max_tokens=3
    )
    assert answer.usage is not None
    assert answer.choices[0].finish_reason == "length"
    row = usage_of(server, "demo-large")
    assert row["tokens_input"] == answer.usage.prompt_tokens
    assert row["tokens_output"] == answer.usage.completion_tokens == 3
    assert Decimal(str(row["cost_total"])) == (answer.usage.prompt_tokens * 5 + 3 * 15) / Decimal(1_000_000)
    assert len(upstream.calls) == before


def test_the_headers_of_an_answer_say_what_it_cost(server: WebProcess) -> None:
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json={"model": "gpt-4o", "messages": []})
    assert answer.headers["x-usage-tokens-input"] == "12"
    assert answer.headers["x-usage-tokens-output"] == "5"
    # 12 × 2.50 + 5 × 10.00 per million
    assert Decimal(answer.headers["x-usage-cost"]) == cost("2.50", "10.00")
    assert Decimal(answer.headers["x-usage-charge"]) == cost("2.50", "10.00") * MARKUP
    assert answer.headers["x-request-id"]
    assert answer.headers["x-usage-event"]


def test_a_model_without_a_price_is_unpriced_and_not_free(server: WebProcess) -> None:
    with server.client() as client:
        answer = client.post("/v1/chat/completions", json={"model": "no-such-model-9", "messages": []})
    assert answer.status_code == 200
    assert "x-usage-charge" not in answer.headers
    row = usage_of(server, "no-such-model-9")
    assert (row["tokens_input"], row["tokens_output"], row["unpriced_events"]) == (12, 5, 1)


RATED_LATER = """
from datetime import timedelta
from decimal import Decimal
from metering.tasks import rate_unpriced
from pricing import clock
from pricing.models import PriceBook, Rate
since = clock.now() - timedelta(days=1)
for book, prices in {"cost": ("1", "2"), "list": ("3", "4")}.items():
    for bucket, price in zip(("in_uncached", "out_visible"), prices):
        Rate(
            book=PriceBook.objects.get(slug=book), provider="openai", model="priced-later-1", bucket=bucket,
            price=Decimal(price), per=1_000_000, effective_from=since,
        ).save()
rate_unpriced(), rate_unpriced()
"""


def test_a_call_whose_price_comes_later_is_charged_once_when_it_does(
    server: WebProcess, openai_client: openai.OpenAI
) -> None:
    answer = openai_client.chat.completions.create(
        model="priced-later-1", messages=[{"role": "user", "content": "Hallo"}]
    )
    assert answer.choices[0].message.content == SAID
    before = usage_of(server, "priced-later-1")
    assert (before["unpriced_events"], Decimal(str(before["charge_total"]))) == (1, 0)

    manage(server.database.url, "manage.py", "shell", "-c", RATED_LATER)
    row = usage_of(server, "priced-later-1")
    assert (row["calls"], row["tokens_input"], row["unpriced_events"]) == (1, 12, 0)
    assert Decimal(str(row["cost_total"])) == cost("1", "2")  # 12 × 1/1e6 + 5 × 2/1e6
    assert Decimal(str(row["charge_total"])) == cost("3", "4")  # 12 × 3/1e6 + 5 × 4/1e6


BARRED = """
from billing.models import ApiKey, Customer
barred = Customer.objects.create(external_id="barred", name="Barred", is_active=False)
print(ApiKey.issue(barred, "tests")[1])
"""


def test_the_official_clients_are_told_that_their_customer_is_suspended(
    server: WebProcess, upstream: RunningUpstream
) -> None:
    key = manage(server.database.url, "manage.py", "shell", "-v0", "-c", BARRED).strip()
    before = len(upstream.calls)
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=key) as client,
        pytest.raises(openai.PermissionDeniedError) as refused,
    ):
        client.chat.completions.create(model="gpt-4o-mini", messages=[])
    assert refused.value.code == "customer_suspended"
    with (
        anthropic.Anthropic(base_url=server.url, api_key=key) as other,
        pytest.raises(anthropic.PermissionDeniedError) as also,
    ):
        other.messages.create(model="claude-3-haiku", max_tokens=10, messages=[])
    assert also.value.status_code == 403 and "suspended" in str(also.value)
    assert len(upstream.calls) == before


def test_the_callers_key_is_never_passed_on(
    server: WebProcess, upstream: RunningUpstream, openai_client: openai.OpenAI
) -> None:
    openai_client.embeddings.create(model="text-embedding-3-large", input="Hallo", encoding_format="float")
    received = dict(upstream.last.headers)
    assert received["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert server.database.seed.api_key not in str(upstream.last)


@pytest.mark.parametrize("key", ["tg_live_wrong", "x" * 500])
def test_the_openai_client_is_told_of_a_wrong_key(
    server: WebProcess, upstream: RunningUpstream, key: str
) -> None:
    before = len(upstream.calls)
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
    with client, pytest.raises(openai.AuthenticationError) as refused:
        client.chat.completions.create(model="gpt-4o-mini", messages=[])
    assert refused.value.code == "invalid_api_key"
    assert refused.value.response.headers["content-type"] == "application/problem+json"
    assert len(upstream.calls) == before


def test_the_anthropic_client_is_told_of_a_wrong_key(server: WebProcess, upstream: RunningUpstream) -> None:
    before = len(upstream.calls)
    client = anthropic.Anthropic(base_url=server.url, api_key="tg_live_wrong", max_retries=0)
    with client, pytest.raises(anthropic.AuthenticationError) as refused:
        client.messages.create(model="claude-3-haiku", max_tokens=1, messages=[])
    assert refused.value.response.json()["code"] == "invalid_api_key"
    assert len(upstream.calls) == before


def test_a_call_without_a_key_is_refused_and_leaves_no_event(server: WebProcess) -> None:
    before = server.database.rows("select count(*) as events from usage_events")
    with server.client(api_key="") as client:
        answer = client.post("/v1/execute", json={"prompt": "Hello"})
    assert answer.status_code == 401
    assert answer.json()["code"] == "invalid_api_key"
    assert server.database.rows("select count(*) as events from usage_events") == before


def test_an_error_of_the_upstream_reaches_the_client_as_it_is(
    server: WebProcess, openai_client: openai.OpenAI
) -> None:
    with pytest.raises(openai.RateLimitError):
        openai_client.chat.completions.create(
            model="gpt-5-mini", messages=[], extra_headers={"x-fault": "429"}
        )
    events = server.database.rows(
        "select status, status_code from usage_events where model_requested = 'gpt-5-mini'"
    )
    assert [event["status"] for event in events] == ["error"]


def test_a_customer_sees_only_its_own_usage(server: WebProcess, openai_client: openai.OpenAI) -> None:
    openai_client.chat.completions.create(model="gpt-4-turbo", messages=[])
    with server.client(api_key=server.database.seed.other_api_key) as stranger:
        answer = stranger.get("/v1/billing/usage", params=these_days(stranger) | {"group_by": "model"})
    assert answer.raise_for_status().json()["rows"] == []
    assert usage_of(server, "gpt-4-turbo")["calls"] == 1
