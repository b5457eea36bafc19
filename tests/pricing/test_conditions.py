"""The most specific rate prices a call, by the order that docs/rates.md states."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings, strategies as st

from pricing.conditions import ORDER, Conditions, describe, line_key, problem_with_word
from pricing.hours import WEEKDAYS
from pricing.pricelist import Rate, RateCard
from pricing.rating import Charge, rate_usage
from pricing.units import rate_candidates
from pricing.usage import Usage, UsagePart
from tests.pricing.prices import NOW, START, rate, rates, usd

BERLIN = {"time_zone": "Europe/Berlin"}
NIGHT = {"time_from": time(22), "time_to": time(6), **BERLIN}


def charge(
    listed: Sequence[Rate], buckets: dict[str, int] | None = None, *, at: datetime = NOW, model: str = "large",
    book: str = "list", aliases: dict[tuple[str, str], str] | None = None, **call: Any,
) -> Charge:  # fmt: skip
    usage = Usage(
        buckets={"in_uncached": 1} if buckets is None else buckets,
        provider="acme",
        model_served=model,
        **call,
    )
    return rate_usage(RateCard.compile(listed, aliases or {}, 1), usage, book=book, at=at)


def rate_id(listed: Sequence[Rate], **call: Any) -> int | None:
    """The rate that prices one uncached token."""
    lines = charge(listed, **call).lines
    return lines[0].rate_id if lines else None


# Each condition by itself.


@pytest.mark.parametrize(
    ("condition", "call", "other"),
    [
        ({"batch": True}, {"batch": True}, {}),
        ({"service_tier": "flex"}, {"service_tier": "flex"}, {"service_tier": "priority"}),
        ({"speed": "fast"}, {"speed": "fast"}, {"speed": None}),
        ({"region": "us"}, {"region": "us"}, {"region": "eu"}),
        ({"byok": True}, {"byok": True}, {}),
        ({"input_above": 9}, {"buckets": {"in_uncached": 10}}, {"buckets": {"in_uncached": 9}}),
        (NIGHT, {"at": datetime(2026, 11, 20, 21, tzinfo=UTC)}, {"at": datetime(2026, 11, 20, 20, 59, tzinfo=UTC)}),
        ({"weekdays": "fri,sat", **BERLIN}, {"at": datetime(2026, 11, 19, 23, tzinfo=UTC)},
         {"at": datetime(2026, 11, 21, 23, tzinfo=UTC)}),
    ],
)  # fmt: skip
def test_a_rate_with_a_condition_holds_where_it_is_met_and_wins_there(
    condition: dict[str, Any], call: dict[str, Any], other: dict[str, Any]
) -> None:
    listed = [rate("2", id=1), rate("1", id=2, **condition)]
    assert rate_id(listed, **call) == 2
    assert rate_id(listed, **other) == 1
    assert rate_id(listed[1:], **other) is None


def test_all_conditions_of_a_rate_must_be_met() -> None:
    both = [rate("1", batch=True, region="us")]
    assert rate_id(both, batch=True, region="us") == 1
    assert rate_id(both, batch=True) is None
    assert rate_id(both, region="us") is None


def test_a_circumstance_that_no_rate_asks_for_changes_nothing() -> None:
    listed = [rate("2", id=1), rate("1", id=2, service_tier="flex")]
    assert rate_id(listed, service_tier="never_heard_of", region="mars", speed="slow", batch=True) == 1


# Which of several.


def test_more_conditions_beat_fewer() -> None:
    listed = [rate("1", id=1, byok=True), rate("2", id=2, speed="fast", region="us")]
    assert rate_id(listed, byok=True, speed="fast", region="us") == 2


CONDITION: dict[str, dict[str, Any]] = {
    "byok": {"byok": True}, "batch": {"batch": True}, "service_tier": {"service_tier": "flex"}, "speed": {"speed": "fast"},
    "region": {"region": "us"}, "time_from": {"time_from": time(0), "time_to": time(23), "time_zone": "UTC"},
    "weekdays": {"weekdays": "fri", "time_zone": "UTC"},
}  # fmt: skip
EVERYTHING: dict[str, Any] = {
    "byok": True,
    "batch": True,
    "service_tier": "flex",
    "speed": "fast",
    "region": "us",
}


@pytest.mark.parametrize(("stronger", "weaker"), list(pairwise(ORDER)))
def test_of_equally_many_the_one_that_comes_first_in_the_order_wins(stronger: str, weaker: str) -> None:
    listed = [rate("1", id=1, **CONDITION[stronger]), rate("2", id=2, **CONDITION[weaker])]
    assert rate_id(listed, **EVERYTHING) == rate_id(listed[::-1], **EVERYTHING) == 1


def test_the_order_looks_at_the_first_condition_in_which_two_rates_differ() -> None:
    listed = [
        rate("1", id=1, batch=True, **CONDITION["weekdays"]),
        rate("2", id=2, service_tier="flex", speed="fast"),
        rate("3", id=3, batch=True, region="us"),
    ]
    assert rate_id(listed, **EVERYTHING) == 3


def test_a_name_beats_another_name_for_it_and_that_a_prefix_and_the_longer_prefix_the_shorter() -> None:
    listed = [
        rate("1", id=1, model="large-v2"),
        rate("2", id=2, model="large"),
        rate("3", id=3, model="large-", match="prefix"),
        rate("4", id=4, model="lar", match="prefix"),
        rate("5", id=5, model="lar", match="prefix", batch=True, region="us", speed="fast"),
    ]
    aliases = {("acme", "large-v2"): "large"}
    for expected in (1, 2, 3, 5):
        found = rate_id(listed, model="large-v2", aliases=aliases, **{**EVERYTHING, "byok": False})
        assert found == expected
        listed = [known for known in listed if known.id != expected]
    assert rate_id(listed, model="large-v2", aliases=aliases) == 4
    assert rate_id(listed, model="la") is None


def test_a_prefix_fills_in_what_the_name_itself_has_no_price_for() -> None:
    listed = [
        *rates({"in_uncached": "2"}, book="list"),
        *rates(
            {"web_search": "10", "in_cache_read": "9"}, book="list", model="la", first_id=7, match="prefix"
        ),
    ]
    found = charge(listed, {"in_uncached": 1, "in_cache_read": 1, "web_search": 1})
    assert [line.rate_id for line in found.lines] == [
        1,
        1,
        7,
    ]  # cached tokens have the name's own price for any


def test_prices_of_the_bucket_itself_come_before_conditions() -> None:
    """A batch rate for uncached tokens says nothing of cached ones, for which there is a price."""
    listed = [*rates({"in_uncached": "2", "in_cache_read": "0.2"}, book="list"), rate("1", id=9, batch=True)]
    found = charge(listed, {"in_uncached": 1, "in_cache_read": 1}, batch=True)
    assert [line.rate_id for line in found.lines] == [9, 2]


# The threshold of a long context.


LONG = [
    rate("2", id=1),
    rate("4", id=2, input_above=100),
    rate("1", id=3, batch=True),
    rate("5", id=4, region="us", input_above=100),
    rate("3", id=5, service_tier="flex"),
    rate("6", id=6, service_tier="flex", input_above=200),
]


@pytest.mark.parametrize(
    ("tokens", "call", "expected"),
    [
        (100, {}, 1), (101, {}, 2), (101, {"batch": True}, 3), (100, {"region": "us"}, 1), (101, {"region": "us"}, 4),
        (101, {"batch": True, "region": "us"}, 3), (201, {"service_tier": "flex"}, 6), (101, {"service_tier": "flex"}, 5),
        (201, {"service_tier": "flex", "region": "us"}, 6),
    ],
)  # fmt: skip
def test_a_threshold_decides_only_between_rates_of_the_same_conditions(
    tokens: int, call: dict[str, Any], expected: int
) -> None:
    """A batch over the threshold has the price of batches, although the price of long calls also fits."""
    assert rate_id(LONG, buckets={"in_uncached": tokens}, **call) == expected


def test_a_call_that_reads_more_in_the_cache_alone_is_long() -> None:
    assert rate_id(LONG, buckets={"in_uncached": 1, "in_cache_read": 60, "in_cache_write_1h": 40}) == 2


def test_each_part_is_compared_with_the_threshold_by_itself() -> None:
    parts = tuple(UsagePart({"in_uncached": tokens}) for tokens in (90, 90, 101))
    found = charge(LONG, {"in_uncached": 281}, parts=parts)
    assert [(line.quantity, line.rate_id) for line in found.lines] == [(90, 1), (90, 1), (101, 2)]
    assert found.total == (90 + 90) * usd("2") + 101 * usd("4")


def test_a_sum_of_many_calls_is_no_long_call() -> None:
    listed = [rate("2", id=1), rate("4", id=2, input_above=100), rate("0", "request", id=3)]
    assert rate_id(listed, buckets={"in_uncached": 1000, "request": 10}) == 1
    assert (
        rate_id(listed, buckets={"in_uncached": 1011, "request": 10}) == 2
    )  # 101 on average: some call is longer


# The call itself.


def test_each_call_has_the_fee_of_a_call_once() -> None:
    listed = [rate("2", id=1), rate("0.01", "request", id=2, per=1)]
    found = charge(listed, {"in_uncached": 3})
    assert found.total == 3 * usd("2") + Decimal("0.01")
    assert [(line.bucket, line.quantity) for line in found.lines] == [("in_uncached", 3), ("request", 1)]


def test_a_usage_that_counts_requests_is_charged_for_as_many() -> None:
    listed = [rate("0.01", "request", per=1)]
    assert charge(listed, {"request": 7}).total == 7 * Decimal("0.01")
    assert charge(listed, {"request": 0}).total == 0
    assert charge(listed, {}).total == Decimal("0.01")


def test_a_count_of_requests_without_a_price_is_nothing_that_is_unpriced() -> None:
    found = charge([rate("2")], {"in_uncached": 3, "request": 7})
    assert (found.status, found.total, found.unpriced) == ("priced", 3 * usd("2"), ())


def test_a_call_of_several_parts_has_one_fee_at_its_own_model() -> None:
    listed = [
        rate("2", id=1),
        rate("0.01", "request", id=2, per=1),
        rate("9", id=3, model="expert"),
        rate("0.05", "request", id=4, per=1, model="expert"),
    ]
    parts = (UsagePart({"in_uncached": 1}), UsagePart({"in_uncached": 2}, model="expert"))
    found = charge(listed, {"in_uncached": 3}, parts=parts)
    assert found.total == usd("2") + 2 * usd("9") + Decimal("0.01")
    assert [line.rate_id for line in found.lines] == [1, 3, 2]


def test_the_fee_of_a_call_may_depend_on_conditions() -> None:
    listed = [
        rate("0.01", "request", id=1, per=1),
        rate("0.02", "request", id=2, per=1, input_above=10),
        rate("0", "request", id=3, per=1, batch=True),
    ]
    assert charge(listed, {"in_uncached": 10}).rate_ids == (1,)
    assert charge(listed, {"in_uncached": 11}).rate_ids == (2,)
    assert charge(listed, {"in_uncached": 11}, batch=True).rate_ids == (3,)


def test_seconds_characters_pages_and_searches_have_their_own_prices() -> None:
    fees = {"audio_second": "0.0001", "character": "0.000015", "page": "0.001", "web_search": "0.01"}
    listed = [rate(price, bucket, id=number, per=1) for number, (bucket, price) in enumerate(fees.items())]
    used = {"audio_second": 90, "character": 1000, "page": 12, "web_search": 3}
    expected = (
        90 * Decimal("0.0001") + 1000 * Decimal("0.000015") + 12 * Decimal("0.001") + 3 * Decimal("0.01")
    )
    assert charge(listed, used).total == expected


# The caller's own upstream key.


def test_what_the_callers_own_key_pays_for_costs_us_nothing() -> None:
    listed = rates({"in_uncached": "2", "out_visible": "9"}) + rates(
        {"in_uncached": "3"}, book="list", first_id=5
    )
    used = {"in_uncached": 1000, "out_visible": 10}
    cost = charge(listed, used, book="cost", byok=True)
    assert (cost.status, cost.total, cost.lines, cost.unpriced) == ("priced", 0, (), ())
    assert charge(listed, used, book="cost").total == 1000 * usd("2") + 10 * usd("9")
    assert charge(listed, {"in_uncached": 1000}, byok=True).total == 1000 * usd(
        "3"
    )  # what we charge is another matter


@pytest.mark.parametrize("call", [{"model": "unheard_of"}, {"source": "none"}])
def test_a_model_without_a_price_costs_nothing_either_when_somebody_else_pays(call: dict[str, Any]) -> None:
    found = charge(rates({"in_uncached": "2"}), book="cost", byok=True, **call)
    assert (found.status, found.total, found.amount_input, found.amount_output) == ("priced", 0, 0, 0)


def test_the_fee_that_a_provider_takes_for_an_own_key_is_a_cost() -> None:
    listed = rates({"in_uncached": "2"}) + rates({"in_uncached": "0.1"}, first_id=5, byok=True)
    found = charge(listed, {"in_uncached": 1000, "out_visible": 10}, book="cost", byok=True)
    assert (found.status, found.total, found.rate_ids) == ("priced", 1000 * usd("0.1"), (5,))


# Revisions.


def test_of_two_rates_of_one_line_the_later_revision_counts() -> None:
    listed = [rate("2", id=1), rate("3", id=2, revision=1, effective_to=NOW), rate("4", id=3, batch=True)]
    assert rate_id(listed, at=NOW - timedelta(seconds=1)) == 2
    assert rate_id(listed, at=NOW) == 1
    assert rate_id(listed, at=START, batch=True) == 3


def test_a_corrected_price_of_ordinary_calls_says_nothing_of_long_ones() -> None:
    listed = [rate("2", id=1), rate("3", id=2, revision=1), rate("4", id=3, input_above=100)]
    assert rate_id(listed, buckets={"in_uncached": 101}) == 3


# Any set of rates.


@dataclass(frozen=True)
class Call:
    at: datetime
    tier: str | None
    region: str | None
    batch: bool
    tokens: int


calls = st.builds(
    Call,
    st.datetimes(datetime(2026, 3, 20), datetime(2026, 4, 10), timezones=st.just(UTC)),  # noqa: DTZ001
    st.sampled_from([None, "flex", "priority"]), st.sampled_from([None, "us", "eu"]), st.booleans(),
    st.sampled_from([1, 100, 101, 201]),
)  # fmt: skip


@st.composite
def rate_lists(draw: st.DrawFn) -> list[Rate]:
    """Rates of which no two are ambiguous: their hours are whole weekdays or halves of a day of one place."""
    found: dict[tuple[Any, ...], Rate] = {}
    for number in range(draw(st.integers(1, 12))):
        given: dict[str, Any] = {
            "model": draw(st.sampled_from(["large", "lar", "la"])),
            "service_tier": draw(st.sampled_from(["", "", "", "flex", "priority"])),
            "region": draw(st.sampled_from(["", "", "", "us"])),
            "batch": draw(st.sampled_from([False, False, True])),
            "input_above": draw(st.sampled_from([0, 0, 100, 200])),
            **draw(st.sampled_from([{}, {}, {}, NIGHT, {**NIGHT, "time_from": time(6), "time_to": time(22)},
                                    {"weekdays": "mon", **BERLIN}, {"weekdays": "tue,wed", **BERLIN}])),
        }  # fmt: skip
        given["match"] = "exact" if given["model"] == "large" else "prefix"
        bucket = draw(st.sampled_from(["in_uncached", "in_cache_read"]))
        found[bucket, *given.values()] = rate(str(number), bucket, id=number, **given)
    return list(found.values())


def fits(known: Rate, call: Call) -> bool:
    local = call.at.astimezone(ZoneInfo("Europe/Berlin"))
    in_window = known.time_from is None or (
        known.time_from <= local.time() < known.time_to  # type: ignore[operator]
        if known.time_from < known.time_to  # type: ignore[operator]
        else local.time() >= known.time_from or local.time() < known.time_to  # type: ignore[operator]
    )
    return all((
        known.service_tier in ("", call.tier), known.region in ("", call.region), call.batch or not known.batch,
        call.tokens > known.input_above or not known.input_above,
        not known.weekdays or WEEKDAYS[local.weekday()] in known.weekdays.split(","), in_window,
    ))  # fmt: skip


def strength(known: Rate) -> tuple[object, ...]:
    """The order of docs/rates.md, said otherwise than the code says it."""
    is_set = [known.byok, known.batch, known.service_tier != "", known.speed != "", known.region != "",
              known.time_from is not None, known.weekdays != ""]  # fmt: skip
    return (is_set.count(True), is_set, known.input_above)


def expected_rate(listed: list[Rate], bucket: str, call: Call) -> int | None:
    for model in ("large", "lar", "la"):
        for name in rate_candidates(bucket):
            fitting = [
                known
                for known in listed
                if known.model == model and known.bucket == name and fits(known, call)
            ]
            if fitting:
                return max(fitting, key=strength).id
    return None


@settings(max_examples=300)
@given(rate_lists(), calls, st.sampled_from(["in_uncached", "in_cache_read"]), st.randoms())
def test_the_most_specific_wins_whatever_the_order_in_which_rates_were_added(
    listed: list[Rate], call: Call, bucket: str, chance: random.Random
) -> None:
    shuffled = chance.sample(listed, len(listed))
    for rates_ in (listed, shuffled):
        found = charge(
            rates_,
            {bucket: call.tokens},
            at=call.at,
            service_tier=call.tier,
            region=call.region,
            batch=call.batch,
        )
        assert [line.rate_id for line in found.lines] == [
            known for known in [expected_rate(listed, bucket, call)] if known is not None
        ]


@given(rate_lists(), calls, st.lists(st.integers(0, 300), min_size=1, max_size=4))
def test_rating_adds_up_over_parts(listed: list[Rate], call: Call, counts: list[int]) -> None:
    said: dict[str, Any] = {
        "at": call.at,
        "service_tier": call.tier,
        "region": call.region,
        "batch": call.batch,
    }
    parts = tuple(UsagePart({"in_uncached": count, "in_cache_read": 7}) for count in counts)
    whole = charge(
        listed, {"in_uncached": sum(counts), "in_cache_read": 7 * len(counts)}, parts=parts, **said
    )
    alone = [charge(listed, dict(part.buckets), **said) for part in parts]  # type: ignore[arg-type]
    assert sum(line.amount for line in whole.lines) == sum(line.amount for one in alone for line in one.lines)
    assert [line.rate_id for line in whole.lines] == [line.rate_id for one in alone for line in one.lines]
    assert len(whole.unpriced) == sum(len(one.unpriced) for one in alone)


# Names, numbers and words.


def test_names_that_nobody_listed_do_not_pile_up() -> None:
    prices = RateCard.compile([rate("2", model="lar", match="prefix")], {}, 1)
    for number in range(10_000):
        assert prices.prices_for("list", "acme", f"large-{number}", NOW) is not None
        assert prices.prices_for("list", "acme", f"other-{number}", NOW) is None
    assert prices.names_kept < 5_000
    assert prices.prices_for("list", "acme", "large-1", NOW) is not None


def test_words_that_nobody_asks_for_do_not_pile_up() -> None:
    prices = RateCard.compile([rate("2"), rate("1", service_tier="flex")], {}, 1)
    for number in range(10_000):
        usage = Usage(
            {"in_uncached": 1}, "acme", model_served="large", service_tier=f"t{number}", region=f"r{number}"
        )
        assert rate_usage(prices, usage, book="list", at=NOW).total == usd("2")
    tariff = prices.tariff_for("list", "acme", "large", NOW)
    assert tariff is not None and tariff.combinations_kept < 300


def test_a_card_with_an_unknown_zone_is_not_made() -> None:
    with pytest.raises(ValueError, match="Mars/Olympus"):
        RateCard.compile([rate("2", weekdays="mon", time_zone="Mars/Olympus")], {}, 1)


def test_without_a_provider_the_one_that_has_a_fitting_prefix_decides() -> None:
    mine = rate("2", model="lar", match="prefix")
    assert RateCard.compile([mine], {}, 1).prices_for("list", "", "large", NOW) is not None
    both = [mine, rate("2", model="larg", match="prefix", provider="other")]
    assert RateCard.compile(both, {}, 1).prices_for("list", "", "large", NOW) is None


def test_the_number_of_a_line_stays_what_it_is() -> None:
    """It is stored: another number for the same line would let a second price in beside the first."""
    plain = line_key(1, "acme", "large", "exact", "in_uncached", Conditions())
    full = Conditions(batch=True, service_tier="flex", weekdays="mon", time_from=time(22), time_to=time(6, 30),
                      time_zone="Europe/Berlin", input_above=200_000)  # fmt: skip
    assert plain == PLAIN_LINE
    assert line_key(1, "acme", "large", "exact", "in_uncached", full) == FULL_LINE


PLAIN_LINE, FULL_LINE = -4_283_589_979_573_030_692, 3_505_582_707_034_059_071


@pytest.mark.parametrize(
    "other",
    [
        (2, "acme", "large", "exact", "in_uncached", Conditions()),
        (1, "acme", "large", "prefix", "in_uncached", Conditions()),
        (1, "acm", "elarge", "exact", "in_uncached", Conditions()),
        (1, "acme", "large", "exact", "in_uncached", Conditions(batch=True)),
        (1, "acme", "large", "exact", "in_uncached", Conditions(byok=True)),
        (1, "acme", "large", "exact", "in_uncached", Conditions(speed="x")),
        (1, "acme", "large", "exact", "in_uncached", Conditions(region="x")),
        (1, "acme", "large", "exact", "in_uncached", Conditions(input_above=1)),
    ],
)
def test_anything_that_differs_makes_another_line(other: tuple[int, str, str, str, str, Conditions]) -> None:
    numbers = [line_key(*other), line_key(1, "acme", "large", "exact", "in_uncached", Conditions())]
    assert len(set(numbers)) == 2
    assert all(-(2**62) <= number < 2**62 for number in numbers)


def test_conditions_are_said_in_words() -> None:
    assert describe(Conditions()) == ""
    assert describe(Conditions(batch=True, service_tier="flex", speed="fast", region="us", byok=True)) == (
        "byok, batch, tier flex, speed fast, region us"
    )
    assert describe(Conditions(weekdays="mon,tue", time_from=time(22), time_to=time(6), time_zone="Asia/Shanghai",
                               input_above=200_000)) == "mon,tue 22:00–06:00 Asia/Shanghai, more than 200,000 read"  # fmt: skip


@pytest.mark.parametrize(
    "word", ["Flex", "us-east-1", " flex", "standard", "default", "on_demand", "batch", "fl€x", "_x"]
)
def test_a_word_that_no_call_is_said_to_have_is_refused(word: str) -> None:
    assert problem_with_word(word)


@pytest.mark.parametrize("word", ["", "flex", "us_east_1", "priority", "1", "v1.5"])
def test_a_word_as_usage_says_it_is_taken(word: str) -> None:
    assert not problem_with_word(word)
