"""Tools that ran within a response, which are billed beside its tokens: searches and code by the call, images by the tokens
of a model of their own.

`tool_usage` says it where it is there (searches that are billed, without the pages that were opened). What it does not
count, and everything where it is missing, is counted from the output items.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from metering.extract.base import UNREADABLE
from metering.extract.counts import Counted, Counters, put, text_or_none
from metering.extract.parts import counted_parts
from metering.extract.shape_openai import read_openai
from pricing.usage import UsagePart

SEARCHES_COUNTED = "searches_counted"  # from the output items, since no counter says it
IMAGE_MODEL_NOT_TOLD = "image_model_not_told"
UNTOLD_IMAGE_MODEL = "image_generation"  # under this name a rate may be given

_UNITS = {
    "web_search_call": "web_search",
    "file_search_call": "file_search",
    "code_interpreter_call": "code_exec",
}
_MARKS = (b'_search_call"', b'code_interpreter_call"', b'"svg_usage"')
# Fields of a usage object in which other providers count the tools themselves.
_TOLD_IN_USAGE = frozenset({
    "server_side_tool_usage_details", "server_side_tool_usage", "num_server_side_tools_used", "tool_calls_details",
    "server_tool_use_details", "server_tool_use",
})  # fmt: skip


class _Item(msgspec.Struct):
    type: Any = None
    status: Any = None
    action: Any = None
    model: Any = None
    svg_usage: Any = None


class Output(msgspec.Struct):
    """An output item as far as it takes to tell whether it is a tool's."""

    type: str | None = None
    svg_usage: Any = None


class _Work(msgspec.Struct):
    """A response object as far as its tools go."""

    tools: list[Any] | None = None
    output: list[_Item] | None = None


class _Document(_Work):
    response: _Work | None = None  # an event has it one level down


_decode = msgspec.json.Decoder(_Document).decode


def have_tools_run(tool_usage: Any, text: bytes) -> bool:
    """Whether a response says, or its JSON may hold, that a tool ran. Quick, and never wrongly False."""
    for mark in _MARKS:
        if mark in text:
            return True
    return _says_tools(tool_usage)


def have_run_in(tool_usage: Any, output: list[Output]) -> bool:
    """`have_tools_run` where the items have been decoded already."""
    for item in output:
        if item.type in _UNITS or item.svg_usage is not None:
            return True
    return tool_usage is not None and _says_tools(tool_usage)


def _says_tools(tool_usage: Any) -> bool:
    if tool_usage is None:
        return False
    try:
        return bool(
            tool_usage["web_search"]["num_requests"] != 0 or tool_usage["image_gen"]["total_tokens"] != 0
        )
    except (TypeError, LookupError):
        return True


def with_tools(
    counted: Counted, usage: Mapping[str, Any], tool_usage: Any, text: bytes
) -> tuple[Counted, Mapping[str, Any]]:
    """`counted` with what the tools used, and the raw usage with the evidence for it."""
    counters = Counters()
    counters.take(counted)
    told = counters.group({"tool_usage": tool_usage}, "tool_usage")
    image_gen = counters.group(told, "image_gen")
    images = read_openai(image_gen, written_as="image") if image_gen else Counted({})
    has_images = any(images.buckets.values())
    work = _work_in(text)
    calls = {} if _TOLD_IN_USAGE.intersection(usage) else _calls(work.output or [])

    searches = counters.read(counters.group(told, "web_search"), "num_requests")
    if searches is None:
        searches = calls.get("web_search_call")
        if searches:
            counters.repair(SEARCHES_COUNTED)
    buckets = dict(counted.buckets)
    put(buckets, "web_search", searches)
    for kind in ("file_search_call", "code_interpreter_call"):
        put(buckets, _UNITS[kind], calls.get(kind))

    parts = list(_svg_parts(counters, work.output or []))
    if has_images:
        parts.insert(0, _image_part(counters, images, work.tools))
    raw = dict(usage)
    if parts or searches:
        raw["tool_usage"] = tool_usage
    if calls:
        raw["output_calls"] = calls
    if not parts:
        return counters.counted(buckets, counted.unknown_sides), raw
    joined = counted_parts(counters, [UsagePart(buckets), *parts])
    joined.unknown_sides = counted.unknown_sides
    return joined, raw


def _work_in(text: bytes) -> _Work:
    try:
        document = _decode(text)
    except UNREADABLE:
        return _Work()  # items that are no objects: there is nothing to count
    return document.response or document


def _calls(output: list[_Item]) -> dict[str, int]:
    """How often each tool was called. A web search that opens a page or looks into one is none, and a failed call is free."""
    calls: dict[str, int] = {}
    for item in output:
        kind = item.type
        if not isinstance(kind, str) or kind not in _UNITS or item.status == "failed":
            continue
        action = item.action.get("type") if isinstance(item.action, dict) else None
        if action in (None, "search"):
            calls[kind] = calls.get(kind, 0) + 1
    return calls


def _image_part(counters: Counters, images: Counted, tools: list[Any] | None) -> UsagePart:
    """The image tool's own model stands among the tools that the response repeats."""
    counters.take(images)
    for tool in tools or ():
        if isinstance(tool, dict) and tool.get("type") == "image_generation":
            model = text_or_none(tool.get("model"))
            if model:
                return UsagePart(images.buckets, model, kind="image_gen")
    counters.repair(IMAGE_MODEL_NOT_TOLD)
    return UsagePart(images.buckets, UNTOLD_IMAGE_MODEL, kind="image_gen")


def _svg_parts(counters: Counters, output: list[_Item]) -> Iterator[UsagePart]:
    """Vector images are written by a text model, which each call names."""
    for item in output:
        if item.svg_usage is not None:
            part = svg_part(counters, item.svg_usage)
            if part is not None:
                yield part


def svg_part(counters: Counters, svg_usage: Any) -> UsagePart | None:
    """The part of one `svg_usage` object; None where it says nothing."""
    usage = counters.group({"svg_usage": svg_usage}, "svg_usage")
    if not usage:
        return None
    read = read_openai(usage)
    counters.take(read)
    return UsagePart(read.buckets, text_or_none(usage.get("model")) or UNTOLD_IMAGE_MODEL, kind="svg")
