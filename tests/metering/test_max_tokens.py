"""A request's limit on its output, lowered: nothing else of it changes."""

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.max_tokens import least_of, lowered

TEXT = [{"role": "user", "content": "Grüße  \u00e9"}]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.parametrize(
    ("wire_format", "provider", "given", "becomes"),
    [
        ("openai_chat", "openai", {"max_tokens": 100}, {"max_tokens": 7}),
        ("openai_chat", "openai", {"max_completion_tokens": 100}, {"max_completion_tokens": 7}),
        ("openai_chat", "openai", {"max_tokens": 5, "max_completion_tokens": 100}, {"max_tokens": 5, "max_completion_tokens": 7}),
        ("openai_chat", "openai", {}, {"max_completion_tokens": 7}),
        ("openai_chat", "openai", {"max_tokens": None}, {"max_tokens": None, "max_completion_tokens": 7}),
        ("openai_chat", "deepseek", {}, {"max_tokens": 7}),
        ("openai_responses", "openai", {}, {"max_output_tokens": 7}),
        ("anthropic_messages", "anthropic", {"max_tokens": 100}, {"max_tokens": 7}),
        ("execute", "demo", {}, {"max_tokens": 7}),
        ("gemini_generate", "google", {}, {"generationConfig": {"maxOutputTokens": 7}}),
        (
            "gemini_generate", "google", {"generationConfig": {"temperature": 0.50, "maxOutputTokens": 100}},
            {"generationConfig": {"temperature": 0.50, "maxOutputTokens": 7}},
        ),
        ("gemini_generate", "google", {"generation_config": {}}, {"generation_config": {"max_output_tokens": 7}}),
        ("bedrock_converse", "amazon", {"inferenceConfig": {"maxTokens": 100}}, {"inferenceConfig": {"maxTokens": 7}}),
        ("perplexity_responses", "perplexity", {}, {"max_output_tokens": 7}),
        ("mistral_conversations", "mistral", {}, {"completion_args": {"max_tokens": 7}}),
        ("google_interactions", "google", {}, {"generation_config": {"max_output_tokens": 7}}),
        ("bedrock_invoke", "amazon", {"max_gen_len": 100}, {"max_gen_len": 7}),
        ("anthropic_messages", "anthropic", {"max_tokens": 100, "thinking": {"type": "enabled", "budget_tokens": 6}}, {"max_tokens": 7, "thinking": {"type": "enabled", "budget_tokens": 6}}),
    ],
)  # fmt: skip
def test_the_limit_stands_where_the_format_has_it(
    wire_format: str, provider: str, given: Any, becomes: Any
) -> None:
    body = json.dumps({"model": "m", "messages": TEXT, **given}).encode()
    changed = lowered(body, wire_format, provider, 7)
    assert changed is not None
    assert json.loads(changed) == {"model": "m", "messages": TEXT, **becomes}


@pytest.mark.parametrize(
    ("wire_format", "body"),
    [
        ("openai_embeddings", b'{"model":"m"}'),
        ("openai_chat", b"[]"),
        ("openai_chat", b"{"),
        ("openai_chat", b""),
        ("openai_chat", b"\xff"),
        ("gemini_generate", b'{"generationConfig":5}'),
        ("anthropic_messages", b'{"max_tokens":100,"thinking":{"budget_tokens":7}}'),
        ("bedrock_converse", b'{"additionalModelRequestFields":{"thinking":{"budget_tokens":7}}}'),
        ("bedrock_invoke", b'{"textGenerationConfig":{"maxTokenCount":100}}'),
    ],
)
def test_what_cannot_be_limited_is_left_alone(wire_format: str, body: bytes) -> None:
    assert lowered(body, wire_format, "openai", 7) is None


@given(
    others=st.dictionaries(st.text().filter(lambda name: name not in ("max_tokens", "max_completion_tokens", "thinking")), values, max_size=6),
    most=st.integers(1, 10**6),
)  # fmt: skip
def test_everything_else_is_as_it_was(others: dict[str, Any], most: int) -> None:
    body = json.dumps(others | {"max_tokens": 10**7}).encode()
    changed = lowered(body, "openai_chat", "openai", most)
    assert changed is not None
    assert json.loads(changed) == others | {"max_tokens": most}
    assert list(json.loads(changed)) == list(others | {"max_tokens": most})


@pytest.mark.parametrize(
    ("wire_format", "body", "least"),
    [
        ("openai_chat", b"{}", 1),
        ("openai_responses", b"{}", 16),
        ("anthropic_messages", b'{"thinking":{"type":"enabled","budget_tokens":1024}}', 1025),
        ("anthropic_messages", b'{"thinking":{"type":"disabled"}}', 1),
        ("bedrock_converse", b'{"additionalModelRequestFields":{"thinking":{"budget_tokens":2000}}}', 2001),
        ("openai_chat", b"[", 1),
    ],
)
def test_the_least_is_what_a_provider_takes(wire_format: str, body: bytes, least: int) -> None:
    assert least_of(body, wire_format) == least
