"""The ledger: every act that moves a customer's credits, but for what calls do (`billing.ledger_sql`).

An act takes one customer a transaction and locks that balance row first, so that none can deadlock with another or with the
recorder. Each has a business key: the same key with the same content again is "already there", with other content it raises
EntryConflict. What was posted is never edited; what takes it back is a new entry.

    act            from → to              what it may not exceed
    grant          bought|granted → available
    refund         available → refunded   what is left of the grant, and what is free
    deduct         available → adjustment what is free
    expire         available → expired    what is left of the grant, and what is free: a call in flight keeps its reserve
    a call         available → consumed   its own reserve and what is free; the rest is written_off or receivable

Which grant paid for what calls consumed is settled before anything changes the order in which grants burn (`_charge_grants`),
so it never depends on when somebody looks.
"""

import logging
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from django.db import transaction

from billing.models import Account, Balance, Customer, Entry, Grant, GrantUse
from metering.ids import NIL, uuid7
from pricing.money import round_amount

log = logging.getLogger("billing.ledger")

ZERO = Decimal(0)
AMOUNT_BELOW = Decimal(10**12)


class LedgerError(Exception):
    """An act that the books do not allow. Nothing was written; the text says why."""


class EntryConflict(LedgerError):
    """The key was used before, for something else."""


class NotCovered(LedgerError):
    """More is to be taken than is there."""


class WrongCurrency(LedgerError):
    """A customer's credits are in the customer's currency."""


class ExpiredAlready(LedgerError):
    """Credits that have expired before they are granted."""


class BadAmount(LedgerError):
    """An amount has to be positive, below a million million, and no finer than 12 decimal places."""


def set_hard(customer: Customer, *, hard: bool) -> Balance:
    """Say whether calls that credits do not cover are refused. Opens the balance where there is none."""
    balance, _ = Balance.objects.get_or_create(
        customer=customer, defaults={"currency": customer.currency, "is_hard": hard}
    )
    if balance.is_hard != hard:
        Balance.objects.filter(pk=balance.pk).update(is_hard=hard)
        balance.is_hard = hard
    return balance


def grant(
    customer: Customer, amount: Decimal, currency: str, *, key: str, at: datetime, kind: str = Grant.Kind.PAID,
    priority: int = 50, expires_at: datetime | None = None, reason: str = "", actor: str = "",
) -> tuple[Grant, bool]:  # fmt: skip
    """Credits for the customer, and whether they are new. Raises EntryConflict, WrongCurrency, BadAmount, ExpiredAlready."""
    _check(amount)
    wanted = {"kind": kind, "amount": amount, "currency": currency, "priority": priority, "expires_at": expires_at, "reason": reason}  # fmt: skip
    with transaction.atomic():
        balance = _locked(customer)
        if currency != balance.currency:
            raise WrongCurrency(f"The customer's credits are in {balance.currency}, not in {currency}.")
        known = Grant.objects.filter(customer=customer, key=key).first()
        if known is not None:
            _same(key, {name: getattr(known, name) for name in wanted}, wanted)
            return known, False
        if expires_at is not None and expires_at <= at:
            raise ExpiredAlready("expires_at lies in the past.")
        _charge_grants(balance, at)
        made = Grant.objects.create(customer=customer, remaining=amount, key=key, created_at=at, **wanted)
        paid = kind == Grant.Kind.PAID
        _enter(
            balance, Entry.Kind.GRANT, Account.BOUGHT if paid else Account.GRANTED, Account.AVAILABLE, amount,
            key=f"grant/{key}", at=at, reason=reason, actor=actor,
        )  # fmt: skip
        return made, True


def refund(
    grant: Grant, amount: Decimal | None = None, *, key: str, at: datetime, reason: str, actor: str = ""
) -> tuple[Entry, bool]:
    """Take back what is left of a grant, or part of it: money returned, or a grant made in error.

    Raises EntryConflict, BadAmount, and NotCovered where less is left or calls in flight have reserved it.
    """
    if amount is not None:
        _check(amount)
    with transaction.atomic():
        balance = _locked(grant.customer)
        known = _known(balance, f"refund/{grant.pk}/{key}", amount)
        if known is not None:
            return known, False
        _charge_grants(balance, at)
        grant.refresh_from_db()
        amount = grant.remaining if amount is None else amount
        if not 0 < amount <= grant.remaining:
            raise NotCovered(f"{grant.remaining.normalize():f} {grant.currency} is left of this grant.")
        return _take(
            balance, grant, amount, Entry.Kind.REFUND, Account.REFUNDED,
            key=f"refund/{grant.pk}/{key}", at=at, reason=reason, actor=actor,
        ), True  # fmt: skip


