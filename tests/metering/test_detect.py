"""Told by a document itself, or by who sent it, which wire format it is in."""

from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.extract import wire_format
from metering.extract.detect import detect, detect_by_content
from tests.metering.payloads import CHAT_USAGE, MESSAGE_USAGE, RESPONSES_USAGE

DOCUMENTS = [
    pytest.param({"object": "chat.completion", "choices": [], "usage": CHAT_USAGE}, "openai_chat", id="chat"),
    pytest.param({"object": "chat.completion.chunk", "choices": []}, "openai_chat", id="chat chunk"),
    pytest.param({"choices": [{"delta": {}}], "x_groq": {}}, "openai_chat", id="chat without a name"),
    pytest.param({"model": "m", "usage": CHAT_USAGE}, "openai_chat", id="chat by its counters"),
    pytest.param({"object": "text_completion", "choices": []}, "openai_completions", id="completion"),
    pytest.param({"object": "response", "usage": RESPONSES_USAGE}, "openai_responses", id="response"),
    pytest.param({"type": "response.completed", "response": {}}, "openai_responses", id="response event"),
    pytest.param({"usage": {"input_tokens": 1, "output_tokens": 2}}, "openai_responses", id="response by its counters"),
    pytest.param({"object": "list", "data": [], "usage": {"prompt_tokens": 8}}, "openai_embeddings", id="embeddings"),
    pytest.param({"type": "message", "content": [], "usage": MESSAGE_USAGE}, "anthropic_messages", id="message"),
    pytest.param({"type": "message_start", "message": {}}, "anthropic_messages", id="message event"),
    pytest.param({"type": "content_block_delta"}, "anthropic_messages", id="content event"),
    pytest.param({"usage": MESSAGE_USAGE}, "anthropic_messages", id="message by its counters"),
    pytest.param({"custom_id": "r", "result": {"type": "succeeded", "message": {}}}, "anthropic_messages", id="batch line"),
    pytest.param({"candidates": [], "usageMetadata": {"promptTokenCount": 8}}, "gemini_generate", id="Gemini"),
    pytest.param({"promptFeedback": {}}, "gemini_generate", id="Gemini, blocked"),
    pytest.param({"key": "r", "response": {"usageMetadata": {}}}, "gemini_generate", id="Gemini batch line"),
    pytest.param({"setupComplete": {}}, "gemini_live", id="Live"),
    pytest.param({"usageMetadata": {"responseTokenCount": 8}}, "gemini_live", id="Live by its counters"),
    pytest.param({"embedding": {}, "usageMetadata": {}}, "gemini_embeddings", id="Gemini embeddings"),
    pytest.param({"predictions": []}, "gemini_embeddings", id="Vertex embeddings"),
    pytest.param({"object": "interaction", "usage": {}}, "google_interactions", id="interaction"),
    pytest.param({"event_type": "step.delta"}, "google_interactions", id="interaction event"),
    pytest.param({"usage": {"total_input_tokens": 7}}, "google_interactions", id="interaction by its counters"),
    pytest.param({"usage": {"inputTokens": 1}, "metrics": {}}, "bedrock_converse", id="Converse"),
    pytest.param({"contentBlockIndex": 0, "delta": {}}, "bedrock_converse", id="Converse event"),
    pytest.param({"metadata": {"usage": {"outputTokens": 1}}}, "bedrock_converse", id="Converse by its metadata"),
    pytest.param({"bytes": "e30="}, "bedrock_invoke", id="InvokeModel frame"),
    pytest.param({"amazon-bedrock-invocationMetrics": {}}, "bedrock_invoke", id="InvokeModel metrics"),
    pytest.param({"generation": "Hi", "generation_token_count": 1}, "bedrock_invoke", id="Llama"),
    pytest.param({"inputTextTokenCount": 1, "results": []}, "bedrock_invoke", id="Titan"),
    pytest.param({"usage": {"billed_units": {}}}, "cohere_chat", id="Cohere chat"),
    pytest.param({"type": "message-end", "delta": {}}, "cohere_chat", id="Cohere event"),
    pytest.param({"meta": {"billed_units": {}}}, "cohere_v1", id="Cohere v1"),
    pytest.param({"event_type": "stream-start"}, "cohere_v1", id="Cohere v1 event"),
    pytest.param({"model": "m", "done": False, "message": {}}, "ollama", id="Ollama line"),
    pytest.param({"model": "m", "eval_count": 2}, "ollama", id="Ollama by its counters"),
    pytest.param({"gen_ai.usage.input_tokens": 1}, "otel_span", id="attributes"),
    pytest.param({"attributes": {"gen_ai.system": "openai"}}, "otel_span", id="span"),
    pytest.param({"attributes": [{"key": "llm.usage.total_tokens"}, 7, {}]}, "otel_span", id="OTLP span"),
    pytest.param({"type": "session.started", "session": {}}, "openai_live", id="OpenAI Live"),
    pytest.param({"type": "session.created", "session": {}}, "openai_realtime", id="Realtime"),
    pytest.param({"type": "response.created", "event_id": "e", "response": {}}, "openai_realtime", id="Realtime response"),
    pytest.param({"custom_id": "r", "response": None, "error": {}}, "openai_batch", id="OpenAI batch line"),
    pytest.param({"usage": {"type": "duration", "seconds": 3}}, "openai_transcription", id="transcription"),
    pytest.param({"created": 1, "data": [], "usage": {"input_tokens": 1}}, "openai_images", id="images"),
    pytest.param({"created": 1, "data": [{"url": "x"}]}, "openai_images", id="images without usage"),
    pytest.param({"task": "transcribe", "duration": 3.1, "text": "Hi"}, "openai_transcription", id="transcription without usage"),
    pytest.param({"result": {"usage": {}}, "success": True}, "cloudflare_run", id="Cloudflare"),
    pytest.param({"response": "Hi", "p": "abc"}, "cloudflare_run", id="Cloudflare stream"),
    pytest.param({"pages": [], "usage_info": {}}, "mistral_ocr", id="Mistral OCR"),
    pytest.param({"object": "conversation.response", "usage": {}}, "mistral_conversations", id="Mistral conversation"),
    pytest.param({"execution_id": "e", "usage": {"tokens_input": 1}}, "execute", id="our own"),
    pytest.param({"type": "execution.delta"}, "execute", id="our own event"),
]  # fmt: skip


