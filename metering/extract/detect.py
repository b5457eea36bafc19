"""Which wire format a document is in: told by what its sender calls it, then by its fields, then by who sent it."""

from collections.abc import Callable, Mapping
from typing import Any

from metering.extract import UnknownWireFormat, wire_format

Document = Mapping[str, Any]

# What a document calls itself, in `object`, `type` or `event_type`: exactly, or how that begins.
_NAMES = {
    "chat.completion": "openai_chat",
    "chat.completion.chunk": "openai_chat",
    "text_completion": "openai_completions",
    "response": "openai_responses",
    "response.compaction": "openai_responses",
    "response.done": "openai_realtime",
    "batch": "openai_batch",
    "interaction": "google_interactions",
    "conversation.response": "mistral_conversations",
    "session.started": "openai_live",
    "session.usage.updated": "openai_live",
    "session.closed": "openai_live",
    "response.event": "openai_live",
    "decision.event": "openai_live",
    "rate_limits.updated": "openai_realtime",
    "text-generation": "cohere_v1",
    "messageStart": "bedrock_converse",
    "contentBlockDelta": "bedrock_converse",
    "chunk": "bedrock_invoke",
}
_BEGINNINGS = (
    ("message_", "anthropic_messages"),
    ("content_block_", "anthropic_messages"),
    ("image_generation.", "openai_images"),
    ("image_edit.", "openai_images"),
    ("transcript.text.", "openai_transcription"),
    ("input_audio_buffer.", "openai_realtime"),
    ("conversation.item.", "openai_realtime"),
    ("conversation.response.", "mistral_conversations"),
    ("message.output.", "mistral_conversations"),
    ("session.", "openai_realtime"),
    ("message-", "cohere_chat"),
    ("content-", "cohere_chat"),
    ("tool-plan-", "cohere_chat"),
    ("tool-call-", "cohere_chat"),
    ("stream-", "cohere_v1"),
    ("interaction.", "google_interactions"),
    ("step.", "google_interactions"),
    ("execution.", "execute"),
)
_GEMINI = frozenset({"usageMetadata", "candidates", "promptFeedback", "modelVersion"})
_GEMINI_LIVE = frozenset({"serverContent", "setupComplete", "toolCall", "goAway", "sessionResumptionUpdate"})
_CONVERSE = frozenset(
    {"messageStart", "contentBlockStart", "contentBlockDelta", "contentBlockIndex", "messageStop", "stopReason"}
)  # fmt: skip
_INVOKE = frozenset(
    {"amazon-bedrock-invocationMetrics", "generation_token_count", "prompt_token_count", "inputTextTokenCount"}
)  # fmt: skip
_OLLAMA = frozenset({"prompt_eval_count", "eval_count", "total_duration"})
_ANTHROPIC_USAGE = frozenset(
    {"cache_creation_input_tokens", "cache_read_input_tokens", "cache_creation", "server_tool_use", "iterations"}
)  # fmt: skip
_NAMELESS = (b"", b"message")  # a server-sent event is a message where it is not called otherwise
_SPAN_PREFIXES = ("gen_ai.", "llm.usage.", "llm.token_count.")

# What those speak who do not speak OpenAI's chat.
_OF_PROVIDER = {
    "anthropic": "anthropic_messages",
    "google": "gemini_generate",
    "bedrock": "bedrock_converse",
    "cohere": "cohere_chat",
    "ollama": "ollama",
    "cloudflare": "cloudflare_run",
    "demo": "execute",
}
# Formats that are another one's at some providers.
_AT_PROVIDER = {
    ("perplexity", "openai_responses"): "perplexity_responses",
    ("bedrock", "anthropic_messages"): "bedrock_invoke",
    ("bedrock", "openai_chat"): "bedrock_invoke",
}


def detect(document: Document, provider: str = "") -> str | None:
    """The wire format of a document (a body, or the data of one event); None where neither it nor its provider tells."""
    name = detect_by_content(document, provider)
    if name is None and provider:
        name = _OF_PROVIDER.get(provider, "openai_chat")
    return name


def detect_by_content(document: Document, provider: str = "", event: bytes = b"") -> str | None:
    """The same by the document alone; the provider chooses where several formats look alike.

    `event` is the name that a stream gave the event, which few documents repeat.
    """
    if event not in _NAMELESS and "type" not in document and "event_type" not in document:
        document = {**document, "type": event.decode("latin-1")}
    name = _by_name(document) or next((found for look in _LOOKS if (found := look(document))), None)
    if name is None:
        usage = document.get("usage")
        name = _by_usage(document, usage, provider) if isinstance(usage, dict) else None
    name = _AT_PROVIDER.get((provider, name), name) if name is not None else None
    return name if name is not None and _is_known(name) else None


