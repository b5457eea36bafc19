"""Service tiers: one word for each, whatever the provider calls it."""

from typing import Any

import pytest

from metering.estimate import RequestFacts
from metering.extract.base import Reading
from metering.extract.counts import REFUSED, Counted, Counters
from metering.extract.tiers import normal_tier, normal_word
from pricing.usage import UsagePart

ORDINARY = [
    "default",
    "standard",
    "auto",
    "on_demand",
    "ON_DEMAND",
    "",
    "SERVICE_TIER_UNSPECIFIED",
    None,
    7,
    ["flex"],
]


@pytest.mark.parametrize("said", ORDINARY)
def test_the_ordinary_tier_has_no_name(said: Any) -> None:
    assert normal_tier(said) == (None, False)


@pytest.mark.parametrize(
    ("said", "tier"),
    [
        ("priority", "priority"), ("Flex", "flex"), (" scale ", "scale"), ("ON_DEMAND_FLEX", "flex"),
        ("ON_DEMAND_PRIORITY", "priority"), ("PROVISIONED_THROUGHPUT", "provisioned"), ("SERVICE_TIER_FLEX", "flex"),
        ("SERVICE_TIER_STANDARD", None), ("off-peak", "off_peak"), ("x" * 100, "x" * 32),
    ],
)  # fmt: skip
def test_a_tier_is_a_word_in_lower_case(said: str, tier: str | None) -> None:
    assert normal_tier(said) == (tier, False)


@pytest.mark.parametrize("said", ["batch", "BATCH"])
def test_a_batch_is_no_tier(said: str) -> None:
    assert normal_tier(said) == (None, True)


def test_speeds_and_regions_are_words_as_well() -> None:
    assert [normal_word(said) for said in ("fast", "standard", "US", None, 3)] == [
        "fast",
        None,
        "us",
        None,
        None,
    ]


READING = Reading("x/1", RequestFacts(model="asked-for"), "openai")


def test_what_a_price_depends_on_reaches_the_usage() -> None:
    parts = (UsagePart({"in_uncached": 3}, "other"),)
    counted = Counted({"in_uncached": 3}, rules=("a", "b"), consistency="repaired:a", parts=parts)
    usage = READING.reported(
        counted, {}, "m", service_tier="ON_DEMAND_FLEX", speed="Fast", region="EU", batch=True, byok=True
    )
    assert (usage.service_tier, usage.speed, usage.region, usage.batch, usage.byok) == (
        "flex",
        "fast",
        "eu",
        True,
        True,
    )
    assert (usage.consistency, usage.rules, usage.parts) == ("repaired:a", ("a", "b"), parts)


def test_a_batch_that_only_its_tier_tells_is_one() -> None:
    usage = READING.reported(Counted({"in_uncached": 3}), {}, "m", service_tier="batch")
    assert (usage.service_tier, usage.batch) == (None, True)
    assert READING.nothing("m", service_tier="batch").batch
    assert READING.estimated("m", 3, more={"service_tier": "priority"}).service_tier == "priority"


def test_the_rule_that_a_summary_names_is_listed() -> None:
    assert READING.reported(Counted({"in_uncached": 3}, "repaired:a"), {}, "m").rules == ("a",)
    assert READING.reported(Counted({"in_uncached": 3}), {}, "m").rules == ()


def test_without_a_counter_there_are_no_parts_either() -> None:
    counted = Counted({"web_search": 1}, "ok", ("input", "output"), parts=(UsagePart({"web_search": 1}),))
    usage = READING.reported(counted, {}, "m")
    assert (usage.source, usage.buckets, usage.parts) == ("none", {}, ())


def test_counters_note_each_rule_once_and_sum_them_up() -> None:
    counters = Counters()
    assert counters.counted({}).consistency == "ok"
    counters.repair("second_place")
    counters.repair("second_place")
    assert counters.counted({}) == Counted({}, "repaired:second_place", (), ("second_place",))
    assert (counters.read({"a": -1}, "a"), counters.read({"a": True}, "a")) == (None, None)
    assert counters.counted({}) == Counted({}, "inconsistent", (), ("second_place", REFUSED))
