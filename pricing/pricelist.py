"""The rate card: every rate of every price book, compiled for look-up, immutable and swapped whole.

A name is worked out when it is first asked for: its rates (its own, those of the model that it is another name for, those
of prefixes) are cut into intervals in which none begins or ends, each a tariff. A call is then a look-up, a comparison
with the beginning of the current interval, and another look-up. So a new card is ready in milliseconds, however large the
catalogue, and takes nothing from the calls that go on meanwhile.
"""

import re
import time
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Self

import msgspec

from pricing.conditions import PREFIX
from pricing.hours import zone_of
from pricing.tariff import BucketPrice, ModelPrices, Rate, Tariff, counting

__all__ = ["DATE", "Alias", "BucketPrice", "CurrentCard", "ModelPrices", "Rate", "RateCard", "Tariff"]

# In an alias: stands for the date of a snapshot, 20250929 or 2025-09-29.
DATE = "{date}"
_DATED = re.compile(
    r"(?<=[-@])20\d\d(?:(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])|-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01]))$"
)

# The book of what providers charge us: a call that the caller's own upstream key pays for costs us nothing there, but for
# what rates with `byok` say.
COST_BOOK = "cost"

_STRANGERS_MAX = (
    4096  # names kept that the catalogue does not list: snapshots, those of prefixes, unknown ones
)
_NAME_MAX = 256  # a longer name is worked out each time


class Alias(msgspec.Struct, frozen=True):
    """What an alias stands for in [effective_from, effective_to); None: always, and until further notice."""

    model: str
    effective_from: datetime | None = None
    effective_to: datetime | None = None

    def holds_at(self, instant: datetime) -> bool:
        return (self.effective_from is None or self.effective_from <= instant) and (
            self.effective_to is None or instant < self.effective_to
        )


Aliases = Mapping[
    tuple[str, str], Sequence[Alias]
]  # by (provider, alias); at most one of each holds at a time
_BEGINNING = datetime.min.replace(tzinfo=UTC)


def model_behind(aliases: Aliases, provider: str, name: str, at: datetime) -> str | None:
    """The model that `name` is another name for at that instant, also as a snapshot of any date; None when it is none."""
    for known in (name, _DATED.sub(DATE, name)):
        for alias in aliases.get((provider, known), ()):
            if alias.holds_at(at):
                return alias.model
    return None


def _always(
    aliases: "Mapping[tuple[str, str], str | Sequence[Alias]]",
) -> dict[tuple[str, str], Sequence[Alias]]:
    """The aliases as they are compiled; a plain name stands for a model at any time."""
    return {key: (Alias(said),) if isinstance(said, str) else tuple(said) for key, said in aliases.items()}


class _History(msgspec.Struct, frozen=True):
    """The tariffs of one name over time: `tariffs[i]` holds from `starts[i]` to the next start; None: no price."""

    starts: list[datetime]
    tariffs: list[Tariff | None]

    def at(self, instant: datetime) -> Tariff | None:
        if not self.starts:
            return None
        if instant >= self.starts[-1]:
            return self.tariffs[-1]
        index = bisect_right(self.starts, instant) - 1
        return self.tariffs[index] if index >= 0 else None


_UNKNOWN = _History([], [])


