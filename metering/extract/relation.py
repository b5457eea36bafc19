"""Whether details stand inside their headline counter or beside it: the consistency rules of OpenAI-like usage objects.

In this order, and each that fires is noted:

1. total = input + output: all details are inside. The ordinary case, which needs no note.
2. total = input + output + reasoning: reasoning is beside the output (`reasoning_additive`: xAI, Gemini behind gateways).
3. total = input + output + cache: the cache is beside the input (`cache_additive`: Anthropic behind gateways). 2 and 3 may
   hold together.
4. Nothing fits: the provider's profile decides (`provider_profile`), and where the numbers contradict each other, the
   result is inconsistent as well: `cache_exceeds_input`, `reasoning_exceeds_output`, `total_unexplained`. Nothing is
   ever cut to fit without one of these.
"""

from typing import NamedTuple

from metering.extract.counts import Counters
from metering.extract.profiles import Profile

REASONING_ADDITIVE = "reasoning_additive"
CACHE_ADDITIVE = "cache_additive"
PROVIDER_PROFILE = "provider_profile"
REASONING_FROM_TOTAL = "reasoning_from_total"  # what only the total counts was reasoning, says the profile
AUDIO_IN_TOTAL = "audio_in_total"  # the total counts audio that is reported, and billed, by the second
CACHE_EXCEEDS_INPUT = "cache_exceeds_input"
REASONING_EXCEEDS_OUTPUT = "reasoning_exceeds_output"
TOTAL_UNEXPLAINED = "total_unexplained"


class Headline(NamedTuple):
    """The counters that are to be brought into a relation. A side or a total that nobody reported is None."""

    tokens_in: int | None
    tokens_out: int | None
    total: int | None
    cache: int  # read and written
    hidden: int  # reasoning and citations
    has_seconds: bool = False  # audio is reported by the second as well


class Relation(NamedTuple):
    cache_beside: bool = False
    hidden_beside: bool = False
    rest: int = 0  # reasoning tokens that only the total counts


INSIDE = Relation()


def relate(counters: Counters, head: Headline, profile: Profile) -> Relation:
    """The relation, with the rules that fired noted in `counters`."""
    if head.total is None or head.tokens_in is None or head.tokens_out is None:
        return _without_total(counters, head, profile)
    rest = head.total - head.tokens_in - head.tokens_out
    cache_fits, hidden_fits = head.cache <= head.tokens_in, head.hidden <= head.tokens_out
    if rest == 0 and cache_fits:
        if head.hidden and profile.total_is_headline:
            counters.repair(PROVIDER_PROFILE)
            return Relation(hidden_beside=True)
        if hidden_fits:
            return INSIDE
    if rest > 0:
        explained = _explained(counters, head, profile, rest, cache_fits, hidden_fits)
        if explained is not None:
            return explained
    _contradict(counters, head)
    if rest and cache_fits and hidden_fits:
        counters.flaw(TOTAL_UNEXPLAINED)
    return _by_profile(counters, head, profile)


def _explained(
    counters: Counters, head: Headline, profile: Profile, rest: int, cache_fits: bool, hidden_fits: bool
) -> Relation | None:  # fmt: skip
    """What the `rest` of the total is that neither headline counts; None where nothing explains it.

    Where reasoning and cache happen to be the same number, the one that does not fit inside is the one beside.
    """
    if rest == head.hidden and (cache_fits or rest != head.cache or not hidden_fits):
        counters.repair(REASONING_ADDITIVE)
        _contradict(counters, head._replace(hidden=0))
        return Relation(not cache_fits and profile.cache_beside, hidden_beside=True)
    if rest == head.cache:
        counters.repair(CACHE_ADDITIVE)
        _contradict(counters, head._replace(cache=0))
        return Relation(cache_beside=True, hidden_beside=not hidden_fits and profile.reasoning_beside)
    if rest == head.cache + head.hidden:
        counters.repair(CACHE_ADDITIVE)
        counters.repair(REASONING_ADDITIVE)
        return Relation(cache_beside=True, hidden_beside=True)
    if cache_fits and hidden_fits and head.has_seconds:
        counters.repair(AUDIO_IN_TOTAL)
        return INSIDE
    if cache_fits and not head.hidden and profile.rest_is_reasoning:
        counters.repair(REASONING_FROM_TOTAL)
        return Relation(rest=rest)
    return None


def _without_total(counters: Counters, head: Headline, profile: Profile) -> Relation:
    if not (head.cache or head.hidden):
        return INSIDE
    explained = profile.reasoning_beside and not _cache_exceeds(head)
    if not explained:
        _contradict(counters, head)
    return _by_profile(counters, head, profile)


def _contradict(counters: Counters, head: Headline) -> None:
    if _cache_exceeds(head):
        counters.flaw(CACHE_EXCEEDS_INPUT)
    if head.tokens_out is not None and head.hidden > head.tokens_out:
        counters.flaw(REASONING_EXCEEDS_OUTPUT)


def _cache_exceeds(head: Headline) -> bool:
    return head.tokens_in is not None and head.cache > head.tokens_in


def _by_profile(counters: Counters, head: Headline, profile: Profile) -> Relation:
    relation = Relation(profile.cache_beside and head.cache > 0, profile.reasoning_beside and head.hidden > 0)
    if relation != INSIDE:
        counters.repair(PROVIDER_PROFILE)
    return relation
