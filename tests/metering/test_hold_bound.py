"""The bound of a request in each wire format: what it can read and write, and where there is no saying."""

import base64
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, strategies as st

from metering.estimate import RequestFacts
from metering.hold_bound import NOTHING_KNOWN, HoldBound, hold_bound
from metering.hold_bound.caps import CAPS, cap_of
from metering.hold_bound.text import text_tokens
from project.demo_models import CHAT_MODELS, IMAGE_TOKENS, reply

Json = dict[str, Any]
USER: Json = {"role": "user", "content": "Hello there"}
SAYS: Json = {"role": "user", "parts": [{"text": "Hello there"}]}
TEMPLATE = 64  # what a chat template adds
PIXEL = base64.b64encode(b"\x89PNG" + bytes(2_000)).decode()


def bound(fields: Json, wire_format: str = "openai_chat", model: str = "gpt-4o") -> HoldBound:
    return hold_bound(json.dumps(fields).encode(), wire_format, RequestFacts(model=model, readable=True))


def text_of(fields: Json) -> int:
    """What the text of a body makes at the most, with the template around it."""
    return text_tokens(json.dumps(fields).encode()) + TEMPLATE


# --- what is read


def test_all_of_the_body_bounds_its_text() -> None:
    asked = {
        "model": "gpt-4o",
        "messages": [{"role": "system", "content": "Be brief"}, USER],
        "max_tokens": 9,
    }
    assert bound(asked).tokens_input == {"": text_of(asked)}


@pytest.mark.parametrize(
    ("wire_format", "asked"),
    [
        ("openai_chat", {"messages": [USER]}),
        ("openai_completions", {"prompt": "Hello there"}),
        ("openai_responses", {"input": "Hello there", "instructions": "Be brief"}),
        ("openai_embeddings", {"input": ["Hello", "there"]}),
        ("openai_images", {"prompt": "A house"}),
        ("anthropic_messages", {"system": "Be brief", "messages": [USER]}),
        ("gemini_generate", {"contents": [SAYS], "systemInstruction": SAYS}),
        ("bedrock_converse", {"messages": [{"role": "user", "content": [{"text": "Hello there"}]}]}),
        ("cohere_chat", {"messages": [USER]}),
        ("ollama", {"prompt": "Hello there"}),
        ("execute", {"prompt": "Hello there"}),
    ],
)
def test_each_wire_format_is_bounded(wire_format: str, asked: Json) -> None:
    assert bound(asked, wire_format).tokens_input == {"": text_of(asked)}


def test_a_character_is_not_counted_as_its_escape() -> None:
    asked = {"messages": [{"role": "user", "content": "Привет"}]}
    escaped, plain = json.dumps(asked), json.dumps(asked, ensure_ascii=False)
    facts = RequestFacts(model="gpt-4o")
    assert len(escaped) > len(plain) + 20
    assert hold_bound(escaped.encode(), "openai_chat", facts) == hold_bound(
        plain.encode(), "openai_chat", facts
    )


def test_tools_and_schemas_are_text() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    asked = {
        "messages": [USER],
        "tools": [tool],
        "response_format": {"type": "json_schema", "json_schema": {}},
    }
    assert bound(asked).tokens_input == {"": text_of(asked)}
    assert bound(asked).open_ended == ()


def test_claude_is_told_more_of_its_tools_than_the_body_says() -> None:
    own = {"name": "f", "input_schema": {"type": "object"}}
    anthropics = {"type": "bash_20250124", "name": "bash"}
    for tools, described in (([own], 1), ([own, own], 1), ([own, anthropics], 2)):
        asked = {"messages": [USER], "tools": tools, "max_tokens": 9}
        found = bound(asked, "anthropic_messages", "claude-sonnet-4-5")
        assert found.tokens_input == {"": text_of(asked) + described * 1_024}
        assert found.open_ended == ()


# --- images, sound, films, documents

