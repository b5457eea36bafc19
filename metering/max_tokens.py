"""Lowers the limit that a request sets on what is written, and changes nothing else of it. Pure."""

from typing import Any

import msgspec

from metering.hold_bound.bound import CONFIG_LIMITS, CONFIGS, LIMITS

# Where the limit goes that a request does not state: in the name of its wire format.
_NAMES = {"openai_responses": "max_output_tokens"}
_CONFIG_NAMES = {
    "gemini_generate": ("generationConfig", "maxOutputTokens"),
    "bedrock_converse": ("inferenceConfig", "maxTokens"),
    "ollama": ("options", "num_predict"),
}
_LEAST = {"openai_responses": 16}  # less is refused by the provider

_Document = dict[str, msgspec.Raw]
_decode = msgspec.json.Decoder(_Document).decode
_encode = msgspec.json.encode


def least_of(wire_format: str) -> int:
    """The smallest limit that a provider takes."""
    return _LEAST.get(wire_format, 1)


def lowered(body: bytes, wire_format: str, provider: str, most: int) -> bytes | None:
    """The request with a limit of `most` tokens, every other value as it was. None where that cannot be said: no JSON
    object, a format without such a limit, a part of the answer that has to be longer."""
    try:
        document = _decode(body)
        if _thinks_longer(document, most):
            return None
        if wire_format in _CONFIG_NAMES:
            _lower_in_config(document, *_CONFIG_NAMES[wire_format], most)
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


def _thinks_longer(document: _Document, most: int) -> bool:
    """Whether the request has the model think for as long: Anthropic refuses a limit that is not above it."""
    if "thinking" not in document:
        return False
    thinking: Any = msgspec.json.decode(document["thinking"])
    budget = thinking.get("budget_tokens") if isinstance(thinking, dict) else None
    return isinstance(budget, int) and most <= budget
