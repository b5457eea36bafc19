"""Limits on what calls use: exact in both directions, whatever else is asked in the same batch or at the same time."""

import asyncio
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from metering import rollups
from metering.gate import OpenGate
from metering.limits import Exceeded, Limit, LimitExceeded, applying, part_of
from metering.models import DailyUserUsage, Hold
from metering.recorder import Recorder
from metering.rows import Claim, HoldRow
from metering.store import Store
from metering.store.base import Held, Lane
from metering.store.memory import MemoryStore
from metering.wiring import current_store
from tests.metering.rows import NOON, PERIOD_START, STRANGER, a_hold, an_event
from tests.metering.stores import LossyStore

PERIOD_END = datetime(2026, 12, 1, tzinfo=UTC)
DAY = datetime(2026, 11, 20, tzinfo=UTC)
KEY, OTHER_KEY = uuid4(), uuid4()


def a_limit(most: str | int, **values: Any) -> Limit:
    """A quota of calls in the billing period."""
    quota = Limit(
        code="quota_exceeded", title="API calls", measure="quantity", most=Decimal(most), since=PERIOD_START, until=PERIOD_END,
        by_period=True, feature="api_calls",
    )  # fmt: skip
    return msgspec.structs.replace(quota, **values)


AT_ONCE = a_limit(
    2, code="rate_limited", measure="calls", since=None, until=None, by_period=False, feature=""
)


@pytest.fixture(params=["memory", pytest.param("database", marks=pytest.mark.django_db(transaction=True))])
def store(request: pytest.FixtureRequest) -> Store:
    return MemoryStore() if request.param == "memory" else current_store()


class Desk:
    """Asks for holds, batch by batch, and settles them."""

    def __init__(self, lane: Lane) -> None:
        self.lane = lane

    async def ask(self, *rows: HoldRow) -> Held:
        return await self.lane.hold(uuid4(), 1, rows, None)

    async def settle(self, row: HoldRow, **values: Any) -> None:
        assert await self.lane.settle(uuid4(), 1, [an_event(row, **values)], None) == {row.id}

    async def admits(self, row: HoldRow) -> bool:
        return row.id in (await self.ask(row)).admitted


def at_desk(store: Store, act: Any) -> None:
    async def main() -> None:
        lane = await store.open_lane("test")
        try:
            await act(Desk(lane))
        finally:
            await lane.close()

    asyncio.run(main())


def test_a_quota_of_three_takes_three_calls_and_refuses_the_fourth(store: Store) -> None:
    limit = a_limit(3)

    async def act(desk: Desk) -> None:
        rows = [a_hold(limits=(limit,)) for _ in range(4)]
        await desk.ask(rows[0])
        await desk.settle(rows[0])  # 1 used
        assert await desk.admits(rows[1])  # 1 used, 1 in flight
        assert await desk.admits(rows[2])  # 1 used, 2 in flight: 3 of 3
        answer = await desk.ask(rows[3])
        assert (answer.admitted, answer.exceeded) == (set(), {rows[3].id: Exceeded(limit, Decimal(0))})

    at_desk(store, act)


def test_a_call_that_was_not_counted_gives_its_place_back(store: Store) -> None:
    async def act(desk: Desk) -> None:
        limit, first = a_limit(1), a_hold(limits=(a_limit(1),))
        assert await desk.admits(first)
        assert not await desk.admits(a_hold(limits=(limit,)))
        await desk.settle(first, quantity=Decimal(0), status="error")  # the provider refused it: 0 used
        assert await desk.admits(a_hold(limits=(limit,)))

    at_desk(store, act)


