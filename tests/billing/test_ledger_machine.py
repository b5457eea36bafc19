"""Any sequence of grants, holds, settles, releases, expiries, refunds and deductions, against a model of a few dictionaries.

The databases are real, and so is the SQL that the recorder runs. After each step the balance is what the model says; at the
end the auditor, which shares no code with either, adds the whole ledger up again.
"""

import asyncio
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any
from uuid import UUID, uuid4

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
from metering.rows import HoldRow
from metering.store.base import Lane
from metering.wiring import current_store
from tests.billing.rows import payer
from tests.metering.rows import NOON, a_hold, an_event

# Few different amounts, so that things fit exactly, or miss by the last digit.
AMOUNTS = st.sampled_from(["0.000000000001", "0.3", "0.999999999999", "1", "2.5", "7"]).map(Decimal)
MINUTES = st.integers(0, 3)
EXAMPLES = count()


class LedgerMachine(RuleBasedStateMachine):
    """`grants`: what is left of each by burn order; `holds`: what each call has reserved."""

    holds, made = Bundle("holds"), Bundle("made")

    @initialize(hard=st.booleans())
    def open(self, hard: bool) -> None:
        self.customer, _ = payer(f"payer-{uuid4()}")
        ledger.set_hard(self.customer, hard=hard)
        # Hypothesis seeds the generator that ids come from: another hour for each example keeps them apart.
        self.hard, self.now = hard, NOON + timedelta(hours=next(EXAMPLES))
        self.left: dict[tuple[int, datetime, int], Decimal] = {}  # by (priority, expiry, age)
        self.reserved: dict[UUID, Decimal] = {}
        self.used = self.not_covered = Decimal(0)
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
        self.left[place] = amount
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

    @rule(call=holds, charge=AMOUNTS | st.just(Decimal(0)), times=st.integers(1, 2))
    def settle(self, call: HoldRow, charge: Decimal, times: int) -> None:
        for _ in range(times):
            event = an_event(call, charge_total=charge, on_credit=True)
            ended = self.runner.run(self.lane.settle(uuid4(), 1, [event], self.gate.settle([event])))
            assert ended == ({call.id} if call.id in self.reserved else set())
            if call.id in self.reserved:
                paid = min(charge, self.free + self.reserved.pop(call.id))
                self.used += charge
                self.not_covered += charge - paid
                self._burn(paid)

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
        assert (row.written_off, row.receivable) == (
            (self.not_covered, 0) if self.hard else (0, self.not_covered)
        )

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
            assert total(spent) <= total(into), "nobody spends what was not granted"
        finally:
            self.runner.run(self.lane.close())
            self.runner.close()

    def _burn(self, amount: Decimal) -> None:
        for place in sorted(self.left):
            part = min(self.left[place], amount)
            self.left[place] -= part
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
