"""Of rates that were let in, one prices each bucket of each call at each instant: nothing is left to chance."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, time, timedelta
from typing import Any

from hypothesis import given, settings, strategies as st

from pricing.conditions import Conditions, line_key
from pricing.conflicts import conflicts

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Listed:
    """A rate as far as conflicts go."""

    conditions: Conditions
    effective_from: datetime
    effective_to: datetime | None
    model: str = "large"
    match: str = "exact"
    book_id: int = 1
    provider: str = "acme"
    bucket: str = "in_uncached"
    revision: int = 0
    line: int = field(default=0)

    def __post_init__(self) -> None:
        self.line = line_key(1, self.provider, self.model, self.match, self.bucket, self.conditions)

    def fits(self, at: datetime, call: dict[str, Any], tokens: int) -> bool:
        asked, hours = self.conditions, self.conditions.hours
        return (
            self.effective_from <= at
            and (self.effective_to is None or at < self.effective_to)
            and all(getattr(asked, name) in (type(value)(), value) for name, value in call.items())
            and tokens > asked.input_above - (asked.input_above == 0)
            and (hours is None or hours.hold_at(at))
        )


zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
hours = st.one_of(
    st.just({}),
    st.builds(lambda zone, begins, length: {"time_from": time(begins), "time_to": time((begins + length) % 24), "time_zone": zone},
              zones, st.integers(0, 23), st.integers(1, 12)),
    st.builds(lambda zone, days: {"weekdays": days, "time_zone": zone}, zones, st.sampled_from(["thu,fri", "fri,sat", "sat,sun", "thu,sun"])),
)  # fmt: skip
spans = st.tuples(st.integers(0, 5), st.one_of(st.none(), st.integers(1, 5)))
candidates = st.builds(
    lambda asked, when, span: Listed(
        Conditions(**asked, **when), START + timedelta(days=span[0]),
        None if span[1] is None else START + timedelta(days=span[0] + span[1]),
    ),
    st.fixed_dictionaries({
        "batch": st.sampled_from([False, False, True]), "region": st.sampled_from(["", "", "", "us"]),
        "service_tier": st.sampled_from(["", "", "", "flex"]), "input_above": st.sampled_from([0, 0, 0, 100]),
    }),
    hours, spans,
)  # fmt: skip


@settings(max_examples=300)
@given(
    st.lists(candidates, max_size=14),
    st.lists(st.integers(0, 9 * 24 * 4), min_size=20, max_size=40),
    st.fixed_dictionaries({
        "batch": st.booleans(), "region": st.sampled_from(["", "us", "eu"]), "service_tier": st.sampled_from(["", "flex"]),
    }),
    st.sampled_from([1, 100, 101]),
)  # fmt: skip
def test_of_rates_that_were_let_in_one_is_the_most_specific(
    offered: list[Listed], quarters: list[int], call: dict[str, Any], tokens: int
) -> None:
    let_in: list[Listed] = []
    for rate in offered:
        if next(conflicts([rate], let_in), None) is None:
            let_in.append(rate)
    for quarter in quarters:
        at = START + timedelta(minutes=15) * quarter
        fitting = [rate for rate in let_in if rate.fits(at, call, tokens)]
        ranks = [(rate.conditions.precedence, rate.conditions.input_above) for rate in fitting]
        assert ranks.count(max(ranks, default=((0, 0), 0))) <= 1


@settings(max_examples=300)
@given(st.lists(candidates, min_size=2, max_size=6))
def test_what_is_refused_could_have_held_for_one_call_at_once(offered: list[Listed]) -> None:
    """But for a second rate of one line, whose span alone is refused, whether or not its hours come in it."""
    for found in conflicts(offered, []):
        call = {name: getattr(found.rate.conditions, name) for name in ("batch", "region", "service_tier")}
        for one in (found.rate, found.other):
            assert one.effective_from <= found.instant
            assert one.effective_to is None or found.instant < one.effective_to
            assert found.is_same_line or one.fits(found.instant, call, 101)
        assert found.rate.conditions.precedence == found.other.conditions.precedence