@pytest.mark.parametrize(
    ("measure", "most", "fits", "beyond"),
    [
        # used: 15 tokens and 0.00012 of one settled call; in flight: 100 tokens and 0.5
        ("tokens", "215", {"tokens_most": 100}, {"tokens_most": 101}),
        ("charge", "1.00012", {"charge_most": Decimal("0.5")}, {"charge_most": Decimal("0.500000000001")}),
        ("quantity", "3", {}, None),
        ("calls", "2", {}, None),
    ],
)
def test_what_is_used_and_what_is_in_flight_count_together(
    store: Store, measure: Any, most: str, fits: dict[str, Any], beyond: dict[str, Any] | None
) -> None:
    limit = a_limit(most, measure=measure, **({"since": None, "until": None} if measure == "calls" else {}))
    bounds: dict[str, Any] = {"tokens_most": 100, "charge_most": Decimal("0.5")}

    async def act(desk: Desk) -> None:
        settled = a_hold(limits=(limit,), **bounds)
        await desk.ask(settled)
        await desk.settle(settled)
        assert await desk.admits(a_hold(limits=(limit,), **bounds))
        if beyond is not None:
            assert not await desk.admits(a_hold(limits=(limit,), **beyond))
        assert await desk.admits(a_hold(limits=(limit,), **fits))
        assert not await desk.admits(a_hold(limits=(limit,), tokens_most=1, charge_most=Decimal("1e-12")))

    at_desk(store, act)


@pytest.mark.parametrize(
    ("limit", "counted", "passed_over"),
    [
        (a_limit(1), {}, {"feature": "scans"}),
        (a_limit(1), {}, {"period_start": PERIOD_START - timedelta(days=31), "created_at": PERIOD_START - timedelta(seconds=1)}),
        (a_limit(1, by_period=False, since=DAY, until=DAY + timedelta(days=1)), {}, {"created_at": DAY - timedelta(seconds=1)}),
        (a_limit(1, by_period=False, since=DAY, until=DAY + timedelta(days=1)), {"created_at": DAY}, {"created_at": DAY + timedelta(days=1)}),
        (a_limit(1, feature="", api_key_id=KEY), {"api_key_id": KEY}, {"api_key_id": OTHER_KEY}),
        (a_limit(1, feature="", user_id="ada"), {"user_id": "ada"}, {"user_id": "bob"}),
        (a_limit(1, feature="", user_id="ada"), {"user_id": "ada"}, {}),
        (a_limit(1), {}, {"customer_id": STRANGER}),
    ],
    ids=["feature", "billing period", "day before", "day after", "key", "user", "nobody", "customer"],
)  # fmt: skip
def test_only_what_is_in_the_scope_counts(
    store: Store, limit: Limit, counted: dict[str, Any], passed_over: dict[str, Any]
) -> None:
    def a_call(values: dict[str, Any]) -> HoldRow:
        return a_hold(
            at=values.get("created_at", NOON), **{k: v for k, v in values.items() if k != "created_at"}
        )

    async def act(desk: Desk) -> None:
        asking = msgspec.structs.replace(a_call(counted), limits=(limit,))
        settled, in_flight = a_call(passed_over), a_call(passed_over)  # neither counts
        await desk.ask(settled, in_flight)
        await desk.settle(
            settled, feature=settled.feature, api_key_id=settled.api_key_id, user_id=settled.user_id
        )
        assert await desk.admits(asking)
        await desk.settle(
            asking, feature=asking.feature, api_key_id=asking.api_key_id, user_id=asking.user_id
        )
        assert not await desk.admits(msgspec.structs.replace(asking, id=a_call(counted).id))

    at_desk(store, act)


def test_of_a_batch_as_many_are_taken_as_fit(store: Store) -> None:
    async def act(desk: Desk) -> None:
        rows = [a_hold(limits=(a_limit(3),)) for _ in range(5)]
        answer = await desk.ask(*rows)
        assert (len(answer.admitted), len(answer.exceeded), answer.undecided) == (3, 2, set())

    at_desk(store, act)


