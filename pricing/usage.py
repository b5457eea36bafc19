"""Usage as a value: what one call used, in disjoint buckets, with what is known about that knowledge."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Literal, cast

import msgspec

Source = Literal["reported", "reported_partial", "estimated", "none"]
UnknownSide = Literal["input", "output"]
Quantity = int | Decimal  # whole, but for seconds: those are the fraction that was reported, exactly


class UsagePart(msgspec.Struct, frozen=True, gc=False):
    """What one model used within a call that several models served: an advisor, a fallback, a tool that draws images."""

    buckets: Mapping[str, Quantity]
    model: str = ""  # "": the call's
    provider: str = ""  # "": the call's
    kind: str = ""  # as the provider calls it: "message", "advisor_message", "compaction", "image_gen" …


class Usage(msgspec.Struct, frozen=True, gc=False):
    """What one call used. An explicit zero is zero; what is missing is unknown and never zero.

    `buckets` maps a name of `pricing.units` to a quantity; it holds entries above zero and those reported as zero. Where
    several models served, `parts` says what each of them used and `buckets` is their sum: each part is priced at its own
    model, and the sum at none.
    """

    buckets: Mapping[str, Quantity]
    provider: str = ""  # slug; "" where nobody said, then a model name that is unique decides
    model_requested: str | None = None
    model_served: str | None = None
    parts: tuple[UsagePart, ...] = ()
    # The circumstances that a price may depend on, as the response says them, which may differ from what was asked for;
    # in lower case. None: nobody said, or it is the ordinary one ("default", "standard", "auto", "on_demand").
    service_tier: str | None = None  # "flex", "priority", "provisioned" …
    speed: str | None = None  # "fast"
    region: str | None = None  # "us", "eu", "global" …
    batch: bool = False
    byok: bool = False  # the caller's own upstream key paid the provider
    source: Source = "reported"
    consistency: str = "ok"  # "ok", "repaired:<rule>" or "inconsistent"
    rules: tuple[str, ...] = ()  # every consistency rule that fired, in the order in which they did
    unknown_sides: tuple[UnknownSide, ...] = ()
    raw: Any = None  # the provider's usage object, decoded, so that it can be read and rated again
    extractor: str = ""  # name/version of what read it: "openai_chat/1"
    execution_id: str | None = None
    task_type: str | None = None
    feature: str | None = None
    quantity: int | Decimal | None = None  # of the feature; None: one call
    metadata: dict[str, Any] | None = None
    reported_cost: Decimal | None = None  # what the provider says it charged: evidence, not our price

    @property
    def model(self) -> str:
        """The model that is billed: the one that served, else the one asked for, else ""."""
        return self.model_served or self.model_requested or ""

    @property
    def tokens_input(self) -> int | None:
        """All tokens read, cached or not; None when unknown."""
        return self.tokens()[0]

    @property
    def tokens_output(self) -> int | None:
        """All tokens written, shown or not; None when unknown."""
        return self.tokens()[1]

    @property
    def tokens_total(self) -> int | None:
        """Tokens of both sides; None when either is unknown."""
        return self.tokens()[2]

    def tokens(self) -> tuple[int | None, int | None, int | None]:
        """All tokens read, all written, and both together; each None when it is unknown. Counted once for all three."""
        if self.source == "none":
            return None, None, None
        read, written = tokens_of(self.buckets)
        if not self.unknown_sides:
            return read, written, read + written
        return (
            None if "input" in self.unknown_sides else read,
            None if "output" in self.unknown_sides else written,
            None,
        )


def tokens_of(buckets: Mapping[str, Quantity]) -> tuple[int, int]:
    """All tokens read, and all written; tokens are never fractions."""
    read: Quantity = 0
    written: Quantity = 0
    for bucket, count in buckets.items():
        side = bucket[:4]
        if side == "out_":
            written += count
        elif side[:3] == "in_":
            read += count
    return cast(int, read), cast(int, written)
