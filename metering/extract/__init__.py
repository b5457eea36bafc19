"""Reading usage out of answers: one wire format per module, all brought into the same disjoint buckets.

Owns: what providers send and how it is understood. Does not own: bytes on their way (`metering.tap`), prices (`pricing`).
Nothing here raises for what somebody else sent: what cannot be read is unknown, and says so.
"""

from metering.extract.anthropic_messages import AnthropicMessages
from metering.extract.base import StreamReader, WireFormat, provider_of
from metering.extract.bedrock_converse import BedrockConverse
from metering.extract.bedrock_invoke import BedrockInvoke
from metering.extract.cloudflare_run import CloudflareRun
from metering.extract.cohere_chat import CohereChat
from metering.extract.cohere_v1 import CohereV1
from metering.extract.execute import Execute, read_header, usage_from_mapping
from metering.extract.gemini_embeddings import GeminiEmbeddings
from metering.extract.gemini_generate import GeminiGenerate
from metering.extract.gemini_live import GeminiLive
from metering.extract.google_interactions import GoogleInteractions
from metering.extract.mistral_conversations import MistralConversations
from metering.extract.mistral_ocr import MistralOCR
from metering.extract.ollama import Ollama
from metering.extract.openai_batch import OpenAIBatch, usage_of_line
from metering.extract.openai_chat import OpenAIChat
from metering.extract.openai_completions import OpenAICompletions
from metering.extract.openai_embeddings import OpenAIEmbeddings
from metering.extract.openai_images import OpenAIImages
from metering.extract.openai_live import OpenAILive
from metering.extract.openai_realtime import OpenAIRealtime
from metering.extract.openai_responses import OpenAIResponses
from metering.extract.openai_transcription import OpenAITranscription
from metering.extract.otel_span import OtelSpan, otel_span
from metering.extract.perplexity_responses import PerplexityResponses

__all__ = [
    "StreamReader",
    "UnknownWireFormat",
    "WireFormat",
    "otel_span",
    "provider_of",
    "read_header",
    "usage_from_mapping",
    "usage_of_line",
    "wire_format",
    "wire_format_names",
]


class UnknownWireFormat(LookupError):
    """No wire format has this name; the message lists those that exist."""


_FORMATS: dict[str, WireFormat] = {
    fmt.name: fmt
    for fmt in (
        AnthropicMessages(),
        BedrockConverse(),
        BedrockInvoke(),
        CloudflareRun(),
        CohereChat(),
        CohereV1(),
        Execute(),
        GeminiEmbeddings(),
        GeminiGenerate(),
        GeminiLive(),
        GoogleInteractions(),
        MistralConversations(),
        MistralOCR(),
        Ollama(),
        OpenAIBatch(),
        OpenAIChat(),
        OpenAICompletions(),
        OpenAIEmbeddings(),
        OpenAIImages(),
        OpenAILive(),
        OpenAIRealtime(),
        OpenAIResponses(),
        OpenAITranscription(),
        OtelSpan(),
        PerplexityResponses(),
    )
}


def wire_format(name: str) -> WireFormat:
    """The format of that name. Raises `UnknownWireFormat`."""
    try:
        return _FORMATS[name]
    except KeyError:
        known = ", ".join(wire_format_names())
        raise UnknownWireFormat(f"unknown wire format {name!r}; known are {known}") from None


def wire_format_names() -> tuple[str, ...]:
    """Of all formats there are, in alphabetical order."""
    return tuple(sorted(_FORMATS))