def deduct(
    customer: Customer, amount: Decimal, *, key: str, at: datetime, reason: str, actor: str = ""
) -> tuple[Entry, bool]:
    """Take credits away, from grants in the order in which they burn. Raises as `refund` does."""
    _check(amount)
    with transaction.atomic():
        balance = _locked(customer)
        known = _known(balance, f"adjustment/{key}", amount)
        if known is not None:
            return known, False
        _charge_grants(balance, at)
        entry = _enter(
            balance, Entry.Kind.ADJUSTMENT, Account.AVAILABLE, Account.ADJUSTMENT, amount,
            key=f"adjustment/{key}", at=at, reason=reason, actor=actor,
        )  # fmt: skip
        for burning, part in _burn(balance.customer_id, amount):
            _use(burning, part, Entry.Kind.ADJUSTMENT, entry, at)
        return entry, True


class SweepIncomplete(Exception):
    """Some customers could not be dealt with; all others were. The next sweep comes back to them."""


def expire_due(at: datetime, *, page: int = 500) -> int:
    """Expire what is left of grants whose time has come; how many were changed. A sweep: whatever it leaves, the next
    one finds, and two at once expire nothing twice. Raises SweepIncomplete, after all others were dealt with."""
    changed, failed, after = 0, 0, NIL
    while True:
        due = Grant.objects.due(at).filter(customer_id__gt=after).order_by("customer_id")
        customers = list(due.values_list("customer_id", flat=True).distinct()[:page])
        for customer in customers:
            try:
                changed += _expire(customer, at)
            except Exception:  # one customer's books must not keep the others' credits from expiring
                log.exception("credits of customer %s could not be expired", customer)
                failed += 1
        if len(customers) < page:
            break
        after = customers[-1]
    if failed:
        raise SweepIncomplete(f"credits of {failed} customers could not be expired")
    return changed


def _expire(customer_id: UUID, at: datetime) -> int:
    changed = 0
    with transaction.atomic():
        balance = Balance.objects.select_for_update().get(pk=customer_id)
        _charge_grants(balance, at)
        for due in Grant.objects.due(at).filter(customer_id=customer_id).in_burn_order():
            part = min(due.remaining, balance.available - balance.held)
            if part > 0:
                number = due.uses.filter(kind=Entry.Kind.EXPIRY).count() + 1
                _take(
                    balance, due, part, Entry.Kind.EXPIRY, Account.EXPIRED, key=f"expiry/{due.pk}/{number}", at=at,
                )  # fmt: skip
                changed += 1
    return changed


def charge_grants(customer: Customer, at: datetime) -> None:
    """Bring `remaining` of the customer's grants up to date with what calls have consumed, for whoever shows them."""
    with transaction.atomic():
        _charge_grants(_locked(customer), at)


def _locked(customer: Customer) -> Balance:
    """The customer's balance, locked until the transaction ends; opened where there is none."""
    Balance.objects.get_or_create(customer=customer, defaults={"currency": customer.currency})
    return Balance.objects.select_for_update().get(pk=customer.pk)


def _charge_grants(balance: Balance, at: datetime) -> None:
    """Charge to the grants what calls have consumed since this was done last: the sum of what is left of them is what is
    available again. What came back goes to those that were used last."""
    left = sum((one.remaining for one in _open(balance.customer_id)), ZERO)
    consumed = left - balance.available
    if consumed > 0:
        for burning, part in _burn(balance.customer_id, consumed):
            _use(burning, part, Entry.Kind.USE, None, at)
    elif consumed < 0:
        for burnt, part in _unburn(balance.customer_id, -consumed):
            _use(burnt, -part, Entry.Kind.USE_RETURNED, None, at)


def _open(customer_id: UUID) -> list[Grant]:
    return list(Grant.objects.open().filter(customer_id=customer_id).in_burn_order())