def _is_known(name: str) -> bool:
    try:
        wire_format(name)
    except UnknownWireFormat:
        return False
    return True


def _by_name(document: Document) -> str | None:
    for field in ("object", "type", "event_type"):
        said = document.get(field)
        if not isinstance(said, str):
            continue
        if said in _NAMES:
            return _NAMES[said]
        if said == "message" and ("usage" in document or "content" in document):
            return "anthropic_messages"
        if said.startswith("response."):
            return "openai_realtime" if "event_id" in document else "openai_responses"
        if said == "list" and "data" in document:
            return "openai_embeddings"
        for beginning, name in _BEGINNINGS:
            if said.startswith(beginning):
                return name
    return None


def _google(document: Document) -> str | None:
    usage = _object(document, "usageMetadata")
    if _GEMINI_LIVE.intersection(document) or "responseTokenCount" in usage:
        return "gemini_live"
    if "predictions" in document or "billableCharacterCount" in _object(document, "metadata"):
        return "gemini_embeddings"
    if _GEMINI.intersection(document):
        return "gemini_embeddings" if document.keys() & {"embedding", "embeddings"} else "gemini_generate"
    return "gemini_generate" if "usageMetadata" in _object(document, "response") else None


def _bedrock(document: Document) -> str | None:
    if _INVOKE.intersection(document) or isinstance(document.get("bytes"), str):
        return "bedrock_invoke"
    metadata = _object(document, "metadata")
    for usage in (_object(document, "usage"), _object(metadata, "usage")):
        if "inputTokens" in usage or "outputTokens" in usage:
            return "bedrock_converse"
    return "bedrock_converse" if _CONVERSE.intersection(document) else None


def _span(document: Document) -> str | None:
    attributes = document.get("attributes")
    names: Any = attributes if isinstance(attributes, dict) else document
    if isinstance(attributes, list):
        names = [item.get("key") for item in attributes if isinstance(item, dict)]
    found = any(isinstance(name, str) and name.startswith(_SPAN_PREFIXES) for name in names)
    return "otel_span" if found else None


def _cohere(document: Document) -> str | None:
    if "billed_units" in _object(document, "usage"):
        return "cohere_chat"
    return "cohere_v1" if "billed_units" in _object(document, "meta") else None


def _wrapped(document: Document) -> str | None:
    """An answer inside something else: a line of a batch's results, or a platform's envelope."""
    result = _object(document, "result")
    if "message" in result and "custom_id" in document:
        return "anthropic_messages"
    if "success" in document and ("usage" in result or "response" in result):
        return "cloudflare_run"
    return "openai_batch" if "custom_id" in document and "response" in document else None


def _others(document: Document) -> str | None:
    if _OLLAMA.intersection(document) or ("done" in document and document.keys() & {"message", "response"}):
        return "ollama"
    if "usage_info" in document:
        return "mistral_ocr"
    if "svg_usage" in document or ("created" in document and "data" in document):
        return "openai_images"
    if "duration" in document and "text" in document:
        return "openai_transcription"
    if "choices" in document:
        return "openai_chat"
    if "p" in document and isinstance(document.get("response"), str):
        return "cloudflare_run"
    return "execute" if "execution_id" in document else None


_LOOKS: tuple[Callable[[Document], str | None], ...] = (_google, _bedrock, _span, _cohere, _wrapped, _others)


def _by_usage(document: Document, usage: Document, provider: str) -> str | None:
    """Told by the counters alone."""
    if "total_input_tokens" in usage:
        return "google_interactions"
    if "connector_tokens" in usage or "connectors" in usage:
        return "mistral_conversations"
    if usage.get("type") in ("tokens", "duration") or "input_token_details" in usage:
        return "openai_transcription"
    if "tokens_input" in usage or "tokens_output" in usage:
        return "execute"
    if "prompt_tokens" in usage:
        return "openai_embeddings" if "data" in document else "openai_chat"
    if "input_tokens" not in usage and "output_tokens" not in usage:
        return None
    if _ANTHROPIC_USAGE.intersection(usage) or provider == "anthropic":
        return "anthropic_messages"
    if "data" in document or "b64_json" in document:
        return "openai_images"
    return "openai_responses"


def _object(document: Document, name: str) -> Document:
    value = document.get(name)
    return value if isinstance(value, dict) else {}
