"""Service tiers in the one form in which rates name them, whatever each provider calls them.

The ordinary tier has many names and is None here, so that no rate needs a condition for it. A batch is a circumstance of
its own (`Usage.batch`), which rates name by itself.
"""

from functools import lru_cache
from typing import Any

# Lower case → our word; None is the ordinary one. A name that is not here is its own word.
_WORDS: dict[str, str | None] = {
    "": None,
    "auto": None,
    "default": None,
    "on_demand": None,
    "standard": None,
    "unspecified": None,
    "service_tier_unspecified": None,
    "traffic_type_unspecified": None,
    "provisioned_throughput": "provisioned",
}
_PREFIXES = ("service_tier_", "on_demand_")
_LENGTH_MAX = 32  # longer is noise, and no rate is written for it
_ORDINARY = (None, False)
_OFTEN_SAID = frozenset({"default", "standard", "ON_DEMAND"})


def normal_tier(said: Any) -> tuple[str | None, bool]:
    """The tier that rates name (None: the ordinary one, or nobody said), and whether `said` means a batch. Never raises."""
    if type(said) is str and said in _OFTEN_SAID:
        return _ORDINARY
    return _normal(said[:_LENGTH_MAX]) if isinstance(said, str) else _ORDINARY


def normal_word(said: Any) -> str | None:
    """A speed or a region, likewise."""
    return _normal(said[:_LENGTH_MAX])[0] if isinstance(said, str) else None


@lru_cache(256)
def _normal(name: str) -> tuple[str | None, bool]:
    word = name.strip().lower().replace("-", "_").replace(" ", "_")
    if word not in _WORDS:
        for prefix in _PREFIXES:
            word = word.removeprefix(prefix)
    return (None, True) if word == "batch" else (_WORDS.get(word, word), False)