@pytest.mark.parametrize(("first", "room"), [(3, 7), (10, 0)])
def test_who_is_refused_is_told_what_there_is_room_for(store: Store, first: int, room: int) -> None:
    """Also of a batch: what those beside it have just taken is taken."""
    limit = a_limit(10, measure="tokens")

    async def act(desk: Desk) -> None:
        taken = a_hold(at=NOON, tokens_most=first, limits=(limit,))
        refused = a_hold(at=NOON + timedelta(seconds=1), tokens_most=8, limits=(limit,))
        held = await desk.ask(taken, refused)
        assert held.exceeded == {refused.id: Exceeded(limit, Decimal(room))}

    at_desk(store, act)


def test_calls_refused_by_one_limit_take_no_room_under_another(store: Store) -> None:
    """Of ten calls nine are beyond the quota of their key, and the tenth is the only one that counts for the customer."""
    of_key, of_all = a_limit(0, api_key_id=KEY), a_limit(1)

    async def act(desk: Desk) -> None:
        refused = [a_hold(limits=(of_key, of_all), api_key_id=KEY) for _ in range(9)]
        last = a_hold(limits=(of_all,))
        answer = await desk.ask(*refused, last)
        assert answer.admitted == {last.id}
        assert set(answer.exceeded) == {row.id for row in refused}

    at_desk(store, act)


def test_what_depends_on_others_of_the_batch_is_asked_again_until_it_is_decided(store: Store) -> None:
    """Two of one key share room for one; with the first of them in, the other does not take the place of a third."""
    of_key, of_all = a_limit(1, api_key_id=KEY), a_limit(2)

    async def act(desk: Desk) -> None:
        first, second = (
            a_hold(at=NOON + timedelta(seconds=one), limits=(of_key, of_all), api_key_id=KEY)
            for one in (0, 1)
        )
        third = a_hold(at=NOON + timedelta(seconds=2), limits=(of_all,))
        held = await decided(desk, [first, second, third])
        assert held.admitted == {first.id, third.id}
        assert held.exceeded == {second.id: Exceeded(of_key, Decimal(0))}

    at_desk(store, act)


async def decided(desk: Desk, rows: Sequence[HoldRow]) -> Held:
    """As the recorder does: what is undecided is asked again."""
    everything, left = Held(set(), {}), list(rows)
    while left:
        answer = await desk.ask(*left)
        everything.admitted |= answer.admitted
        everything.exceeded |= answer.exceeded
        assert len(answer.undecided) < len(left), "no round may end without a decision"
        left = [row for row in left if row.id in answer.undecided]
    return everything


def sound(limit: Limit) -> Limit:
    """Calls at once have no period; the usage of an end user is not kept by feature and key."""
    if limit.measure == "calls":
        limit = msgspec.structs.replace(limit, since=None, until=None)
    if limit.user_id:
        limit = msgspec.structs.replace(limit, feature="", api_key_id=None)
    return limit


limits_drawn = st.lists(
    st.builds(
        a_limit,
        st.integers(0, 6),
        measure=st.sampled_from(["quantity", "tokens", "charge", "calls"]),
        feature=st.sampled_from(["", "api_calls", "scans"]),
        api_key_id=st.sampled_from([None, KEY, OTHER_KEY]),
        user_id=st.sampled_from(["", "ada", "bob"]),
        by_period=st.booleans(),
    ).map(sound),
    min_size=1,
    max_size=4,
    unique=True,
)  # fmt: skip
calls_drawn = st.lists(
    st.fixed_dictionaries(
        {
            "feature": st.sampled_from(["api_calls", "scans"]),
            "api_key_id": st.sampled_from([KEY, OTHER_KEY]),
            "user_id": st.sampled_from(["", "ada", "bob"]),
            "tokens_most": st.integers(0, 3),
            "charge_most": st.sampled_from(["0", "0.5", "1.000000000001"]).map(Decimal),
        }
    ),
    min_size=1,
    max_size=8,
)


