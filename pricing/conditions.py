"""What a rate asks of a call besides its bucket, and which of two rates that fit the same call is the more specific.

Conditions are joined by AND; one that is not set holds for any call. `docs/rates.md` says the same in words.
"""

import hashlib
import json
import re
from datetime import time
from typing import Literal

import msgspec

from pricing.hours import Hours

Match = Literal["exact", "prefix"]
EXACT: Match = "exact"
PREFIX: Match = "prefix"

# Where two rates set equally many conditions, the one that sets the first of these that the other leaves open wins.
# The threshold of a long context is not among them: it decides between rates of the same conditions only, so that a call
# of a batch that reads much has the price of batches and not the one of ordinary long calls.
ORDER = ("byok", "batch", "service_tier", "speed", "region", "time_from", "weekdays")

_WORD = re.compile(r"[a-z0-9][a-z0-9_.]*")
# Words that usage never says, each with what to write instead: a rate that named one would never hold.
_NEVER_SAID = {
    **dict.fromkeys(
        ("default", "standard", "auto", "on_demand", "unspecified"),
        "leave it empty, that is the ordinary one",
    ),
    "batch": "tick `batch`",
    "provisioned_throughput": "write provisioned",
}


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What must be so for a rate to hold. False, 0, None and "" are: any."""

    byok: bool = False  # only calls that the caller's own upstream key pays for
    batch: bool = False  # only calls of a batch
    service_tier: str = ""
    speed: str = ""
    region: str = ""
    weekdays: str = ""  # "mon,tue", by the clock of `time_zone`
    time_from: time | None = (
        None  # of the day, by the clock of `time_zone`; with an end before it: over midnight
    )
    time_to: time | None = None
    time_zone: str = ""
    input_above: int = 0  # holds only for calls that read more tokens than this; then for all their tokens

    @property
    def hours(self) -> Hours | None:
        """When in the week it holds; None: always."""
        if not self.weekdays and self.time_from is None:
            return None
        return Hours(self.weekdays, self.time_from, self.time_to, self.time_zone)

    @property
    def precedence(self) -> tuple[int, int]:
        """The greater, the more specific; equal only where the same conditions are set."""
        mask = 0
        for name in ORDER:
            mask = mask << 1 | bool(getattr(self, name))
        return mask.bit_count(), mask


def conditions_of(row: object) -> Conditions:
    """The conditions that stand in the attributes of `row`."""
    return Conditions(**{name: getattr(row, name) for name in Conditions.__struct_fields__})


def problem_with_word(word: str) -> str:
    """Why no call is ever said to have this tier, speed or region; "" when nothing speaks against it."""
    if word and not _WORD.fullmatch(word):
        return f"{word!r} is not written as usage says it: lower case, with _ for anything else"
    return f"no call is said to be {word!r}: {_NEVER_SAID[word]}" if word in _NEVER_SAID else ""


def line_key(book: int, provider: str, model: str, match: str, bucket: str, conditions: Conditions) -> int:
    """The number of the line that a rate continues: the same for ever for the same things and conditions.

    Fits in a 64-bit integer with room for the bound of a range. A condition that is not set leaves no trace, so that a new
    kind of condition changes no key. Two lines share a number with a probability of 2⁻⁶³.
    """
    given = {
        name: value
        for name in Conditions.__struct_fields__
        if (value := getattr(conditions, name)) not in _UNSET
    }
    text = json.dumps([book, provider, model, match, bucket, given], sort_keys=True, default=str)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True) >> 1


_UNSET = (False, 0, None, "")


def describe(conditions: Conditions) -> str:
    """The conditions in words, as lists and messages show them; "" when there are none."""
    said = [name for name in ("byok", "batch") if getattr(conditions, name)]
    said += [
        f"{label} {value}"
        for label, value in (
            ("tier", conditions.service_tier), ("speed", conditions.speed), ("region", conditions.region)
        )
        if value
    ]  # fmt: skip
    if conditions.hours is not None:
        window = (
            f"{conditions.time_from:%H:%M}–{conditions.time_to:%H:%M}"
            if conditions.time_from is not None and conditions.time_to is not None
            else ""
        )
        said.append(" ".join(filter(None, (conditions.weekdays, window, conditions.time_zone))))
    if conditions.input_above:
        said.append(f"more than {conditions.input_above:,} read")
    return ", ".join(said)
