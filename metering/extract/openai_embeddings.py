"""OpenAI embeddings: input tokens only, never streamed."""

from typing import Literal

from metering.estimate import RequestFacts
from metering.extract.base import Reading
from metering.extract.openai_chat import ChatStream, usage_of_body
from pricing.usage import Usage


class OpenAIEmbeddings:
    name = "openai_embeddings"
    version = 1
    extractor = "openai_embeddings/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = False

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        return usage_of_body(Reading(self.extractor, facts, provider), body)

    def open_stream(self, facts: RequestFacts, provider: str) -> ChatStream:
        return ChatStream(Reading(self.extractor, facts, provider))
