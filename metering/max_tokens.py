"""Lowers the limit that a request sets on what is written, and changes nothing else of it. Pure."""

from typing import Any

import msgspec

from metering.hold_bound.bound import CONFIG_LIMITS, CONFIGS, LIMITS

# Where the limit goes that a request does not state: in the name of its wire format.
_NAMES = {"openai_responses": "max_output_tokens", "perplexity_responses": "max_output_tokens"}
_CONFIG_NAMES = {
    "gemini_generate": ("generationConfig", "maxOutputTokens"),
    "bedrock_converse": ("inferenceConfig", "maxTokens"),
    "google_interactions": ("generation_config", "max_output_tokens"),
    "mistral_conversations": ("completion_args", "max_tokens"),
    "ollama": ("options", "num_predict"),
}
# Each maker's models have a name of their own for it, and some have it in an object: only one that is stated is lowered.
_ONLY_STATED = frozenset({"bedrock_invoke"})
_LEAST = {"openai_responses": 16}  # less is refused by the provider

_Document = dict[str, msgspec.Raw]
_decode = msgspec.json.Decoder(_Document).decode
_encode = msgspec.json.encode


def least_of(body: bytes, wire_format: str) -> int:
    """The smallest limit that a provider takes: above what the model is asked to think, which Anthropic insists on."""
    try:
        budget = _thinking_budget(_decode(body))
    except (msgspec.MsgspecError, ValueError, RecursionError, UnicodeError):
        budget = 0
    return max(_LEAST.get(wire_format, 1), budget + 1)


def lowered(body: bytes, wire_format: str, provider: str, most: int) -> bytes | None:
    """The request with a limit of `most` tokens, every other value as it was. None where that cannot be said: no JSON
    object, a format without such a limit, a part of the answer that has to be longer."""
    try:
        document = _decode(body)
        if most <= _thinking_budget(document):
            return None
        if wire_format in _CONFIG_NAMES:
            _lower_in_config(document, *_CONFIG_NAMES[wire_format], most)
        elif wire_format in _ONLY_STATED and not _states_one(document, LIMITS[wire_format]):
            return None
        elif wire_format in LIMITS:
            name = _NAMES.get(wire_format) or _chat_name(wire_format, provider)
            _lower(document, LIMITS[wire_format], name, most)
        else:
            return None
        return _encode(document)
    except (msgspec.MsgspecError, ValueError, RecursionError, UnicodeError):
        return None


def _chat_name(wire_format: str, provider: str) -> str:
    """OpenAI's newer models refuse the older name, and those who speak its format know that one alone."""
    return "max_completion_tokens" if wire_format == "openai_chat" and provider == "openai" else "max_tokens"


def _lower(document: _Document, names: frozenset[str], name: str, most: int) -> None:
    """Lower all limits that are higher; where none is stated, state one."""
    stated = {
        one: number for one in names & document.keys() if (number := _number(document[one])) is not None
    }
    for one in stated or {name: most + 1}:
        if stated.get(one, most + 1) > most:
            document[one] = msgspec.Raw(b"%d" % most)


def _lower_in_config(document: _Document, config: str, name: str, most: int) -> None:
    used = next((one for one in document if one in CONFIGS and document[one] != b"null"), config)
    inner = _decode(document[used]) if used in document else {}
    if used != config and "_" in used:  # both spellings are taken, and one of them is used here
        name = "max_output_tokens"
    _lower(inner, CONFIG_LIMITS, name, most)
    document[used] = msgspec.Raw(_encode(inner))


def _number(raw: msgspec.Raw) -> int | None:
    value: Any = msgspec.json.decode(raw)
    return value if type(value) is int else None


def _states_one(document: _Document, names: frozenset[str]) -> bool:
    return any(_number(document[one]) is not None for one in names & document.keys())


def _thinking_budget(document: _Document) -> int:
    """So many tokens the model is asked to think before it writes: at the top, or in Bedrock's fields for its models."""
    if "additionalModelRequestFields" in document:
        inner = _decode(document["additionalModelRequestFields"])
        return _thinking_budget(inner)
    if "thinking" not in document:
        return 0
    thinking: Any = msgspec.json.decode(document["thinking"])
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return budget if isinstance(budget, int) else 0