@pytest.mark.parametrize(("document", "name"), DOCUMENTS)
def test_a_document_tells_its_format_whoever_sent_it(document: dict[str, Any], name: str) -> None:
    assert detect(document) == name
    assert detect(document, "acme") == name


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"error": {"message": "no"}},
        {"type": 7, "object": []},
        {"usage": 7},
        {"usage": {}},
        {"type": "error"},
    ],
)
def test_a_document_that_tells_nothing_is_what_its_provider_speaks(document: dict[str, Any]) -> None:
    assert detect(document) is None
    assert detect_by_content(document, "anthropic") is None
    assert detect(document, "anthropic") == "anthropic_messages"
    assert detect(document, "google") == "gemini_generate"
    assert detect(document, "groq") == "openai_chat"


def test_counters_that_several_formats_have_are_the_provider_s() -> None:
    plain = {"usage": {"input_tokens": 1, "output_tokens": 2}}
    assert detect(plain, "anthropic") == "anthropic_messages"
    assert detect(plain, "openai") == "openai_responses"


def test_an_event_is_told_by_its_name_on_the_wire() -> None:
    assert detect_by_content({"role": "assistant"}, event=b"messageStart") == "bedrock_converse"
    assert detect_by_content({"message": {}}, event=b"message_start") == "anthropic_messages"
    assert detect_by_content({"object": "chat.completion.chunk"}, event=b"messageStart") == "openai_chat"
    assert detect_by_content({"content": "Hi"}, event=b"message") is None


def test_a_vendor_s_body_at_bedrock_came_from_invoke_model() -> None:
    assert detect({"type": "message", "usage": MESSAGE_USAGE}, "bedrock") == "bedrock_invoke"
    assert detect({"object": "response", "usage": RESPONSES_USAGE}, "perplexity") == "perplexity_responses"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=3)
    | st.sampled_from(["message", "response.x", "list"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from(sorted({key for case in DOCUMENTS for key in case.values[0]}))  # type: ignore[union-attr]


@given(st.dictionaries(FIELDS, ANYTHING), st.sampled_from(["", "anthropic", "perplexity", "acme"]))
def test_any_document_has_a_format_that_exists_or_none(document: dict[str, Any], provider: str) -> None:
    name = detect(document, provider)
    assert name is None or wire_format(name).name == name
