"""Usage out of the end of a body that is too long to be kept: the last `"usage"` object in it."""

import json
import re

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, WireFormat
from metering.extract.marks import with_rule
from pricing.usage import Usage

LAST_USAGE_OBJECT = "last_usage_object"  # the body was too long to be kept, so nothing else of it is known

_KEY = re.compile(r'"(?:usage|usageMetadata|usage_info)"\s*:\s*(?=\{)')
_scan = json.JSONDecoder().raw_decode  # reads one value and does not mind what follows


def usage_of_tail(fmt: WireFormat, facts: RequestFacts, provider: str, tail: bytes) -> Usage:
    """What the last `"usage": {…}` in `tail` says that `fmt` can read; the model is the requested one. Never raises.

    Text that quotes such an object cannot be mistaken for it: inside a JSON string its quotes are escaped.
    """
    text = tail.decode("utf-8", "replace")
    for found in reversed(list(_KEY.finditer(text))):
        try:
            _, end = _scan(text, found.end())
        except UNREADABLE:
            continue
        usage = fmt.read_body(f"{{{text[found.start() : end]}}}".encode(), facts, provider)
        if usage.source != "none":
            return with_rule(usage, LAST_USAGE_OBJECT)
    return Reading(fmt.extractor, facts, provider).nothing()
