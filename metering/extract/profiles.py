"""Provider profiles: how a provider, or a gateway in front of it, relates details to headline counters.

They are asked only where the numbers of an answer do not decide it themselves (`metering.extract.relation`): where there
is no total, where the total cannot say it, or where the numbers contradict each other.

A profile is found by provider, then by the family of the model, since the same gateway counts each provider's tokens as
that provider does. Providers that do as OpenAI does (everything inside, total = input + output) need no entry: Mistral,
DeepSeek, Groq, Together, Fireworks, Cerebras, Moonshot, Databricks, Modal, vLLM, LiteLLM and OpenRouter among them.
"""

from functools import lru_cache

import msgspec


class Profile(msgspec.Struct, frozen=True):
    """What holds for a provider where arithmetic does not decide. The default is OpenAI's way."""

    cache_beside: bool = False  # the input does not count cached and cache-written tokens
    reasoning_beside: bool = False  # the output does not count reasoning and citation tokens
    total_is_headline: bool = (
        False  # the total is input + output whatever stands beside them, so it proves nothing
    )
    rest_is_reasoning: bool = False  # what only the total counts was thought, and nobody said so


INSIDE = Profile()
_THOUGHTS_BESIDE = Profile(reasoning_beside=True, rest_is_reasoning=True)
_CACHE_BESIDE = Profile(cache_beside=True)
_PERPLEXITY = Profile(reasoning_beside=True, total_is_headline=True)

# (provider, family of the model); "" stands for any. The first of (both), (provider, ""), ("", family) holds.
_CHAT: dict[tuple[str, str], Profile] = {
    ("portkey", "claude"): _CACHE_BESIDE,
    ("portkey", "gemini"): _THOUGHTS_BESIDE,
    ("litellm", ""): INSIDE,
    ("openrouter", ""): INSIDE,
    ("perplexity", ""): _PERPLEXITY,
    ("xai", ""): _THOUGHTS_BESIDE,
    ("x-ai", ""): _THOUGHTS_BESIDE,
    ("google", ""): _THOUGHTS_BESIDE,  # its OpenAI-compatible endpoint
    ("", "claude"): _CACHE_BESIDE,  # behind a gateway that we do not know
    ("", "gemini"): _THOUGHTS_BESIDE,
    ("", "grok"): _THOUGHTS_BESIDE,
    ("", "sonar"): _PERPLEXITY,
}
# In the Responses API everything is inside, at xAI and Perplexity too; a gateway may still pass raw cache counters on.
_RESPONSES: dict[tuple[str, str], Profile] = {
    key: profile for key, profile in _CHAT.items() if profile is _CACHE_BESIDE
}
_FAMILIES = ("claude", "gemini", "grok", "sonar")


@lru_cache(1024)
def profile_of(provider: str, model: str, responses: bool) -> Profile:
    """The profile of a model at a provider (slugs, "" where unknown), for chat or for the Responses API."""
    table = _RESPONSES if responses else _CHAT
    family = _family(model)
    for key in ((provider, family), (provider, ""), ("", family)):
        if key in table:
            return table[key]
    return INSIDE


def _family(model: str) -> str:
    """`@anthropic/claude-sonnet-4-5` is a claude; `us.anthropic.claude-…` is Bedrock's, which gateways count inside."""
    name = model.lower().rpartition("/")[2]
    return next((family for family in _FAMILIES if name.startswith(family)), "")