def covers(limit: Limit, row: HoldRow) -> bool:
    return (
        limit.feature in ("", row.feature)
        and limit.api_key_id in (None, row.api_key_id)
        and limit.user_id in ("", row.user_id)
    )


class Model:
    """What is used and what is in flight, in two lists."""

    def __init__(self) -> None:
        self.in_flight: list[HoldRow] = []
        self.used: list[HoldRow] = []

    def room(self, limit: Limit) -> Decimal:
        counted = self.in_flight if limit.measure == "calls" else self.in_flight + self.used
        return limit.most - sum((part_of(limit, row) for row in counted if covers(limit, row)), Decimal(0))


@pytest.mark.django_db(transaction=True)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    limits=limits_drawn, batches=st.lists(st.tuples(calls_drawn, st.integers(0, 8)), min_size=1, max_size=4)
)
def test_a_call_is_refused_if_and_only_if_it_does_not_fit(
    limits: list[Limit], batches: list[tuple[list[dict[str, Any]], int]]
) -> None:
    customer, model, instants = uuid4(), Model(), count()
    random.seed(customer.int)  # ids are new in each example

    async def act(desk: Desk) -> None:
        for calls, settled in batches:
            rows = [a_hold(customer, NOON + timedelta(milliseconds=next(instants)), **call) for call in calls]
            for row in rows:
                row.limits = tuple(limit for limit in limits if covers(limit, row))
            held = await decided(desk, rows)
            by_id = {row.id: row for row in rows}
            assert set(held.exceeded).isdisjoint(held.admitted)
            assert set(held.exceeded) | held.admitted == set(by_id)
            model.in_flight += [by_id[hold_id] for hold_id in held.admitted]
            for limit in limits:  # nobody is over
                assert model.room(limit) >= 0 or not any(covers(limit, by_id[one]) for one in held.admitted)
            for (
                hold_id,
                beyond,
            ) in held.exceeded.items():  # and nobody was refused who fits beside those that are in
                assert part_of(beyond.limit, by_id[hold_id]) > model.room(beyond.limit)
            for row in model.in_flight[:settled]:
                await desk.settle(
                    row, feature=row.feature, api_key_id=row.api_key_id, user_id=row.user_id, quantity=Decimal(1),
                    tokens_total=row.tokens_most, charge_total=row.charge_most,
                )  # fmt: skip
                model.used.append(row)
            del model.in_flight[:settled]

    at_desk(current_store(), act)


@pytest.mark.django_db(transaction=True)
def test_many_connections_at_once_never_take_more_than_the_limit_and_never_less() -> None:
    """Eight connections ask for 200 calls where 60 fit; half of what is in flight is settled meanwhile."""
    limit, others = a_limit(60), a_limit(10_000, feature="", measure="tokens")

    async def ask_25(store: Store) -> tuple[int, int]:
        lane, admitted = await store.open_lane("test"), 0
        desk, writer = Desk(lane), uuid4()
        for number in range(25):
            row = a_hold(limits=(limit, others), tokens_most=20)
            if row.id in (await lane.hold(writer, number + 1, [row], None)).admitted:
                admitted += 1
                if number % 2:
                    await desk.settle(row)
        await lane.close()
        return admitted, 25

    async def main() -> None:
        store = current_store()
        found = await asyncio.gather(*(ask_25(store) for _ in range(8)))
        assert sum(admitted for admitted, _ in found) == 60

    asyncio.run(main())


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("lost", ["lose_answers", "lose_requests", "lock"])
def test_a_batch_whose_answer_is_lost_admits_nobody_twice(lost: str) -> None:
    """Ten calls where four fit, and the network loses a batch: four go out, six are refused, and four are in flight."""
    network = LossyStore(current_store())

    async def main() -> None:
        recorder = Recorder(network, OpenGate(), deadline_s=5)
        setattr(network, lost, 1)

        async def call() -> str:
            try:
                return str(await recorder.hold(a_hold(limits=(a_limit(4),))))
            except LimitExceeded as error:
                return error.limit.title

        answers = await asyncio.gather(*(call() for _ in range(10)))
        assert sorted(answers) == ["API calls"] * 6 + ["True"] * 4
        await recorder.stop()

    asyncio.run(main())
    assert Hold.objects.count() == 4


