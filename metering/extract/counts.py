"""Reading single counters out of what a provider, or anyone, sent."""

from collections.abc import Mapping
from typing import Any

import msgspec

from pricing.usage import Quantity, UnknownSide, UsagePart

COUNT_MAX = 2**53  # beyond it JSON numbers are no longer exact for everyone who reads them

UNKNOWN_TTL = "in_cache_write_unknown"
REFUSED = "field_refused"  # the rule that fires where a counter is none, or a group of counters no object

_EMPTY: dict[str, Any] = {}


class Counters:
    """Takes counters from usage objects and remembers which consistency rules fired while they were read.

    A counter is an integer from 0 to 2^53; an integral float counts as one. Null and absent are both unknown (None).
    Anything else (bool, text, negative, fractional) is refused, which is unknown as well, and `flawed`.
    """

    __slots__ = ("flawed", "rules")

    def __init__(self) -> None:
        self.flawed = False
        self.rules: tuple[str, ...] = ()

    def repair(self, rule: str) -> None:
        """Something was understood in another than the plain way, and `rule` says how."""
        if rule not in self.rules:
            self.rules += (rule,)

    def flaw(self, rule: str) -> None:
        """Something contradicts itself or cannot be read; the result is inconsistent."""
        self.flawed = True
        self.repair(rule)

    def take(self, counted: "Counted") -> None:
        """What was noted while a part of this was read counts here as well."""
        for rule in counted.rules:
            self.repair(rule)
        self.flawed = self.flawed or counted.consistency == "inconsistent"

    @property
    def consistency(self) -> str:
        if self.flawed:
            return "inconsistent"
        return f"repaired:{self.rules[0]}" if self.rules else "ok"

    def counted(self, buckets: dict[str, Any], unknown_sides: tuple[UnknownSide, ...] = ()) -> "Counted":
        """The buckets together with what this reading noted."""
        if not self.rules:
            return Counted(buckets, "inconsistent" if self.flawed else "ok", unknown_sides)
        return Counted(buckets, self.consistency, unknown_sides, self.rules)

    def read(self, source: Mapping[str, Any], *keys: str) -> int | None:
        """The first of `keys` that holds a counter."""
        get = source.get
        for key in keys:
            value = get(key)
            if value is None:
                continue
            if type(value) is int and 0 <= value <= COUNT_MAX:
                return value
            if type(value) is float and 0 <= value <= COUNT_MAX and value.is_integer():
                return int(value)
            self.flaw(REFUSED)
        return None

    def group(self, source: Mapping[str, Any], *keys: str) -> Mapping[str, Any]:
        """The first of `keys` that holds an object; empty when none does."""
        for key in keys:
            value = source.get(key)
            if value is None:
                continue
            if isinstance(value, dict):
                return value
            self.flaw(REFUSED)
        return _EMPTY


class Counted(msgspec.Struct, gc=False):
    """One usage object brought into disjoint buckets. A side that nobody reported is named in `unknown_sides`.

    `rules` are the consistency rules that fired, in that order; `consistency` sums them up. Where several models served,
    `parts` says what each used and `buckets` is their sum.
    """

    buckets: dict[str, Any]  # of `pricing.usage.Quantity`; a dict of whole numbers fits as well
    consistency: str = "ok"
    unknown_sides: tuple[UnknownSide, ...] = ()
    rules: tuple[str, ...] = ()
    parts: tuple[UsagePart, ...] = ()

    @property
    def known(self) -> bool:
        return len(self.unknown_sides) < 2


def cache_write_bucket(ttl: str) -> str:
    """The bucket of a cache write by its time to live, which is an open list: 5m, 30m, 1h, 12h and what comes next."""
    return f"in_cache_write_{ttl}" if ttl.isascii() and ttl.isalnum() and len(ttl) <= 8 else UNKNOWN_TTL


def text_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def put(buckets: dict[str, Any], bucket: str, count: Quantity | None) -> None:
    """Enters a part of a side; parts that are nothing are left out."""
    if count:
        buckets[bucket] = buckets.get(bucket, 0) + count


def split_modalities(
    buckets: dict[str, int], plain: str, total: int, cached_bucket: str, cached: int, parts: Mapping[str, int]
) -> None:
    """Enters `total` tokens of which `cached` came from the cache and `parts` (modality → count) are no text.

    Nobody says which modality the cached tokens had, so they are taken from text first and then from the others.
    The caller has made sure that both fit into the total.
    """
    left = cached
    sizes = {"": total - sum(parts.values()), **parts}
    for modality, size in sizes.items():
        taken = min(left, size)
        left -= taken
        suffix = f".{modality}" if modality else ""
        put(buckets, cached_bucket + suffix, taken)
        put(buckets, plain + suffix, size - taken)
