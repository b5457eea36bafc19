"""The gate over snapshots: who is let in, how old its facts may be, what happens while the database is away."""

import asyncio
from datetime import UTC, datetime
from uuid import UUID

import msgspec
import pytest

from billing import admission, keys
from billing.admission import BillingGate, Snapshot, key_in
from billing.bounded import Bounded
from metering.gate import Account
from metering.problem import Refusal

pytestmark = pytest.mark.anyio

SECRET = "tg_live_" + "a" * 32
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)
PAYER = Snapshot(
    customer_id=UUID(int=1),
    api_key_id=UUID(int=2),
    is_active=True,
    plan="payg",
    currency="USD",
    period_anchor=datetime(2026, 1, 31, tzinfo=UTC),
)


class Away(Exception):
    """The database is away."""


class Directory:
    """Keys in memory, with a clock of its own. `away` lets every load fail; `gate` counts loads."""

    def __init__(self) -> None:
        self.snapshots = {keys.digest(SECRET): PAYER}
        self.loads, self.away, self.seconds = 0, False, 1000.0
        self.blocked: asyncio.Event | None = None
        self.gate = BillingGate(self.load, max_stale_s=300, monotonic=lambda: self.seconds)

    async def load(self, digest: str) -> Snapshot | None:
        self.loads += 1
        if self.blocked is not None:
            await self.blocked.wait()
        if self.away:
            raise Away
        return self.snapshots.get(digest)

    async def resolve(self, secret: str = SECRET, at: datetime = AT) -> Account | Refusal:
        return await self.gate.resolve([(b"authorization", b"Bearer " + secret.encode())], at)

    async def account(self, at: datetime = AT) -> Account:
        found = await self.resolve(at=at)
        assert isinstance(found, Account), found
        return found

    async def code(self, secret: str = SECRET) -> str:
        found = await self.resolve(secret)
        assert isinstance(found, Refusal), found
        return found.code


@pytest.fixture
def directory() -> Directory:
    return Directory()


