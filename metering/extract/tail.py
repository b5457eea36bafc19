"""Usage out of the end of a body that is too long to be kept: the last `"usage"` object in it."""

import json
import re
from collections.abc import Mapping

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading, WireFormat
from metering.extract.shapes import read_usage
from pricing.usage import Usage

_KEY = re.compile(r'"usage"\s*:\s*(?=\{)')
_scan = json.JSONDecoder().raw_decode  # reads one value and does not mind what follows


def usage_of_tail(fmt: WireFormat, facts: RequestFacts, provider: str, tail: bytes) -> Usage:
    """What the last readable `"usage": {…}` in `tail` says; the model is the requested one. Never raises.

    Text that quotes such an object cannot be mistaken for it: inside a JSON string its quotes are escaped.
    """
    reading = Reading(fmt.extractor, facts, provider)
    text = tail.decode("utf-8", "replace")
    for found in reversed(list(_KEY.finditer(text))):
        try:
            usage, _ = _scan(text, found.end())
        except UNREADABLE:
            continue
        if isinstance(usage, Mapping):
            counted = read_usage(usage)
            if counted.known and counted.consistency == "ok":
                counted.consistency = "repaired:last_usage_object"
            return reading.reported(counted, usage, None)
    return reading.nothing()
