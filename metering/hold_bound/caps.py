"""How much a model reads and writes at the most, where that is known: what bounds a call that sets no bound of its own.

Facts of the providers' model pages as LiteLLM's public price map gathers them (1.110, November 2026), for the models whose
prices are shipped. A bound that is too high costs a caller near its limit a refusal, one that is too low costs us: so each
is the widest that any variant, region or beta of the model has. A model that is not listed has no known bound.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

import msgspec


class ModelCap(msgspec.Struct, frozen=True):
    """Tokens of one call. None: not known."""

    input: int | None  # everything that it reads
    output: int | None  # everything that it writes, reasoning included


_CAPS: dict[tuple[int | None, int], str] = {
    (None, 54): "demo-small",  # 48 words and a full stop after each eighth
    (None, 144): "demo-large",
    (2_048, 0): "gemini-embedding-001",
    (8_192, 0): "text-embedding-3-large text-embedding-3-small text-embedding-ada-002 gemini-embedding-2",
    (8_192, 4_096): "gpt-3.5-turbo-instruct",
    (8_192, 16_384): "gemini-3.1-flash-tts-preview gemini-3.8-flash-lite-tts gemini-3.8-flash-tts",
    (16_000, 2_000): "gpt-4o-mini-transcribe gpt-4o-transcribe",
    (16_385, 4_096): "gpt-3.5-turbo gpt-3.5-turbo-1106",
    (32_000, 4_096): "gpt-realtime",
    (32_768, 4_096): "gpt-4",
    (65_536, 4_096): "gemini-3.1-flash-lite-image",
    (65_536, 65_536): "gemini-3.1-flash-image-preview",
    (65_536, 32_768): "gemini-2.5-flash-image",
    (128_000, 4_096): "gpt-4-turbo gpt-4o-mini-realtime-preview gpt-realtime-mini command-r-plus",
    (128_000, 10_000): "amazon.nova-micro",
    (128_000, 16_384): "gpt-4o-audio-preview gpt-4o-mini-audio-preview gpt-4o-search-preview gpt-audio gpt-audio-mini",
    (128_000, 32_000): "gpt-realtime-2",
    (128_000, 65_536): "o1-mini",
    (131_072, 16_384): "gpt-4o gpt-4o-mini",
    (131_072, 131_072): "gpt-oss-20b gpt-oss-120b grok-3 grok-3-mini llama-3.3-70b-versatile llama-3.1-8b-instant",
    (131_072, 32_768): "gemini-3-pro-image-preview gemini-nano-banana-2.1",
    (131_072, 65_536): (
        "gemini-3.1-flash-live-preview gemini-3.8-live gemini-omni-1.1-flash gemini-omni-flash-preview "
        "gemini-robotics-er-2-preview gemini-robotics-er-2-streaming-preview"
    ),
    (200_000, 4_096): "claude-3-haiku claude-3-opus claude-3-sonnet",
    (200_000, 8_192): "claude-3-5-haiku claude-3-5-sonnet",
    (200_000, 32_000): "claude-opus-4-0 claude-opus-4-1",
    (200_000, 64_000): "claude-opus-4-5 claude-haiku-4-5",
    (200_000, 128_000): "claude-3-7-sonnet",
    (200_000, 100_000): "codex-mini o1 o1-pro o3 o3-deep-research o3-mini o3-pro o4-mini o4-mini-deep-research",
    (256_000, 8_000): "command-a-03-2025",
    (256_000, 256_000): "grok-4",
    (262_144, 262_144): "mistral-large-latest mistral-medium-latest mistral-small-latest magistral-medium-latest",
    (272_000, 128_000): "gpt-5-search-api gpt-5.2-pro gpt-5.6-cyber",
    (300_000, 10_000): "amazon.nova-pro amazon.nova-lite",
    (400_000, 128_000): "gpt-5-mini gpt-5-nano gpt-5.1-codex-mini gpt-5.3-codex gpt-chat-latest",
    (400_000, 272_000): "gpt-5-pro",
    (409_600, 128_000): "gpt-5 gpt-5.1 gpt-5.2 gpt-5.4-mini gpt-5.4-nano",
    (922_000, 128_000): "gpt-6-cyber gpt-6-rosalind gpt-6.1-terra",
    (1_000_000, 64_000): "claude-sonnet-4-0 claude-sonnet-4-5",  # the million with a beta header
    (1_000_000, 128_000): (
        "claude-fable-5 claude-fable-5-1 claude-haiku-5-5 claude-opus-4-6 claude-opus-4-7 claude-opus-4-8 "
        "claude-opus-5 claude-opus-5-5 claude-sonnet-4-6 claude-sonnet-5 claude-sonnet-5-5"
    ),
    (1_047_576, 32_768): "gpt-4.1 gpt-4.1-mini gpt-4.1-nano",
    (1_048_576, 65_536): (
        "gemini-2.5-flash gemini-2.5-flash-lite gemini-2.5-pro gemini-3-pro gemini-3-pro-preview gemini-3-flash-preview gemini-3.1-flash-lite "
        "gemini-3.1-pro-preview gemini-3.5-flash gemini-3.5-flash-lite gemini-3.6-flash gemini-3.7-flash gemini-3.8-flash"
    ),
    (1_050_000, 128_000): (
        "gpt-5.4 gpt-5.4-pro gpt-5.5 gpt-5.5-pro gpt-5.6 gpt-5.6-luna gpt-5.6-sol gpt-5.6-terra gpt-6-astra gpt-6-luna "
        "gpt-6-sol gpt-6.1-sol"
    ),
}  # fmt: skip
CAPS: Mapping[str, ModelCap] = {
    name: ModelCap(most_in, most_out)
    for (most_in, most_out), names in _CAPS.items()
    for name in names.split()
}
UNKNOWN = ModelCap(None, None)

# What other sellers put around a maker's name: `openai/gpt-4o`, `us.anthropic.claude-sonnet-4-5-20250929-v1:0`,
# `claude-sonnet-4-5@20250929`, `anthropic/claude-sonnet-4.5`; and the date of a snapshot.
_SELLER = re.compile(r"^.*/|^(?:(?:us|eu|apac|global)\.)?(?:anthropic\.)?")
_SNAPSHOT = re.compile(r"(?:[-@]20\d\d-?\d\d-?\d\d)?(?:-v\d+(?::\d+)?)?$")


@lru_cache(1024)
def cap_of(model: str) -> ModelCap:
    """The cap of the model of that name, `UNKNOWN` where there is none."""
    name = _SELLER.sub("", model)
    if name.startswith("claude-"):
        name = name.replace(".", "-")
    return CAPS.get(name) or CAPS.get(_SNAPSHOT.sub("", name)) or UNKNOWN
