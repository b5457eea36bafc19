"""Mistral OCR: pages. An annotated page has a price of its own and is none of the others."""

import re
from typing import Any, Literal

import msgspec

from metering.estimate import RequestFacts
from metering.extract.base import Reading, StreamReader, decode_body
from metering.extract.counts import Counters
from metering.extract.openai_chat import ChatStream, usage_of_counted
from pricing.usage import Usage

_ANNOTATED = re.compile(rb'"(?:image|document)_annotation"\s*:\s*(?!null)\S')


class _Body(msgspec.Struct):
    model: Any = None
    usage_info: Any = None


_decode = msgspec.json.Decoder(_Body).decode


class MistralOCR:
    name = "mistral_ocr"
    version = 1
    extractor = "mistral_ocr/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = False

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = decode_body(_decode, _Body, body)
        if fields is None:
            return reading.nothing()
        counters = Counters()
        usage = counters.group({"usage_info": fields.usage_info}, "usage_info")
        pages = counters.read(usage, "pages_processed")
        if pages is None:
            return reading.nothing(fields.model, raw=fields.usage_info, consistency=counters.consistency)
        unit = "page_annotated" if _ANNOTATED.search(body) else "page"
        return usage_of_counted(reading, counters.counted({unit: pages}), usage, usage, fields.model, None)

    def open_stream(self, facts: RequestFacts, provider: str) -> StreamReader:
        """It does not stream; what does is read like chat."""
        return ChatStream(Reading(self.extractor, facts, provider))
