"""OpenAI embeddings: input tokens only, never streamed.

An answer is kilobytes to megabytes of vectors, and what counts stands before and behind them. So the vectors are cut out
unread; an answer that does not yield a plain usage and its model then is read whole.
"""

from typing import Any, Literal

from metering.estimate import RequestFacts
from metering.extract.base import UNREADABLE, Reading
from metering.extract.counts import COUNT_MAX
from metering.extract.openai_chat import Body, ChatStream, decode_fields, usage_of_body
from pricing.usage import Usage


class OpenAIEmbeddings:
    name = "openai_embeddings"
    version = 1
    extractor = "openai_embeddings/1"
    native_errors: Literal["openai", "anthropic"] | None = "openai"
    has_output = False

    def read_body(self, body: bytes, facts: RequestFacts, provider: str) -> Usage:
        reading = Reading(self.extractor, facts, provider)
        fields = _around_the_vectors(body)
        if fields is None:
            return usage_of_body(reading, body)
        return Usage(
            buckets={"in_uncached": fields.usage["prompt_tokens"], "out_visible": 0},
            provider=reading.provider_of(fields.model), model_requested=facts.model, model_served=fields.model,
            raw=fields.usage, extractor=self.extractor,
        )  # fmt: skip

    def open_stream(self, facts: RequestFacts, provider: str) -> ChatStream:
        return ChatStream(Reading(self.extractor, facts, provider))


def _around_the_vectors(body: bytes) -> Body | None:
    """The fields of an answer without what lies between its first `[` and its last `]`; None where it has to be read whole.

    Should one of the brackets stand in a string, the rest is no JSON, or JSON whose strings hold what stood between the
    strings of the answer: digits and punctuation, and so no field called `usage`. Should both stand within the usage, it
    is not plain.
    """
    first, last = body.find(b"["), body.rfind(b"]")
    if first < 0 or last < first or body.find(b'"service_tier"', first, last) >= 0:
        return None
    try:
        fields = decode_fields(body[:first] + b"null" + body[last + 1 :])
    except UNREADABLE:
        return None
    named = fields.service_tier is None and type(fields.model) is str and fields.model
    return fields if named and _is_plain(fields.usage) else None


def _is_plain(usage: Any) -> bool:
    """Whether a usage says what those of embeddings say, the input and a total that equals it, and nothing else."""
    if type(usage) is not dict or len(usage) != 2:
        return False
    tokens, total = usage.get("prompt_tokens"), usage.get("total_tokens")
    return type(tokens) is type(total) is int and tokens == total and 0 <= tokens <= COUNT_MAX