def _burn(customer_id: UUID, amount: Decimal) -> Iterator[tuple[Grant, Decimal]]:
    """The grants that pay an amount, and how much each."""
    for burning in _open(customer_id):
        part = min(burning.remaining, amount)
        amount -= part
        yield burning, part
        if not amount:
            return
    raise AssertionError(f"grants of customer {customer_id} are short of what is available by {amount}")


def _unburn(customer_id: UUID, amount: Decimal) -> Iterator[tuple[Grant, Decimal]]:
    """The grants that an amount goes back to, the last burnt first, and how much each."""
    used = Grant.objects.filter(customer_id=customer_id, uses__isnull=False).distinct().in_burn_order()
    for burnt in reversed(used):
        part = min(_used_by_calls(burnt), amount)
        if part:
            amount -= part
            yield burnt, part
        if not amount:
            return
    raise AssertionError(f"{amount} came back to customer {customer_id} that no grant had paid")


def _used_by_calls(grant: Grant) -> Decimal:
    kinds = (Entry.Kind.USE, Entry.Kind.USE_RETURNED)
    return sum((use.amount for use in grant.uses.filter(kind__in=kinds)), ZERO)


def _use(grant: Grant, amount: Decimal, kind: str, entry: Entry | None, at: datetime) -> None:
    grant.remaining -= amount
    grant.save(update_fields=["remaining"])
    GrantUse.objects.create(grant=grant, kind=kind, amount=amount, entry=entry, created_at=at)


def _take(
    balance: Balance, grant: Grant, amount: Decimal, kind: str, account: Account, *,
    key: str, at: datetime, reason: str = "", actor: str = "",
) -> Entry:  # fmt: skip
    """Move what is left of one grant out of what is available."""
    entry = _enter(
        balance, kind, Account.AVAILABLE, account, amount, key=key, at=at, reason=reason, actor=actor
    )
    _use(grant, amount, kind, entry, at)
    return entry


# What an entry adds to a column of the balance row, by the account on the other side of `available`.
_COLUMNS = {
    Account.BOUGHT: ("bought", 1), Account.GRANTED: ("granted", 1),
    Account.EXPIRED: ("expired", 1), Account.REFUNDED: ("refunded", 1), Account.ADJUSTMENT: ("adjusted", -1),
}  # fmt: skip


def _enter(
    balance: Balance, kind: str, debit: Account, credit: Account, amount: Decimal, *,
    key: str, at: datetime, reason: str, actor: str,
) -> Entry:  # fmt: skip
    """Write the entry and move the locked balance row by it. Raises NotCovered."""
    into = credit == Account.AVAILABLE
    column, sign = _COLUMNS[debit if into else credit]
    if not into and amount > balance.available - balance.held:
        free = balance.available - balance.held
        raise NotCovered(
            f"{free.normalize():f} {balance.currency} is free: the rest is spent, or reserved by calls in flight."
        )
    balance.available += amount if into else -amount
    setattr(balance, column, getattr(balance, column) + sign * amount)
    if into:
        balance.full, balance.full_since = balance.available, at
    balance.save(update_fields=["available", column, "full", "full_since"])
    entry = Entry(
        id=uuid7(at), customer_id=balance.customer_id, key=key, posting_id=uuid7(at), kind=kind, debit=debit, credit=credit,
        amount=amount, currency=balance.currency, created_at=at, reason=reason, actor=actor,
    )  # fmt: skip
    entry.save(force_insert=True)
    return entry


def _known(balance: Balance, key: str, amount: Decimal | None) -> Entry | None:
    """The entry of this key, if it was made before. Raises EntryConflict where that was of another amount (None: of any)."""
    known = Entry.objects.filter(customer_id=balance.customer_id, key=key).first()
    if known is not None and amount is not None:
        _same(key, {"amount": known.amount}, {"amount": amount})
    return known


def _same(key: str, there: dict[str, object], wanted: dict[str, object]) -> None:
    differing = [name for name, value in wanted.items() if there[name] != value]
    if differing:
        raise EntryConflict(f"The key {key!r} was used before with another {', '.join(differing)}.")


def _check(amount: Decimal) -> None:
    if not amount.is_finite() or not 0 < amount < AMOUNT_BELOW or amount != round_amount(amount):
        raise BadAmount(
            "An amount has to be positive, below a million million, and no finer than 12 decimal places."
        )