IMAGES: list[tuple[str, Json]] = [
    ("openai_chat", {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}),
    ("openai_responses", {"type": "input_image", "image_url": f"data:image/png;base64,{PIXEL}"}),
    ("anthropic_messages", {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}),
    ("bedrock_converse", {"image": {"format": "png", "source": {"bytes": PIXEL}}}),
    ("gemini_generate", {"inlineData": {"mimeType": "image/png", "data": PIXEL}}),
    ("gemini_generate", {"inline_data": {"mime_type": "image/png", "data": PIXEL}}),
]  # fmt: skip


def with_part(wire_format: str, part: Json) -> Json:
    if wire_format == "gemini_generate":
        return {"contents": [{"role": "user", "parts": [{"text": "What is it?"}, part]}]}
    name = "input" if wire_format == "openai_responses" else "messages"
    return {name: [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}]}


@pytest.mark.parametrize(("wire_format", "part"), IMAGES)
def test_an_image_is_counted_by_its_model_and_not_as_text(wire_format: str, part: Json) -> None:
    for model, most in (("gpt-4o", 4_000), ("gpt-4o-mini", 48_169), ("claude-sonnet-4-5", 1_600),
                        ("claude-opus-5", 5_000), ("gemini-2.5-pro", 5_160), ("demo-large", IMAGE_TOKENS)):  # fmt: skip
        found = bound(with_part(wire_format, part), wire_format, model).tokens_input
        assert found is not None
        assert found["image"] == most
        assert found[""] < 400  # of base64 there are 2,672 characters