class RateCard:
    """All rates, compiled. Never changes: new rates make a new card."""

    __slots__ = (
        "_aliases", "_exact", "_histories", "_lengths", "_listed", "_prefixes", "_provider_of", "_strangers", "rates",
        "version",
    )  # fmt: skip

    def __init__(
        self, rates: Iterable[Rate], aliases: "Mapping[tuple[str, str], str | Sequence[Alias]]", version: int
    ) -> None:
        self._exact: dict[tuple[str, str, str], list[Rate]] = defaultdict(list)  # by (book, provider, model)
        self._prefixes: dict[
            tuple[str, str], dict[str, list[Rate]]
        ] = {}  # by (book, provider), then by prefix
        self._lengths: dict[tuple[str, str], tuple[int, ...]] = {}  # of these prefixes, the longest first
        self._aliases = _always(aliases)
        self.rates = 0  # how many are in it
        self.version = version  # of the catalogue
        for rate in rates:
            self.rates += 1
            if rate.match == PREFIX:
                found = self._prefixes.setdefault((rate.book, rate.provider), {})
                found.setdefault(rate.model, []).append(rate)
            else:
                self._exact[rate.book, rate.provider, rate.model].append(rate)
            if rate.time_zone:
                zone_of(rate.time_zone)  # an unknown one must not come to light on a call
        for owner, found in self._prefixes.items():
            self._lengths[owner] = tuple(sorted({len(prefix) for prefix in found}, reverse=True))
        self._histories: dict[
            tuple[str, str, str], _History
        ] = {}  # by (book, provider, name), those asked for so far
        self._strangers: deque[tuple[str, str, str]] = (
            deque()
        )  # of these, those that the catalogue does not list
        self._listed = {(provider, name) for _, provider, name in self._exact} | self._aliases.keys()
        self._provider_of: dict[str, str] | None = None  # by name, where only one provider has it

    @classmethod
    def empty(cls) -> Self:
        """A card without any rate: everything is unpriced."""
        return cls((), {}, 0)

    @classmethod
    def compile(
        cls, rates: Iterable[Rate], aliases: "Mapping[tuple[str, str], str | Sequence[Alias]]", version: int
    ) -> Self:
        """The card of these rates. An alias may end in `{date}` for any dated snapshot; an exact name wins over it. It stands
        for one model at any time, or for one after the other.

        ValueError when a rate names a time zone that this machine does not know.
        """
        return cls(rates, aliases, version)

    @property
    def names_kept(self) -> int:
        """How many names have been worked out and are kept."""
        return len(self._histories)

    def listed_name(self, provider: str, name: str) -> str | None:
        """`name` where the catalogue says exactly that, of a dated snapshot the model; None where it does not, also for what
        only a prefix prices. Callers choose names, the catalogue does not grow by them: so there are only so many of these.
        """
        if (provider, name) in self._listed:
            return name
        latest = self._aliases.get((provider, _DATED.sub(DATE, name)), ())
        return latest[-1].model if latest else None

    def tariff_for(self, book: str, provider: str, model: str, at: datetime) -> Tariff | None:
        """What holds for `model` at the instant `at`; None when no rate does. With provider "" the name must be unique."""
        history = self._histories.get((book, provider, model))
        if history is None:
            history = self._work_out(book, provider, model)
        return history.at(at)

    def prices_for(self, book: str, provider: str, model: str, at: datetime) -> ModelPrices | None:
        """The prices of `model` at `at` for a call of which nothing special is said; None when no rate holds."""
        tariff = self.tariff_for(book, provider, model, at)
        return None if tariff is None else tariff.plain

    def _work_out(self, book: str, provider: str, model: str) -> _History:
        """The slow way, once for each name; only so many names that nobody listed are kept."""
        owner = provider or self._owner_of(model)
        history = self._history_of(book, owner, model)
        key = (book, provider, model)
        if (book, owner, model) in self._exact or (history.starts and (owner, model) in self._aliases):
            self._histories[key] = history
        elif len(model) <= _NAME_MAX:
            self._histories[key] = history
            self._strangers.append(key)
            if len(self._strangers) > _STRANGERS_MAX:
                self._histories.pop(self._strangers.popleft(), None)
        return history

    def _history_of(self, book: str, owner: str, model: str) -> _History:
        """The tariffs of a name. Where it comes to stand for another model, another history goes on."""
        starts: list[datetime] = []
        tariffs: list[Tariff | None] = []
        cuts = self._cuts(owner, model)
        for begin, end in zip([_BEGINNING, *cuts], [*cuts, None], strict=True):
            levels = list(self._levels(book, owner, model, begin))
            part = _history(levels, free_with_own_key=book == COST_BOOK) if levels else _UNKNOWN
            if begin is not _BEGINNING:
                starts.append(begin)
                tariffs.append(part.at(begin))
            for start, tariff in zip(part.starts, part.tariffs, strict=True):
                if start > begin and (end is None or start < end):
                    starts.append(start)
                    tariffs.append(tariff)
        return _History(starts, tariffs) if any(tariffs) else _UNKNOWN

    def _cuts(self, owner: str, model: str) -> list[datetime]:
        """The instants at which the name begins or ends to stand for a model."""
        names = (model, _DATED.sub(DATE, model))
        aliases = [alias for name in names for alias in self._aliases.get((owner, name), ())]
        ends = {
            end for alias in aliases for end in (alias.effective_from, alias.effective_to) if end is not None
        }
        return sorted(end.astimezone(UTC) for end in ends)

    def _levels(self, book: str, provider: str, model: str, at: datetime) -> Iterator[list[Rate]]:
        """The rates that may hold for a name, the most specific first: its own, its model's, those of its prefixes. `at`: when
        it stands for that model."""
        behind = model_behind(self._aliases, provider, model, at)
        names = list(dict.fromkeys((model, behind) if behind else (model,)))
        for name in names:
            if rates := self._exact.get((book, provider, name)):
                yield rates
        for name in names:
            yield from self._of_prefixes((book, provider), name)

    def _of_prefixes(self, owner: tuple[str, str], name: str) -> Iterator[list[Rate]]:
        for length in self._lengths.get(owner, ()):
            if rates := self._prefixes[owner].get(name[:length]):
                yield rates

    def _owner_of(self, name: str) -> str:
        """The one provider that has this name, an alias or a prefix of it; "" when none or several do."""
        if self._provider_of is None:
            self._provider_of = _unique_providers(self._listed)
        for known in (name, _DATED.sub(DATE, name)):
            if known in self._provider_of:
                return self._provider_of[known]
        owners = {owner[1] for owner in self._prefixes if any(self._of_prefixes(owner, name))}
        return owners.pop() if len(owners) == 1 else ""


class CurrentCard:
    """The card that a process rates by. One instance a process, made by the wiring and passed in."""

    __slots__ = ("card", "loaded_at")

    def __init__(self, card: RateCard | None = None) -> None:
        self.card = card or RateCard.empty()  # replaced whole: a reader has the old card or the new one
        self.loaded_at: float | None = None  # monotonic seconds at which it was last known to be the newest

    @property
    def age_s(self) -> float | None:
        """Seconds since the card was last known to be the newest; None before the first load."""
        return None if self.loaded_at is None else time.monotonic() - self.loaded_at


def _history(levels: Sequence[list[Rate]], *, free_with_own_key: bool) -> _History:
    """Cut the rates of one name at every instant at which one of them begins or ends."""
    rates = [rate for level in levels for rate in level]
    starts = sorted(
        {rate.effective_from.astimezone(UTC) for rate in rates}
        | {rate.effective_to.astimezone(UTC) for rate in rates if rate.effective_to is not None}
    )
    tariffs: list[Tariff | None] = []
    for start in starts:
        valid = [found for level in levels if (found := counting(r for r in level if r.holds_at(start)))]
        tariffs.append(Tariff(valid, free_with_own_key=free_with_own_key) if valid else None)
    return _History(starts, tariffs)


def _unique_providers(names: Iterable[tuple[str, str]]) -> dict[str, str]:
    """By name the provider that has it; "" where several do."""
    providers: dict[str, set[str]] = defaultdict(set)
    for provider, name in names:
        providers[name].add(provider)
    return {name: next(iter(found)) if len(found) == 1 else "" for name, found in providers.items()}
