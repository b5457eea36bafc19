"""Our rates beside what the catalogues state: what differs, and what may never be applied without a person."""

from decimal import Decimal

import msgspec
import pytest

from pricing.compare import MASS_CHANGE_MIN, Comparison, Finding, Guard, OurPrice, compare
from pricing.conditions import Conditions
from pricing.sources import Line, SourceCatalogue, SourcePrice

OURS = {"in_uncached": "2", "out_visible": "8"}
POLICY = Guard(change_max=Decimal(10), takes_new=True)


def line(bucket: str, model: str = "m", provider: str = "openai", **conditions: object) -> Line:
    return Line(provider, model, bucket, Conditions(**conditions))  # type: ignore[arg-type]


def source(
    name: str, prices: dict[str, str], *, model: str = "m", provider: str = "openai"
) -> SourceCatalogue:
    found = [
        SourcePrice.of(provider, model, bucket, Decimal(price), 1_000_000) for bucket, price in prices.items()
    ]
    return SourceCatalogue(
        name, "1", {price.line: price for price in found}, frozenset({(provider, model)}), ()
    )


def our(prices: dict[str, str], *, model: str = "m") -> dict[Line, OurPrice]:
    return {
        line(bucket, model): OurPrice(number, Decimal(price), 1_000_000, Decimal(price))
        for number, (bucket, price) in enumerate(prices.items(), start=1)
    }


def compared(
    *sources: SourceCatalogue, ours: dict[Line, OurPrice] | None = None, guard: Guard = POLICY
) -> Comparison:
    return compare(
        our(OURS) if ours is None else ours, sources, lambda _, model: model.removesuffix("-2026-01-01"),
        frozenset({"openai"}), guard,
    )  # fmt: skip


def only(found: Comparison) -> Finding:
    assert len(found.findings) == 1
    return found.findings[0]


def test_what_all_state_alike_is_confirmed() -> None:
    found = compared(source("a", OURS), source("b", OURS))
    assert (found.findings, found.confirmed) == ((), 2)


def test_a_change_is_a_share_of_our_price() -> None:
    changed = only(
        compared(source("a", {**OURS, "in_uncached": "2.1"}), source("b", {**OURS, "in_uncached": "2.1"}))
    )
    # (2.1 − 2) / 2 = 5 %
    assert (changed.kind, changed.price, changed.change_percent, changed.guard) == (
        "changed",
        Decimal("2.1"),
        5,
        "",
    )


@pytest.mark.parametrize(
    ("price", "applies"), [("2.2", True), ("2.200001", False), ("1.8", True), ("1.799999", False)]
)
def test_the_guard_holds_at_its_edge_up_and_down(price: str, applies: bool) -> None:
    changed = only(compared(source("a", {"in_uncached": price}), source("b", {"in_uncached": price})))
    assert (changed.guard == "") is applies


def test_one_catalogue_alone_is_never_enough() -> None:
    changed = only(compared(source("a", {**OURS, "in_uncached": "2.1"})))
    assert (changed.kind, changed.guard) == ("changed", "only a says so")


def test_catalogues_that_disagree_propose_no_price() -> None:
    found = only(compared(source("a", {"in_uncached": "2.1"}), source("b", {"in_uncached": "2"})))
    assert (found.kind, found.price, found.guard) == ("disagreement", None, "the catalogues disagree")


def test_a_catalogue_that_contradicts_itself_by_two_names_disagrees() -> None:
    found = only(compared(
        source("a", {"in_uncached": "2"}), source("a", {"in_uncached": "3"}, model="m-2026-01-01"), source("b", {"in_uncached": "2"}),
    ))  # fmt: skip
    assert found.kind == "disagreement"


def test_two_versions_of_one_catalogue_are_no_second_witness() -> None:
    changed = only(
        compared(
            source("a", {"in_uncached": "2.1"}),
            msgspec.structs.replace(source("a", {"in_uncached": "2.1"}), version="2"),
        )
    )
    assert changed.guard == "only a says so"


