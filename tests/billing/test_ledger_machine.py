"""Any sequence of grants, holds, settles, corrections, releases, expiries, refunds and deductions, under a limit that turns hard
and soft, against a model of a few dictionaries.

The databases are real, and so is the SQL that the recorder runs. After each step the balance is what the model says; at the
end the auditor, which shares no code with either, adds the whole ledger up again.
"""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from billing import ledger
from billing.accounts import AccountLoader
from billing.admission import BillingGate
from billing.ledger_check import check_ledger
from billing.models import Balance, Entry, Grant
from metering.rows import EventRow, HoldRow
from metering.store.base import Lane
from metering.wiring import current_store
from tests.billing.rows import payer
from tests.metering.rows import NOON, a_hold, an_event
from tests.metering.test_corrections import a_correction

# Few different amounts, so that things fit exactly, or miss by the last digit.
AMOUNTS = st.sampled_from(["0.000000000001", "0.3", "0.999999999999", "1", "2.5", "7"]).map(Decimal)
MINUTES = st.integers(0, 3)
EXAMPLES = count()


class LedgerMachine(RuleBasedStateMachine):
    """`left` and `spent`: what is left of each grant and what calls spent of it, by burn order; `reserved`: what each call has
    reserved; `charged`: each event as corrected, and how often it was."""

    holds, made, events = Bundle("holds"), Bundle("made"), Bundle("events")

    @initialize(hard=st.booleans())
    def open(self, hard: bool) -> None:
        self.customer, _ = payer(f"payer-{uuid4()}")
        ledger.set_hard(self.customer, hard=hard)
        # Hypothesis seeds the generator that ids come from: another hour for each example keeps them apart.
        self.hard, self.now = hard, NOON + timedelta(hours=next(EXAMPLES))
        self.left: dict[tuple[int, datetime, int], Decimal] = {}  # by (priority, expiry, age)
        self.spent: dict[tuple[int, datetime, int], Decimal] = {}
        self.reserved: dict[UUID, Decimal] = {}
        self.charged: dict[UUID, tuple[EventRow, int]] = {}
        self.used = self.written_off = self.owed = Decimal(0)
        self.runner = asyncio.Runner()
        self.gate = BillingGate(AccountLoader().load)
        self.lane: Lane = self.runner.run(current_store().open_lane("machine"))

    @property
    def available(self) -> Decimal:
        return sum(self.left.values(), Decimal(0))

    @property
    def free(self) -> Decimal:
        return self.available - sum(self.reserved.values())

    @rule(
        target=made,
        amount=AMOUNTS,
        priority=st.integers(0, 2),
        minutes=st.none() | st.integers(1, 3),
        paid=st.booleans(),
    )
    def grant(self, amount: Decimal, priority: int, minutes: int | None, paid: bool) -> Any:
        expires = None if minutes is None else self.now + timedelta(minutes=minutes)
        made, new = ledger.grant(
            self.customer, amount, "USD", key=str(uuid4()), at=self.now, kind="paid" if paid else "promotional",
            priority=priority, expires_at=expires,
        )  # fmt: skip
        assert new
        place = (priority, expires or datetime.max.replace(tzinfo=NOON.tzinfo), len(self.left))
        self.left[place], self.spent[place] = amount, Decimal(0)
        return made, place

    @rule(grant=made)
    def grant_again(self, grant: Any) -> None:
        made, _ = grant
        known = {"kind": made.kind, "priority": made.priority, "expires_at": made.expires_at}
        assert ledger.grant(self.customer, made.amount, "USD", key=made.key, at=self.now, **known) == (
            made,
            False,
        )

    @rule(target=holds, amounts=st.lists(AMOUNTS | st.just(Decimal(0)), min_size=1, max_size=4))
    def hold(self, amounts: list[Decimal]) -> Any:
        calls = [a_hold(self.customer.pk, self.now, amount=amount) for amount in amounts]
        admitted = self.runner.run(self.lane.hold(uuid4(), 1, calls, self.gate.hold(calls))).admitted
        for call in sorted(calls, key=lambda call: (call.amount, call.id)):
            fits = call.amount <= self.free
            assert (call.id in admitted) == (fits or call.amount == 0), (
                "refused if and only if it does not fit"
            )
            if call.id in admitted:
                self.reserved[call.id] = call.amount
        return multiple(*(call for call in calls if call.id in admitted))

    @rule(target=events, call=holds, charge=AMOUNTS | st.just(Decimal(0)), times=st.integers(1, 2))
    def settle(self, call: HoldRow, charge: Decimal, times: int) -> Any:
        settled = []
        for _ in range(times):
            event = an_event(call, charge_total=charge, on_credit=True)
            ended = self.runner.run(self.lane.settle(uuid4(), 1, [event], self.gate.settle([event])))
            assert ended == ({call.id} if call.id in self.reserved else set())
            if call.id in self.reserved:
                self._charge(charge, self.free + self.reserved.pop(call.id))
                self.charged[event.id] = event, 0
                settled.append(event.id)
        return multiple(*settled)

    @rule(
        target=events,
        charges=st.tuples(AMOUNTS, AMOUNTS | st.just(Decimal(0))),
        limits=st.tuples(st.booleans(), st.booleans()),
    )
    def call_and_correct(self, charges: tuple[Decimal, Decimal], limits: tuple[bool, bool]) -> Any:
        """All of it at once: one after the other these rules seldom meet."""
        self.hard = ledger.set_hard(self.customer, hard=limits[0]).is_hard
        (call,) = self.hold([Decimal(0)]).values
        (event,) = self.settle(call, charges[0], 1).values
        self.correct(event, charges[1], limits[1])
        return event

    @rule(event=events, charge=AMOUNTS | st.just(Decimal(0)), hard=st.booleans())
    def correct(self, event: UUID, charge: Decimal, hard: bool) -> None:
        """The grants are brought up to date before and after: what comes back goes to those that had paid by then."""
        self.hard = ledger.set_hard(self.customer, hard=hard).is_hard
        before, revision = self.charged[event]
        assert before.charge_total is not None
        ledger.charge_grants(self.customer, self.now)
        change = a_correction(before, revision + 1, at=self.now, charge_total=charge)
        assert self.runner.run(self.lane.amend([change])) == {event}
        ledger.charge_grants(self.customer, self.now)
        self.charged[event] = msgspec.structs.replace(before, charge_total=charge), revision + 1
        if charge > before.charge_total:
            self._charge(charge - before.charge_total, self.free)
        else:
            self._give_back(before.charge_total - charge)

    @rule(call=holds)
    def release(self, call: HoldRow) -> None:
        self.runner.run(self.lane.release([call]))
        self.reserved.pop(call.id, None)

    @rule(minutes=MINUTES)
    def expire(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        ledger.expire_due(self.now)
        for place in sorted(self.left):
            if place[1] <= self.now:
                self.left[place] -= min(self.left[place], self.free)

    @rule(grant=made, amount=AMOUNTS)
    def refund(self, grant: Any, amount: Decimal) -> None:
        made, place = grant
        if amount > min(self.left[place], self.free):
            with pytest.raises(ledger.NotCovered):
                ledger.refund(made, amount, key=str(uuid4()), at=self.now, reason="")
        else:
            ledger.refund(made, amount, key=str(uuid4()), at=self.now, reason="")
            self.left[place] -= amount

    @rule(amount=AMOUNTS)
    def deduct(self, amount: Decimal) -> None:
        if amount > self.free:
            with pytest.raises(ledger.NotCovered):
                ledger.deduct(self.customer, amount, key=str(uuid4()), at=self.now, reason="")
        else:
            ledger.deduct(self.customer, amount, key=str(uuid4()), at=self.now, reason="")
            self._burn(amount)

    @invariant()
    def the_balance_is_what_the_model_says(self) -> None:
        if not hasattr(self, "customer"):
            return
        row = Balance.objects.get(customer=self.customer)
        assert (row.available, row.held) == (self.available, sum(self.reserved.values()))
        assert row.consumed == self.used
        assert (row.written_off, row.receivable) == (self.written_off, self.owed)

    def teardown(self) -> None:
        if not hasattr(self, "customer"):
            return
        try:
            ledger.charge_grants(self.customer, self.now)
            left = [grant.remaining for grant in Grant.objects.filter(customer=self.customer).in_burn_order()]
            assert left == [self.left[place] for place in sorted(self.left)], "each grant burns in its order"
            assert list(check_ledger()) == []
            into = Entry.objects.filter(customer_id=self.customer.pk, debit__in=("bought", "granted"))
            spent = Entry.objects.filter(customer_id=self.customer.pk, debit="available", credit="consumed")
            back = Entry.objects.filter(customer_id=self.customer.pk, debit="consumed", credit="available")
            assert total(spent) - total(back) <= total(into), "nobody spends what was not granted"
        finally:
            self.runner.run(self.lane.close())
            self.runner.close()

    def _charge(self, amount: Decimal, within: Decimal) -> None:
        paid = min(amount, within)
        self.used += amount
        self._burn(paid, by_calls=True)
        if self.hard:
            self.written_off += amount - paid
        else:
            self.owed += amount - paid

    def _give_back(self, amount: Decimal) -> None:
        """First what was never paid (what the limit of today would not charge, then the other), then what grants paid."""
        self.used -= amount
        for account in ("written_off", "owed") if self.hard else ("owed", "written_off"):
            part = min(amount, getattr(self, account))
            setattr(self, account, getattr(self, account) - part)
            amount -= part
        for place in sorted(self.left, reverse=True):
            part = min(self.spent[place], amount)
            self.left[place] += part
            self.spent[place] -= part
            amount -= part
        assert amount == 0

    def _burn(self, amount: Decimal, *, by_calls: bool = False) -> None:
        for place in sorted(self.left):
            part = min(self.left[place], amount)
            self.left[place] -= part
            self.spent[place] += part if by_calls else 0
            amount -= part
        assert amount == 0


def total(entries: Any) -> Decimal:
    return sum((entry.amount for entry in entries), Decimal(0))


@pytest.mark.django_db(transaction=True)
def test_any_sequence_of_acts_leaves_the_ledger_as_the_model_says() -> None:
    run_state_machine_as_test(
        LedgerMachine,
        settings=settings(
            max_examples=50, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