async def settle_loads() -> None:
    """Let loads that run beside the calls come to their end."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_live_key_opens_its_customers_account(directory: Directory) -> None:
    account = await directory.account()
    assert (account.customer_id, account.api_key_id) == (PAYER.customer_id, PAYER.api_key_id)
    assert account.api_key_hash == keys.digest(SECRET)
    assert account.period_start == datetime(2026, 10, 31, tzinfo=UTC)
    assert account.period_end == datetime(2026, 11, 30, tzinfo=UTC)


async def test_a_call_in_the_next_period_gets_the_next_period(directory: Directory) -> None:
    await directory.account()
    later = await directory.account(at=datetime(2026, 11, 30, tzinfo=UTC))
    assert later.period_start == datetime(2026, 11, 30, tzinfo=UTC)
    earlier = await directory.account(at=AT)
    assert earlier.period_end == datetime(2026, 11, 30, tzinfo=UTC)


async def test_an_unknown_key_is_refused_and_costs_one_load_a_second(directory: Directory) -> None:
    other = "tg_live_" + "b" * 32
    assert [await directory.code(other) for _ in range(3)] == ["invalid_api_key"] * 3
    assert directory.loads == 1
    directory.seconds += admission.UNKNOWN_FRESH_S + 0.1
    await directory.code(other)
    assert directory.loads == 2


async def test_what_is_no_key_of_ours_is_refused_without_a_load(directory: Directory) -> None:
    for secret in ("", "sk-proj-123", "tg_" + "x" * 200):
        assert await directory.code(secret) == "invalid_api_key"
    assert directory.loads == 0


async def test_a_key_issued_a_moment_ago_opens_within_a_second(directory: Directory) -> None:
    known = directory.snapshots.pop(keys.digest(SECRET))
    assert await directory.code() == "invalid_api_key"
    directory.snapshots[keys.digest(SECRET)] = known
    directory.seconds += admission.UNKNOWN_FRESH_S + 0.1
    await directory.account()


async def test_a_suspended_customer_is_refused(directory: Directory) -> None:
    directory.snapshots[keys.digest(SECRET)] = msgspec.structs.replace(PAYER, is_active=False)
    assert await directory.code() == "customer_suspended"


async def test_a_revoked_key_is_refused_within_five_seconds(directory: Directory) -> None:
    await directory.account()
    directory.snapshots.clear()
    directory.seconds += admission.STALE_S + 0.1
    assert admission.STALE_S < 5
    assert await directory.code() == "invalid_api_key"


async def test_no_call_waits_while_the_snapshot_is_young_enough(directory: Directory) -> None:
    await directory.account()
    directory.seconds += admission.FRESH_S + 0.1
    directory.blocked = asyncio.Event()
    await directory.account()  # answered while the load behind it hangs
    await settle_loads()
    assert directory.loads == 2
    directory.snapshots.clear()
    directory.blocked.set()
    await settle_loads()
    assert await directory.code() == "invalid_api_key"  # the load beside the call was taken over


async def test_age_counts_from_before_the_read(directory: Directory) -> None:
    directory.blocked = asyncio.Event()
    waiting = asyncio.create_task(directory.resolve())
    await settle_loads()
    directory.seconds += admission.FRESH_S + 0.1  # the load takes that long; its facts may be as old
    directory.blocked.set()
    await waiting
    directory.blocked = None
    await directory.account()
    await settle_loads()
    assert directory.loads == 2


async def test_many_calls_at_once_share_one_load(directory: Directory) -> None:
    directory.blocked = asyncio.Event()
    calls = [asyncio.create_task(directory.resolve()) for _ in range(50)]
    await settle_loads()
    directory.blocked.set()
    answers = await asyncio.gather(*calls)
    assert directory.loads == 1
    assert all(isinstance(answer, Account) for answer in answers)


async def test_known_callers_stay_admitted_while_the_database_is_away(directory: Directory) -> None:
    await directory.account()
    directory.away = True
    directory.seconds += 290
    await directory.account()
    directory.seconds += 20
    assert await directory.code() == "metering_unavailable"


async def test_a_stranger_is_told_to_come_back_while_the_database_is_away(directory: Directory) -> None:
    directory.away = True
    found = await directory.resolve()
    assert isinstance(found, Refusal)
    assert (found.status, found.code, found.retryable) == (503, "metering_unavailable", True)


async def test_an_outage_is_asked_about_once_a_second(directory: Directory) -> None:
    directory.away = True
    for _ in range(10):
        await directory.code()
    assert directory.loads == 1
    directory.away = False
    directory.seconds += admission.RETRY_AFTER_FAILURE_S + 0.1
    await directory.account()


async def test_a_database_that_hangs_is_not_waited_for_by_each_call_anew(directory: Directory) -> None:
    await directory.account()
    directory.seconds += admission.STALE_S + 0.1
    directory.blocked = asyncio.Event()
    first = asyncio.create_task(directory.resolve())
    await settle_loads()
    directory.seconds += admission.LOAD_S_MAX
    await directory.account()
    assert not first.done() and directory.loads == 2
    directory.blocked.set()
    assert isinstance(await first, Account)


async def test_a_call_that_is_cancelled_takes_no_other_along(directory: Directory) -> None:
    directory.blocked = asyncio.Event()
    impatient, patient = (asyncio.create_task(directory.resolve()) for _ in range(2))
    await settle_loads()
    impatient.cancel()
    await settle_loads()
    directory.blocked.set()
    assert isinstance(await patient, Account)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer " + SECRET.encode())],
        [(b"Authorization", b"bearer  " + SECRET.encode())],
        [(b"x-api-key", SECRET.encode())],
        [(b"x-goog-api-key", SECRET.encode())],
        [(b"authorization", b"Bearer host-application-token"), (b"x-api-key", SECRET.encode())],
    ],
)
async def test_the_key_is_found_where_the_official_clients_put_it(headers: list[tuple[bytes, bytes]]) -> None:
    assert key_in(headers) == SECRET.encode()


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", SECRET.encode())],
        [(b"cookie", SECRET.encode())],
        [(b"authorization", b"Basic dGc6dGc=")],
    ],
)
async def test_no_other_header_holds_a_key(headers: list[tuple[bytes, bytes]]) -> None:
    assert key_in(headers) is None


async def test_what_was_used_longest_ago_is_forgotten_first() -> None:
    kept: Bounded[int] = Bounded(2)
    kept.put("a", 1)
    kept.put("b", 2)
    kept.get("a")
    kept.put("c", 3)
    assert [kept.get(name) for name in "abc"] == [1, None, 3]
    assert len(kept) == 2