@pytest.mark.django_db(transaction=True)
def test_a_key_that_stands_for_something_else_is_told_so_before_any_limit() -> None:
    claim, other = Claim("ab" * 16, "01" * 16), Claim("ab" * 16, "02" * 16)

    async def act(desk: Desk) -> None:
        first, second = a_hold(claim=claim, limits=(a_limit(5),)), a_hold(claim=other, limits=(a_limit(5),))
        assert await desk.admits(first)
        assert await desk.ask(second) == Held(set(), {}, set())
        assert await desk.lane.conflicting([second]) == {second.id}
        beyond = a_hold(claim=Claim("cd" * 16, "01" * 16), limits=(a_limit(1),))
        assert set((await desk.ask(beyond)).exceeded) == {beyond.id}

    at_desk(current_store(), act)


@pytest.mark.django_db(transaction=True)
def test_a_correction_moves_what_an_end_user_has_used() -> None:
    limit = a_limit("0.5", measure="charge", feature="", user_id="ada")

    async def act(desk: Desk) -> None:
        swept = a_hold(user_id="ada")
        await desk.ask(swept)
        await desk.settle(
            swept, user_id="ada", status="interrupted", charge_total=Decimal(0), execution_id=str(swept.id)
        )
        assert await desk.admits(a_hold(user_id="ada", limits=(limit,), charge_most=Decimal("0.0")))
        late = an_event(swept, user_id="ada", charge_total=Decimal("0.4"))
        assert await desk.lane.correct([late]) == {swept.id}
        assert not await desk.admits(
            a_hold(user_id="ada", limits=(limit,), charge_most=Decimal("0.100000000001"))
        )
        assert await desk.admits(a_hold(user_id="ada", limits=(limit,), charge_most=Decimal("0.1")))

    at_desk(current_store(), act)
    assert DailyUserUsage.objects.get(user_id="ada").charge_total == Decimal("0.4")
    assert rollups.check_day(NOON.date()) == []
    DailyUserUsage.objects.update(charge_total=Decimal("0.3"))
    (drift,) = rollups.check_day(NOON.date())
    assert (drift.user_id, drift.column, drift.events, drift.daily) == (
        "ada", "charge_total", Decimal("0.4"), Decimal("0.3"),
    )  # fmt: skip


def test_a_limit_for_each_end_user_is_one_for_the_user_of_the_call() -> None:
    each, scans = a_limit(5, feature="", each_user=True), a_limit(5, feature="scans")
    assert applying((each, scans), "api_calls", "ada") == (each.for_user("ada"),)
    assert applying((each, scans), "scans", "") == (scans,)
    assert each.for_user("ada").user_id == "ada"


@pytest.mark.parametrize(
    ("limit", "status", "code", "retry_after_s", "retryable"),
    [
        (
            a_limit(5),
            429,
            "quota_exceeded",
            10 * 86_400 + 12 * 3600,
            False,
        ),  # from 20 November, noon, to 1 December
        (a_limit(5, code="budget_exceeded"), 429, "budget_exceeded", 10 * 86_400 + 12 * 3600, False),
        (AT_ONCE, 429, "rate_limited", 1, True),
    ],
)
def test_a_refusal_says_when_to_come_again(
    limit: Limit, status: int, code: str, retry_after_s: int, retryable: bool
) -> None:
    refusal = limit.refusal(NOON)
    assert (refusal.status, refusal.code, refusal.retry_after_s, refusal.retryable) == (
        status,
        code,
        retry_after_s,
        retryable,
    )
    assert " 5 API calls" in refusal.detail or " 2 API calls" in refusal.detail
