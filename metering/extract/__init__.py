"""Reading usage out of answers: one wire format per module, all brought into the same disjoint buckets.

Owns: what providers send and how it is understood. Does not own: bytes on their way (`metering.tap`), prices (`pricing`).
Nothing here raises for what somebody else sent: what cannot be read is unknown, and says so.
"""

from metering.extract.anthropic_messages import AnthropicMessages
from metering.extract.base import StreamReader, WireFormat
from metering.extract.bedrock_converse import BedrockConverse
from metering.extract.bedrock_invoke import BedrockInvoke
from metering.extract.cohere_chat import CohereChat
from metering.extract.cohere_v1 import CohereV1
from metering.extract.execute import Execute, read_header, usage_from_mapping
from metering.extract.gemini_embeddings import GeminiEmbeddings
from metering.extract.gemini_generate import GeminiGenerate
from metering.extract.gemini_live import GeminiLive
from metering.extract.google_interactions import GoogleInteractions
from metering.extract.ollama import Ollama
from metering.extract.openai_chat import OpenAIChat
from metering.extract.openai_completions import OpenAICompletions
from metering.extract.openai_embeddings import OpenAIEmbeddings
from metering.extract.openai_responses import OpenAIResponses
from metering.extract.otel_span import OtelSpan, otel_span
from metering.extract.perplexity_responses import PerplexityResponses

__all__ = [
    "StreamReader",
    "UnknownWireFormat",
    "WireFormat",
    "otel_span",
    "read_header",
    "usage_from_mapping",
    "wire_format",
]


class UnknownWireFormat(LookupError):
    """No wire format has this name; the message lists those that exist."""


_FORMATS: dict[str, WireFormat] = {
    fmt.name: fmt
    for fmt in (
        AnthropicMessages(),
        BedrockConverse(),
        BedrockInvoke(),
        CohereChat(),
        CohereV1(),
        Execute(),
        GeminiEmbeddings(),
        GeminiGenerate(),
        GeminiLive(),
        GoogleInteractions(),
        Ollama(),
        OpenAIChat(),
        OpenAICompletions(),
        OpenAIEmbeddings(),
        OpenAIResponses(),
        OtelSpan(),
        PerplexityResponses(),
    )
}


def wire_format(name: str) -> WireFormat:
    """The format of that name. Raises `UnknownWireFormat`."""
    try:
        return _FORMATS[name]
    except KeyError:
        raise UnknownWireFormat(
            f"unknown wire format {name!r}; known are {', '.join(sorted(_FORMATS))}"
        ) from None