@pytest.mark.parametrize(
    ("wire_format", "part"),
    [
        ("openai_chat", {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}),
        ("openai_responses", {"type": "input_image", "image_url": "https://example.com/a.png"}),
        (
            "anthropic_messages",
            {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        ),
        ("gemini_generate", {"fileData": {"mimeType": "image/png", "fileUri": "gs://example/a.png"}}),
        ("gemini_generate", {"file_data": {"mime_type": "image/png", "file_uri": "gs://example/a.png"}}),
    ],
)
def test_an_image_at_an_address_is_one_image(wire_format: str, part: Json) -> None:
    found = bound(with_part(wire_format, part), wire_format, "gpt-4o")
    assert found.tokens_input is not None
    assert found.tokens_input["image"] == 4_000
    assert found.open_ended == ()


@pytest.mark.parametrize(
    ("model", "detail", "most"),
    [("gpt-4o", "low", 2_833), ("gpt-4o", "high", 4_000), ("gpt-5.4", "original", 25_000), ("some-new-model", None, 48_169)],
)  # fmt: skip
def test_detail_bounds_an_image(model: str, detail: str | None, most: int) -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": detail}}
    found = bound(with_part("openai_chat", part), model=model).tokens_input
    assert found is not None
    assert found["image"] == most


def test_googles_resolution_bounds_an_image() -> None:
    asked = with_part("gemini_generate", {"inlineData": {"mimeType": "image/png", "data": PIXEL}})
    asked["generationConfig"] = {"mediaResolution": "MEDIA_RESOLUTION_LOW"}
    found = bound(asked, "gemini_generate", "gemini-2.5-pro").tokens_input
    assert found is not None
    assert found["image"] == 280


def test_images_add_up() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    asked = {"messages": [{"role": "user", "content": [part, part]}, {"role": "user", "content": [part]}]}
    found = bound(asked).tokens_input
    assert found is not None
    assert found["image"] == 3 * 4_000


@pytest.mark.parametrize(
    ("part", "modality", "most"),
    [
        ({"type": "input_audio", "input_audio": {"data": "A" * 4_000, "format": "wav"}}, "audio", 1 + 3_000 // 25),
        ({"type": "input_audio", "input_audio": {"data": "A" * 4_000, "format": "flac"}}, "audio", 1 + 3_000),
        ({"inlineData": {"mimeType": "audio/mp3", "data": "A" * 4_000}}, "audio", 1 + 3_000 // 25),
        ({"inlineData": {"mimeType": "video/mp4", "data": "A" * 4_000}}, "video", 1 + 3_000 // 2),
        ({"inlineData": {"mimeType": "video/mp4", "data": "A" * 4_000}, "videoMetadata": {"fps": 10}}, "video", 1 + 15_000),
        ({"inlineData": {"mimeType": "application/pdf", "data": "A" * 4_000}}, "document", 3_000 + 4_000),
        ({"type": "file", "file": {"file_data": "data:application/pdf;base64," + "A" * 3_972}}, "document", 3_000 + 4_000),
        ({"type": "input_file", "file_data": "A" * 4_000}, "document", 3_000 + 4_000),
        ({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "A" * 4_000}},
         "document", 3_000 + 4_000),
        ({"document": {"format": "pdf", "name": "a", "source": {"bytes": "A" * 4_000}}}, "document", 3_000 + 4_000),
    ],
)  # fmt: skip
def test_other_media_are_counted_by_their_bytes(part: Json, modality: str, most: int) -> None:
    found = bound(with_part("openai_chat", part)).tokens_input
    assert found is not None
    assert found[modality] == most
    assert found[""] < 400


def test_media_read_no_more_than_the_model_can() -> None:
    part = {"inlineData": {"mimeType": "application/pdf", "data": "A" * 4_000_000}}
    found = bound(with_part("gemini_generate", part), "gemini_generate", "gpt-4o").tokens_input
    assert found is not None
    assert found["document"] == CAPS["gpt-4o"].input


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": [{"type": "tool_use", "input": {"image_url": PIXEL, "source": {"data": PIXEL}}}]},
        {"role": "user", "parts": [{"functionResponse": {"response": {"inlineData": {"data": PIXEL}}}}]},
        {"role": "user", "content": [{"toolResult": {"content": [{"json": {"image": PIXEL}}]}}]},
        {"role": "user", "content": [{"type": "text", "text": PIXEL}]},
        {"role": "user", "content": f'{{"image_url": "data:image/png;base64,{PIXEL}"}}'},
    ],
)  # fmt: skip
def test_what_only_looks_like_an_image_is_text(message: Json) -> None:
    asked = {"messages": [message]}
    assert bound(asked).tokens_input == {"": text_of(asked)}


def test_an_image_in_the_answer_of_a_tool_is_one() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    asked = {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": [image]}]}]}
    found = bound(asked, "anthropic_messages", "claude-sonnet-4-5").tokens_input
    assert found is not None
    assert found["image"] == 1_600


def test_ollamas_images_are_images() -> None:
    asked = {"messages": [{"role": "user", "content": "hi", "images": [PIXEL, PIXEL]}]}
    found = bound(asked, "ollama", "llava").tokens_input
    assert found is not None
    assert found["image"] == 2 * 48_169


# --- what is written


@pytest.mark.parametrize(
    ("wire_format", "asked", "most"),
    [
        ("openai_chat", {"max_tokens": 50}, 50),
        ("openai_chat", {"max_tokens": 50, "max_completion_tokens": 70}, 70),
        ("openai_chat", {"max_tokens": 50, "n": 3}, 150),
        ("openai_chat", {"max_tokens": 0}, 0),
        ("openai_completions", {"prompt": "a", "max_tokens": 50, "n": 2, "best_of": 5}, 250),
        ("openai_completions", {"prompt": ["a", "b"], "max_tokens": 50, "n": 2}, 200),
        ("openai_completions", {"prompt": [1, 2, 3], "max_tokens": 50}, 50),
        ("openai_responses", {"max_output_tokens": 50}, 50),
        ("anthropic_messages", {"max_tokens": 5_000, "thinking": {"type": "enabled", "budget_tokens": 4_000}}, 5_000),
        ("anthropic_messages", {"max_tokens": 5_000, "thinking": {"type": "enabled", "budget_tokens": 9_000}}, 14_000),
        ("gemini_generate", {"generationConfig": {"maxOutputTokens": 50}}, 50),
        ("gemini_generate", {"generation_config": {"max_output_tokens": 50}}, 50),
        ("gemini_generate", {"generationConfig": {"maxOutputTokens": 1}, "generation_config": {"maxOutputTokens": "50"}}, 50),
        ("gemini_generate", {"generationConfig": {"maxOutputTokens": "50", "candidateCount": 2.0}}, 100),
        ("gemini_generate", {"generationConfig": {"maxOutputTokens": 50, "thinkingConfig": {"thinkingBudget": 30}}}, 80),
        ("gemini_generate", {"generationConfig": {"maxOutputTokens": 50, "thinkingConfig": {"thinkingBudget": -1}}}, 50),
        ("bedrock_converse", {"inferenceConfig": {"maxTokens": 50}}, 50),
        ("bedrock_invoke", {"max_gen_len": 50}, 50),
        ("bedrock_invoke", {"textGenerationConfig": {"maxTokenCount": 50}}, 50),
        ("cohere_v1", {"message": "hi", "max_tokens": 50, "num_generations": 2}, 100),
        ("cohere_v1", {"query": "a", "documents": ["b"]}, 0),
        ("ollama", {"options": {"num_predict": 50}}, 50),
        ("execute", {"max_tokens": 50}, 50),
        ("openai_embeddings", {"input": "a"}, 0),
        ("gemini_embeddings", {"content": SAYS}, 0),
        ("openai_images", {"prompt": "a", "n": 2}, 2 * (6_240 + 300)),
        ("openai_images", {"prompt": "a", "size": "3072x1024"}, 2 * 6_240 + 300),
    ],
)  # fmt: skip
def test_what_is_written_is_bounded_by_the_requests_own_limit(
    wire_format: str, asked: Json, most: int
) -> None:
    assert bound(asked, wire_format, "unheard-of").tokens_output == most


@pytest.mark.parametrize(
    ("wire_format", "asked"),
    [
        ("openai_chat", {}),
        ("openai_chat", {"max_output_tokens": 50}),  # a name of another API: a server may well ignore it
        ("openai_responses", {"max_tokens": 50}),
        ("gemini_generate", {"maxOutputTokens": 50}),
        ("ollama", {"max_tokens": 50}),
        ("ollama", {"options": {"num_predict": -1}}),
        ("openai_chat", {"max_tokens": True}),
        ("openai_chat", {"max_tokens": -5}),
        ("openai_chat", {"max_tokens": 1.5}),
        ("openai_chat", {"max_tokens": None}),
    ],
)
def test_without_a_limit_it_is_bounded_by_what_the_model_can(wire_format: str, asked: Json) -> None:
    assert bound(asked, wire_format, "gpt-4o").tokens_output == 16_384
    assert bound({**asked, "n": 3}, wire_format, "gpt-4o").tokens_output == 3 * 16_384
    assert bound(asked, wire_format, "unheard-of").tokens_output is None


def test_a_prediction_that_is_not_taken_is_written_all_the_same() -> None:
    prediction = {"type": "content", "content": "def f(): pass"}
    most = text_tokens(json.dumps(prediction, separators=(",", ":")).encode())
    assert bound({"messages": [USER], "max_tokens": 50, "prediction": prediction}).tokens_output == 50 + most


# --- what stands somewhere else, and what has no end


@pytest.mark.parametrize(
    ("wire_format", "asked", "name"),
    [
        ("openai_responses", {"input": "hi", "previous_response_id": "resp_1"}, "previous_response_id"),
        ("openai_responses", {"input": "hi", "conversation": {"id": "conv_1"}}, "conversation"),
        ("openai_responses", {"input": [{"type": "item_reference", "id": "msg_1"}]}, "item_reference"),
        ("openai_chat", {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "audio"),
        ("openai_chat", {"messages": [{"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]}]}, "file_id"),
        ("anthropic_messages", {"messages": [{"role": "user", "content": [
            {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}}]}]}, "source.url"),
        ("gemini_generate", {"contents": [SAYS], "cachedContent": "cachedContents/1"}, "cachedContent"),
        ("gemini_generate", {"contents": [{"parts": [{"fileData": {"mimeType": "video/mp4", "fileUri": "u"}}]}]}, "fileData"),
        ("openai_responses", {"input": "hi", "tools": [{"type": "web_search"}]}, "web_search"),
        ("gemini_generate", {"contents": [SAYS], "tools": [{"googleSearch": {}}]}, "googleSearch"),
        ("gemini_generate", {"contents": [SAYS], "tools": {"googleSearch": {}}}, "googleSearch"),
        ("openai_chat", {"messages": [USER], "web_search_options": {"search_context_size": "low"}}, "web_search_options"),
        ("anthropic_messages", {"messages": [USER], "mcp_servers": [{"type": "url", "url": "u"}]}, "mcp_servers"),
    ],
)  # fmt: skip
def test_what_the_body_does_not_hold_may_fill_the_context(wire_format: str, asked: Json, name: str) -> None:
    known = bound(asked, wire_format, "gpt-4o")
    assert known.tokens_input is not None
    assert known.tokens_input[""] >= 131_072
    assert name in known.open_ended
    assert bound(asked, wire_format, "unheard-of").tokens_input is None


@pytest.mark.parametrize(
    ("wire_format", "asked", "name"),
    [
        (
            "anthropic_messages",
            {"tools": [{"type": "advisor_20260301", "name": "advisor"}]},
            "advisor_20260301",
        ),
        (
            "anthropic_messages",
            {"context_management": {"edits": [{"type": "compact_20260112"}]}},
            "context_management",
        ),
        ("openai_responses", {"context_management": [{"type": "compaction"}]}, "context_management"),
        ("anthropic_messages", {"fallbacks": [{"model": "claude-opus-5"}]}, "fallbacks"),
        ("openai_chat", {"models": ["openai/gpt-4o", "anthropic/claude-opus-5"]}, "models"),
        ("openai_responses", {"tools": [{"type": "image_generation"}]}, "image_generation"),
    ],
)
def test_what_several_models_write_has_no_bound(wire_format: str, asked: Json, name: str) -> None:
    limit = {"max_tokens": 50, "max_output_tokens": 50}
    found = bound({**asked, **limit, "messages": [USER]}, wire_format, "gpt-4o")
    assert found.tokens_output is None
    assert name in found.open_ended


def test_edits_that_only_take_away_keep_the_bound() -> None:
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    found = bound({"messages": [USER], "max_tokens": 50, "context_management": edits}, "anthropic_messages")
    assert (found.tokens_output, found.open_ended) == (50, ())


def test_what_is_billed_by_another_measure_is_named_and_bounds_nothing_less() -> None:
    asked = {
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "guardrailConfig": {"guardrailIdentifier": "g"},
    }
    found = bound(asked, "bedrock_converse", "unheard-of")
    assert (found.tokens_input, found.open_ended) == ({"": text_of(asked)}, ("guardrailConfig",))


def test_searches_are_counted_where_the_request_says_how_many() -> None:
    tool = {"type": "web_search_20260209", "name": "web_search", "max_uses": 5}
    found = bound(
        {"messages": [USER], "tools": [tool], "max_tokens": 9}, "anthropic_messages", "claude-opus-5"
    )
    assert found.units == {"web_search": 5}


def test_units_that_the_request_bounds() -> None:
    documents = ["one " * 10] * 250
    assert bound({"query": "a", "documents": documents}, "cohere_v1").units["search_unit"] >= 3
    assert bound({"prompt": "a", "n": 4}, "openai_images").units == {"image": 4}


def test_what_is_not_one_request_has_no_bound() -> None:
    for wire_format in ("openai_batch", "otel_span", "openai_realtime"):
        assert bound({"messages": [USER], "max_tokens": 5}, wire_format) == NOTHING_KNOWN


def test_coheres_images_are_units_as_well() -> None:
    asked = {"images": [f"data:image/png;base64,{PIXEL}", f"data:image/png;base64,{PIXEL}"]}
    assert bound(asked, "cohere_v1", "embed-v4.0").units == {"image": 2}


def test_a_transcription_is_bounded_by_its_size() -> None:
    facts = RequestFacts(model="gpt-4o-transcribe")
    found = hold_bound(b"--boundary" + bytes(800 * 60), "openai_transcription", facts)
    assert found.units == {"audio_second": 61}
    assert found.tokens_input == {"": TEMPLATE, "audio": 61 * 32}
    assert found.tokens_output == 2_000


# --- what its price depends on


@pytest.mark.parametrize(
    ("wire_format", "asked", "ttls"),
    [
        ("openai_chat", {}, ("5m", "30m", "1h", "12h", "unknown")),
        ("anthropic_messages", {}, ()),
        ("anthropic_messages", {"system": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}, ("5m", "unknown")),
        ("anthropic_messages", {"cache_control": {"type": "ephemeral", "ttl": "1h"}}, ("5m", "30m", "1h", "12h", "unknown")),
        ("bedrock_converse", {"system": [{"cachePoint": {"type": "default"}}]}, ("5m", "unknown")),
    ],
)  # fmt: skip
def test_a_cache_may_be_written_where_that_is_asked_for(
    wire_format: str, asked: Json, ttls: tuple[str, ...]
) -> None:
    assert bound(asked, wire_format).cache_writes == ttls


@pytest.mark.parametrize(
    ("wire_format", "asked", "modalities"),
    [
        ("openai_chat", {}, ("",)),
        ("openai_chat", {"modalities": ["text", "audio"]}, ("", "audio")),
        ("gemini_generate", {"generationConfig": {"responseModalities": ["TEXT", "IMAGE"]}}, ("", "image")),
        ("gemini_generate", {}, ("", "audio", "image", "video")),
        ("openai_images", {}, ("", "image")),
    ],
)
def test_what_may_be_written(wire_format: str, asked: Json, modalities: tuple[str, ...]) -> None:
    assert bound(asked, wire_format).writes == modalities


def test_tier_speed_and_region_are_in_the_form_of_rates() -> None:
    found = bound({"service_tier": "Priority", "speed": "fast", "inference_geo": "us"}, "anthropic_messages")
    assert (found.service_tier, found.speed, found.region) == ("priority", "fast", "us")
    assert bound({"service_tier": "auto"}).service_tier is None
    assert bound({"serviceTier": {"type": "flex"}}, "bedrock_converse").service_tier == "flex"


# --- properties


@given(st.text(max_size=200), st.text(max_size=200), st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_more_text_and_more_answers_never_make_less(
    text: str, more: str, n: int, m: int, ascii_only: bool
) -> None:
    def asked(text: str, n: int) -> bytes:
        fields = {"messages": [{"role": "user", "content": text}], "n": n, "max_tokens": 10}
        return json.dumps(fields, ensure_ascii=ascii_only).encode("utf-8", "replace")

    facts = RequestFacts(model="gpt-4o")
    small = hold_bound(asked(text, min(n, m)), "openai_chat", facts)
    large = hold_bound(asked(text + more, max(n, m)), "openai_chat", facts)
    assert small.tokens_input is not None and large.tokens_input is not None
    assert small.tokens_input[""] <= large.tokens_input[""]
    assert small.tokens_output == 10 * min(n, m)
    assert large.tokens_output == 10 * max(n, m)


NAMES = st.sampled_from([
    "messages", "contents", "input", "content", "parts", "image_url", "source", "type", "url", "data", "inlineData", "file",
    "file_data", "images", "image", "tools", "toolConfig", "generationConfig", "maxOutputTokens", "max_tokens", "n", "prompt",
    "thinking", "budget_tokens", "prediction", "context_management", "edits", "service_tier", "modalities", "size", "documents",
    "audio", "bytes", "format", "videoMetadata", "fps", "output", "thinkingConfig", "models", "name", "max_uses", "result",
]) | st.text(max_size=5)  # fmt: skip
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text()
    | st.sampled_from(["base64", "url", "data:image/png;base64,AAAA", "web_search", "compact", "1024x1024", "item_reference"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=25,
)  # fmt: skip
FORMATS = st.sampled_from(
    ["openai_chat", "openai_responses", "openai_images", "anthropic_messages", "gemini_generate", "bedrock_converse", "cohere_v1",
     "ollama", "openai_transcription", "unheard_of"]
)  # fmt: skip


@given(
    st.dictionaries(NAMES, JSON_VALUES, max_size=8), FORMATS, st.sampled_from(["gpt-4o", "unheard-of", ""])
)
def test_any_json_is_survived(document: Json, wire_format: str, model: str) -> None:
    found = hold_bound(json.dumps(document).encode(), wire_format, RequestFacts(model=model))
    assert found.tokens_output is None or found.tokens_output >= 0
    assert found.tokens_input is None or all(tokens >= 0 for tokens in found.tokens_input.values())
    assert len(found.open_ended) <= 16


@given(st.binary(), FORMATS)
def test_any_bytes_are_survived(body: bytes, wire_format: str) -> None:
    hold_bound(body, wire_format, RequestFacts())


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b'"text"', b"\xff", b"[" * 100_000, b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"],
)  # fmt: skip
def test_what_is_no_request_has_no_bound(body: bytes) -> None:
    assert hold_bound(body, "openai_chat", RequestFacts(model="gpt-4o")) == NOTHING_KNOWN


def test_what_providers_take_though_it_is_no_good_json_is_bounded() -> None:
    body = b'{"messages": [{"role": "user", "content": "\\ud800 half a pair"}], "max_tokens": 7, "temperature": NaN}'
    found = hold_bound(body, "openai_chat", RequestFacts(model="gpt-4o"))
    assert found.tokens_output == 7
    assert found.tokens_input is not None


def test_a_tools_name_of_a_megabyte_is_cut() -> None:
    found = bound({"tools": [{"type": "x" * 1_000_000}] * 40}, "openai_responses")
    assert [len(name) for name in found.open_ended] == [64]


# --- what models can


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("gpt-4o", "gpt-4o"), ("gpt-4o-2024-08-06", "gpt-4o"), ("openai/gpt-4o", "gpt-4o"),
        ("claude-sonnet-4-5-20250929", "claude-sonnet-4-5"), ("claude-sonnet-4-5@20250929", "claude-sonnet-4-5"),
        ("anthropic/claude-sonnet-4.5", "claude-sonnet-4-5"), ("us.amazon.nova-pro-v1:0", "amazon.nova-pro"),
        ("us.anthropic.claude-sonnet-4-5-20250929-v1:0", "claude-sonnet-4-5"), ("anthropic.claude-3-haiku-20240307-v1:0", "claude-3-haiku"),
    ],
)  # fmt: skip
def test_a_model_is_known_by_the_names_that_others_sell_it_under(name: str, known_as: str) -> None:
    assert cap_of(name) == CAPS[known_as]


def test_a_newer_model_is_not_taken_for_an_older_one() -> None:
    assert cap_of("gpt-4o-new").output is None
    assert cap_of("claude-sonnet-4-55").output is None
    assert cap_of("").output is None


@pytest.mark.parametrize("name", CHAT_MODELS)
def test_the_demo_models_keep_to_what_is_said_of_them(name: str) -> None:
    most = CAPS[name].output
    assert most is not None
    lengths = [reply(CHAT_MODELS[name], [str(number)]).tokens_output for number in range(2_000)]
    assert max(lengths) <= most <= max(lengths) + 2


# --- bodies that are too much to be read


MANY = 60_000


def heavy(**fields: Any) -> Json:
    """A body of very many values."""
    return {"messages": [{"role": "user", "content": [[]] * MANY}], **fields}


def test_a_body_of_too_many_values_may_fill_the_models_context() -> None:
    found = bound(heavy(max_tokens=9, n=2))
    assert found.tokens_input == {"": cap_of("gpt-4o").input}
    assert found.tokens_output == 9 * 2, "what limits the answer is read all the same"


def test_it_has_no_bound_where_the_models_context_is_not_known() -> None:
    assert bound(heavy(max_tokens=9), model="nobody-knows-it").tokens_input is None


@pytest.mark.parametrize("name", ["tools", "prompt", "generationConfig", "documents"])
def test_it_has_no_bound_where_what_decides_is_itself_too_much(name: str) -> None:
    assert bound({"max_tokens": 9, name: [[]] * MANY}) == NOTHING_KNOWN


def test_what_it_may_read_beyond_its_body_is_not_forgotten() -> None:
    assert bound(heavy(max_tokens=9, previous_response_id="resp_1")).tokens_input is None


def test_the_objects_of_a_heavy_body_are_never_made() -> None:
    body = json.dumps(heavy(max_tokens=9)).encode()
    tracemalloc.start()
    try:
        hold_bound(body, "openai_chat", RequestFacts(model="gpt-4o", readable=True))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(body), "60,000 lists would take ten times as much"


def test_a_long_text_is_not_heavy() -> None:
    asked = {"messages": [{"role": "user", "content": "How many roads, and why? " * 40_000}], "max_tokens": 9}
    assert bound(asked).tokens_input == {"": text_of(asked)}
