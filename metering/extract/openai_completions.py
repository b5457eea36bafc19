"""OpenAI Completions, the legacy one: usage and streams as in chat."""

from metering.extract.openai_chat import OpenAIChat


class OpenAICompletions(OpenAIChat):
    name = "openai_completions"
    version = 1
    extractor = "openai_completions/1"