def test_many_small_changes_are_one_large_one() -> None:
    # 2 → 2.18 is 9 %; but a month ago it was 1.84, and 2.18 is 18 % above that
    ours = {line("in_uncached"): OurPrice(1, Decimal(2), 1_000_000, anchor=Decimal("1.84"))}
    changed = only(
        compared(source("a", {"in_uncached": "2.18"}), source("b", {"in_uncached": "2.18"}), ours=ours)
    )
    assert changed.change_percent == 9
    assert changed.guard == "a change of more than 10 % within the last 30 days"


def test_a_price_of_nothing_is_never_taken_over() -> None:
    changed = only(
        compared(
            source("a", {"in_uncached": "0"}),
            source("b", {"in_uncached": "0"}),
            guard=Guard(Decimal(100), takes_new=True),
        )
    )
    assert changed.guard == "a price of 0"


@pytest.mark.parametrize(("takes_new", "guard"), [(True, ""), (False, "a price where we have none")])
def test_a_new_price_is_taken_over_where_the_policy_says_so(takes_new: bool, guard: str) -> None:
    states = {"in_uncached": "1"}
    found = only(
        compared(
            source("a", states, model="n"),
            source("b", states, model="n"),
            ours={},
            guard=Guard(takes_new=takes_new),
        )
    )
    assert (found.kind, found.guard) == ("new", guard)


def test_what_the_price_of_output_covers_already_is_nothing_new() -> None:
    states = {**OURS, "out_reasoning": "8"}
    assert compared(source("a", states), source("b", states)).findings == ()


def test_a_cache_write_without_a_time_to_live_is_the_one_of_five_minutes() -> None:
    ours = our({**OURS, "in_cache_write_5m": "2.5"})
    assert compared(source("a", {"in_cache_write_unknown": "2.5"}), ours=ours).findings == ()
    changed = only(compared(source("a", {"in_cache_write_unknown": "2.6"}), ours=ours))
    assert (changed.kind, changed.line.bucket) == ("changed", "in_cache_write_5m")


def test_a_model_that_no_catalogue_lists_is_withdrawn_and_waits() -> None:
    found = compared(source("a", {"in_uncached": "1"}, model="other")).findings
    assert {(item.kind, item.line.bucket, item.guard) for item in found if item.line.model == "m"} == {
        ("withdrawn", "in_uncached", "no catalogue lists the model any more"),
        ("withdrawn", "out_visible", "no catalogue lists the model any more"),
    }


def test_a_model_that_one_catalogue_still_lists_is_not_withdrawn() -> None:
    gone = source("b", {"in_uncached": "1"}, model="other")
    assert [item.kind for item in compared(source("a", OURS), gone).findings] == ["new"]


def test_providers_that_are_not_followed_do_not_count() -> None:
    assert compared(source("a", OURS, provider="other"), source("b", OURS)).confirmed == 2


def test_a_price_that_is_dated_already_is_not_proposed_again() -> None:
    ours = {line("in_uncached"): OurPrice(1, Decimal(2), 1_000_000, Decimal(2), scheduled=Decimal("2.1"))}
    assert (
        compared(source("a", {"in_uncached": "2.1"}), source("b", {"in_uncached": "2.1"}), ours=ours).findings
        == ()
    )


def test_a_successor_counts_in_as_many_as_the_rate_that_it_follows() -> None:
    ours = {line("in_uncached"): OurPrice(1, Decimal("0.002"), 1_000, Decimal("0.002"))}
    changed = only(compared(source("a", {"in_uncached": "2.1"}), ours=ours))
    assert (changed.price, changed.per, changed.change_percent) == (Decimal("0.0021"), 1_000, 5)


def test_a_catalogue_in_which_everything_changed_at_once_is_not_believed() -> None:
    models = [f"m{number}" for number in range(MASS_CHANGE_MIN)]
    ours = {key: price for model in models for key, price in our({"in_uncached": "2"}, model=model).items()}

    def states(name: str, changed: int) -> list[SourceCatalogue]:
        return [
            source(name, {"in_uncached": "2.1" if number < changed else "2"}, model=model)
            for number, model in enumerate(models)
        ]

    # 5 of 20 are a quarter, 6 are more
    believed = compared(*states("a", 5), *states("b", 5), ours=ours).findings
    assert [found.guard for found in believed] == [""] * 5
    broken = compared(*states("a", 6), *states("b", 6), ours=ours).findings
    assert {found.guard for found in broken} == {"a differs in more than a quarter of the provider's prices"}
