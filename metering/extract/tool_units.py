"""What is billed by the piece and stands inside a usage object: searches, code runs, seconds of audio.

Each provider has its own names for its tools. A tool that has no unit here leaves a note, since it may cost something.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from metering.extract.counts import COUNT_MAX, REFUSED, Counters, put
from pricing.usage import Quantity

TOOL_NOT_KNOWN = "tool_not_known"

# Name without its `server_side_tool_` and `_calls`, `_requests` → unit; "" is paid by its tokens alone.
_UNITS = {
    "web_search": "web_search",
    "search_web": "web_search",
    "web_search_premium": "web_search",
    "x_search": "social_search",
    "file_search": "file_search",
    "document_search": "file_search",
    "collections_search": "file_search",
    "document_library": "file_search",
    "code_interpreter": "code_exec",
    "code_execution": "code_exec",
    "image_generation": "image",
    "mcp": "",
    "web_fetch": "",
    "view_image": "",
    "view_x_video": "",
    "tool_calls_executed": "",  # the sum of the others
    "tool_calls_requested": "",
}
_GROUPS = (
    ("server_tool_use_details", "server_tool_use"),  # OpenRouter
    ("server_side_tool_usage_details", "server_side_tool_usage"),  # xAI
    ("tool_calls_details",),  # Perplexity
    ("connectors",),  # Mistral
)
_DIGITS_MAX = 40  # far more than any clock has; what is longer is noise
_SECONDS = ("prompt_audio_seconds", "billable_audio_seconds", "seconds")


def put_units(buckets: dict[str, Any], counters: Counters, usage: Mapping[str, Any]) -> Quantity | None:
    """Enters the units that a usage object of an OpenAI-like provider holds. The seconds of audio, None where unknown."""
    put(buckets, "web_search", counters.read(usage, "num_search_queries"))
    for names in _GROUPS:
        group = counters.group(usage, *names)
        for tool in group:
            _put_tool(buckets, counters, group, tool)
    if not counters.group(usage, *_GROUPS[1]):  # where the tools are told one by one, sources are no unit
        put(buckets, "search_unit", counters.read(usage, "num_sources_used"))
    seconds = read_seconds(counters, usage, *_SECONDS)
    put(buckets, "audio_second", seconds)
    return seconds


def has_seconds(usage: Mapping[str, Any]) -> bool:
    """Whether audio is reported by the second."""
    return any(usage.get(key) for key in _SECONDS)


def _put_tool(buckets: dict[str, Any], counters: Counters, group: Mapping[str, Any], tool: str) -> None:
    word = tool.lower().removeprefix("server_side_tool_").removesuffix("_calls").removesuffix("_requests")
    nested = group[tool]
    count = counters.read(nested, "invocation") if isinstance(nested, dict) else counters.read(group, tool)
    if not count:
        return
    unit = _UNITS.get(word)
    if unit is None:
        counters.repair(TOOL_NOT_KNOWN)
    elif unit:
        put(buckets, unit, count)


def read_seconds(counters: Counters, source: Mapping[str, Any], *keys: str) -> Quantity | None:
    """The first of `keys` that holds a duration: whole, or the fraction that was sent, exactly. None when unknown."""
    for key in keys:
        value = source.get(key)
        if value is None:
            continue
        seconds = exact_quantity(value)
        if seconds is not None:
            return seconds
        counters.flaw(REFUSED)
    return None


def exact_quantity(value: Any) -> Quantity | None:
    """A number from 0 to 2^53, whole ones as int; None where it is none.

    A float stands for the shortest text that means it, which is what was sent unless that had more than 17 digits.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    if not number.is_finite() or not 0 <= number <= COUNT_MAX:
        return None
    if number == number.to_integral_value():
        return int(number)
    return number if len(str(number)) <= _DIGITS_MAX else None
