"""The official clients talk to the demo models, streamed and not, without knowing that they are none."""

from collections.abc import Iterator

import anthropic
import httpx
import openai
import pytest
from google import genai
from google.genai import errors as google_errors

from project import tokenizer
from project.demo_models import CHAT_MODELS, IMAGE_TOKENS, reply
from tests.gateway.conftest import a_google_client
from tests.gateway.metered import Metered

QUESTION = "What runs in the forest?"
ASKED = tokenizer.count(QUESTION)
SMALL = reply(CHAT_MODELS["demo-small"], [QUESTION])
LARGE = reply(CHAT_MODELS["demo-large"], [QUESTION])
USER_SAYS = [{"role": "user", "content": QUESTION}]


@pytest.fixture
def gpt(demo_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{demo_url}/v1", api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(demo_url: str) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=demo_url, api_key="any", max_retries=0) as client:
        yield client


@pytest.fixture
def gemini(demo_url: str) -> Iterator[genai.Client]:
    with a_google_client(demo_url) as client:
        yield client


def test_a_chat_completion_is_answered_with_true_counts(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(model="demo-small", messages=[{"role": "user", "content": QUESTION}])
    assert answer.choices[0].message.content == SMALL.text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (
        ASKED,
        tokenizer.count(SMALL.text),
    )
    assert answer.usage.total_tokens == ASKED + SMALL.tokens_output


def test_all_messages_and_parts_of_a_conversation_are_counted(gpt: openai.OpenAI) -> None:
    answer = gpt.chat.completions.create(
        model="demo-large",
        messages=[
            {"role": "system", "content": "Be brief"},  # 2
            {"role": "user", "content": [
                {"type": "text", "text": "and kind"},  # 2
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
            ]},
            {"role": "assistant", "content": None, "tool_calls": []},
        ],
    )  # fmt: skip
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 2 + 2 + IMAGE_TOKENS


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_a_chat_completion_keeps_to_its_limit(demo_url: str, limit: str) -> None:
    asked = {"model": "demo-small", "messages": USER_SAYS, limit: 3}
    answer = httpx.post(f"{demo_url}/v1/chat/completions", json=asked).json()
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["choices"][0]["message"]["content"] == "".join(SMALL.tokens[:3])
    assert answer["usage"]["completion_tokens"] == 3


def test_a_chat_stream_says_the_same_and_no_usage_where_none_was_asked(gpt: openai.OpenAI) -> None:
    stream = gpt.chat.completions.create(
        model="demo-small", messages=[{"role": "user", "content": QUESTION}], stream=True
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SMALL.text
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def test_a_chat_stream_ends_with_usage_where_it_was_asked(gpt: openai.OpenAI) -> None:
    stream = gpt.chat.completions.create(
        model="demo-small", messages=[{"role": "user", "content": QUESTION}], stream=True,
        stream_options={"include_usage": True},
    )  # fmt: skip
    *others, last = list(stream)
    assert all(chunk.usage is None and chunk.choices for chunk in others)
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (ASKED, SMALL.tokens_output)


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_demo_stream_tells_the_meter_what_its_caller_does_not_see(
    http: httpx.Client, metered: Metered, include_usage: bool
) -> None:
    options = {"include_usage": include_usage}
    asked = {"model": "demo-small", "messages": USER_SAYS, "stream": True, "stream_options": options}
    body = http.post("/v1/chat/completions", json=asked).text
    assert ('"prompt_tokens"' in body) is include_usage
    if include_usage:
        assert metered.reported is None  # the meter reads the answer itself
    else:
        assert metered.reported is not None
        assert (metered.reported.provider, metered.reported.model) == ("demo", "demo-small")
        assert metered.reported.buckets["in_uncached"] == ASKED
        assert metered.reported.buckets["out_visible"] == SMALL.tokens_output


def test_a_response_is_answered_with_true_counts(gpt: openai.OpenAI) -> None:
    answer = gpt.responses.create(model="demo-large", input=QUESTION)
    assert (answer.status, answer.output_text) == ("completed", LARGE.text)
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (ASKED, LARGE.tokens_output)
    assert answer.usage.total_tokens == ASKED + LARGE.tokens_output


def test_instructions_count_as_input(gpt: openai.OpenAI) -> None:
    answer = gpt.responses.create(
        model="demo-small", instructions="Be brief", input=[{"role": "user", "content": QUESTION}]
    )
    assert answer.usage is not None
    assert answer.usage.input_tokens == tokenizer.count("Be brief") + ASKED


def test_a_response_that_hits_its_limit_is_incomplete(gpt: openai.OpenAI) -> None:
    answer = gpt.responses.create(model="demo-small", input=QUESTION, max_output_tokens=4)
    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.output_text == "".join(SMALL.tokens[:4])


def test_a_response_stream_ends_with_the_whole_response(gpt: openai.OpenAI) -> None:
    with gpt.responses.stream(model="demo-small", input=QUESTION) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    assert kinds.count("response.output_text.delta") == SMALL.tokens_output
    assert final.output_text == SMALL.text
    assert final.usage is not None
    assert final.usage.output_tokens == SMALL.tokens_output


def test_a_response_stream_that_hits_its_limit_says_so_last(demo_url: str) -> None:
    asked = {"model": "demo-small", "input": QUESTION, "max_output_tokens": 2, "stream": True}
    body = httpx.post(f"{demo_url}/v1/responses", json=asked).text
    assert body.rstrip().split("\n\n")[-1].startswith("event: response.incomplete\n")


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings_come_as_numbers_and_packed(gpt: openai.OpenAI, encoding: str) -> None:
    answer = gpt.embeddings.create(
        model="demo-embed", input=["two words", "one"], dimensions=8,
        encoding_format="float" if encoding == "float" else "base64",
    )  # fmt: skip
    assert [item.index for item in answer.data] == [0, 1]
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (2 + 1, 2 + 1)


def test_the_client_reads_packed_embeddings_as_the_same_numbers(gpt: openai.OpenAI) -> None:
    plain = (
        gpt.embeddings.create(model="demo-embed", input="green river", encoding_format="float")
        .data[0]
        .embedding
    )
    packed = gpt.embeddings.create(model="demo-embed", input="green river").data[0].embedding
    assert packed == pytest.approx(plain, abs=1e-6)


@pytest.mark.parametrize(("given", "expected"), [([1, 2, 3], 3), ([[1, 2], [3, 4, 5]], 5)])
def test_token_numbers_can_be_embedded(demo_url: str, given: object, expected: int) -> None:
    answer = httpx.post(f"{demo_url}/v1/embeddings", json={"model": "demo-embed", "input": given}).json()
    assert answer["usage"]["prompt_tokens"] == expected


def test_a_message_is_answered_with_true_counts(claude: anthropic.Anthropic) -> None:
    answer = claude.messages.create(
        model="demo-large",
        max_tokens=1000,
        system="Be brief",
        messages=[{"role": "user", "content": QUESTION}],
    )
    said = reply(CHAT_MODELS["demo-large"], ["Be brief", QUESTION])
    assert [block.text for block in answer.content if block.type == "text"] == [said.text]
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens == tokenizer.count("Be brief") + ASKED
    assert answer.usage.output_tokens == said.tokens_output


def test_a_message_stream_gathers_to_the_same_message(claude: anthropic.Anthropic) -> None:
    with claude.messages.stream(
        model="demo-small", max_tokens=5, messages=[{"role": "user", "content": QUESTION}]
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "".join(SMALL.tokens[:5])
    assert final.stop_reason == "max_tokens"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (ASKED, 5)


@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_content_is_generated_with_true_counts(demo_url: str, version: str) -> None:
    with a_google_client(demo_url, version) as client:
        answer = client.models.generate_content(model="demo-large", contents=QUESTION)
    assert answer.text == LARGE.text
    assert answer.model_version == "demo-large"
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == genai.types.FinishReason.STOP
    assert counts(answer) == (ASKED, LARGE.tokens_output, ASKED + LARGE.tokens_output)


def counts(answer: genai.types.GenerateContentResponse) -> tuple[int | None, int | None, int | None]:
    usage = answer.usage_metadata
    assert usage is not None
    return usage.prompt_token_count, usage.candidates_token_count, usage.total_token_count


def test_a_stream_of_content_counts_along_and_ends_with_the_whole(gemini: genai.Client) -> None:
    chunks = list(gemini.models.generate_content_stream(model="demo-small", contents=QUESTION))
    assert "".join(chunk.text or "" for chunk in chunks) == SMALL.text
    whole = SMALL.tokens_output
    assert [counts(chunk) for chunk in chunks] == [(ASKED, n, ASKED + n) for n in range(1, whole + 1)]
    ends = [candidate.finish_reason for chunk in chunks for candidate in chunk.candidates or ()]
    assert ends == [None] * (whole - 1) + [genai.types.FinishReason.STOP]


def test_a_stream_that_asks_for_no_events_is_one_array(demo_url: str) -> None:
    asked = {"contents": [{"parts": [{"text": QUESTION}]}]}
    answer = httpx.post(f"{demo_url}/v1beta/models/demo-small:streamGenerateContent", json=asked)
    assert answer.headers["content-type"] == "application/json"
    chunks = answer.json()
    texts = [chunk["candidates"][0]["content"]["parts"][0]["text"] for chunk in chunks]
    assert texts == SMALL.tokens
    assert chunks[-1]["usageMetadata"]["candidatesTokenCount"] == SMALL.tokens_output


def test_a_stream_of_one_token_is_an_array_all_the_same(demo_url: str) -> None:
    config = {"maxOutputTokens": 1}
    asked = {"contents": [{"parts": [{"text": QUESTION}]}], "generationConfig": config}
    (chunk,) = httpx.post(f"{demo_url}/v1/models/demo-small:streamGenerateContent", json=asked).json()
    assert chunk["candidates"][0]["finishReason"] == "MAX_TOKENS"


def test_instructions_and_images_count_as_input_to_google(gemini: genai.Client) -> None:
    answer = gemini.models.generate_content(
        model="demo-small",
        contents=[QUESTION, genai.types.Part.from_bytes(data=b"GIF89a", mime_type="image/gif")],
        config=genai.types.GenerateContentConfig(system_instruction="Be brief", max_output_tokens=3),
    )
    assert counts(answer)[:2] == (tokenizer.count("Be brief") + ASKED + IMAGE_TOKENS, 3)
    usage = answer.usage_metadata
    assert usage is not None
    assert [(detail.modality, detail.token_count) for detail in usage.prompt_tokens_details or ()] == [
        (genai.types.MediaModality.TEXT, 2 + ASKED),
        (genai.types.MediaModality.IMAGE, IMAGE_TOKENS),
    ]
    assert answer.candidates is not None
    assert answer.candidates[0].finish_reason == genai.types.FinishReason.MAX_TOKENS


def test_google_takes_both_spellings(demo_url: str) -> None:
    contents = [{"role": "user", "parts": [{"text": QUESTION}]}]
    asked = [
        {"contents": contents, "systemInstruction": {"parts": [{"text": "Be brief"}]}, "generationConfig": {"maxOutputTokens": 3}},
        {"contents": contents, "system_instruction": {"parts": [{"text": "Be brief"}]}, "generation_config": {"max_output_tokens": 3}},
    ]  # fmt: skip
    camel, snake = (
        httpx.post(f"{demo_url}/v1beta/models/demo-small:generateContent", json=body).json() for body in asked
    )
    assert camel["usageMetadata"]["promptTokenCount"] == 2 + ASKED
    assert (camel["candidates"], camel["usageMetadata"]) == (snake["candidates"], snake["usageMetadata"])


def test_without_an_upstream_google_has_no_other_model(gemini: genai.Client) -> None:
    with pytest.raises(google_errors.ClientError, match="gemini-x") as caught:
        gemini.models.generate_content(model="gemini-x", contents="hi")
    assert (caught.value.code, caught.value.status) == (404, "NOT_FOUND")


def test_without_an_upstream_another_model_does_not_exist(
    gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.NotFoundError, match="gpt-x"):
        gpt.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "hi"}])
    with pytest.raises(anthropic.NotFoundError, match="claude-x"):
        claude.messages.create(model="claude-x", max_tokens=5, messages=[{"role": "user", "content": "hi"}])
