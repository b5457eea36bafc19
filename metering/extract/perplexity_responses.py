"""Perplexity's Responses: OpenAI's shape and events, with cache, tools and cost under names of its own in the usage."""

from metering.extract.openai_responses import OpenAIResponses


class PerplexityResponses(OpenAIResponses):
    """Cached tokens are inside the input, as in `input_tokens_details` everywhere."""

    name = "perplexity_responses"
    version = 1
    extractor = "perplexity_responses/1"
