"""The ledger's part in the recorder's transactions: what admitting, settling and correcting do to a customer's balance.

Texts of SQL for both databases, and no Django: the gate hands them to the recorder, which runs them within its own
statement. Everything else that touches the ledger is `billing.ledger`.

A balance row says of one customer, in the customer's currency:

    available = bought + granted + adjusted - expired - refunded - (consumed - written_off - receivable)
    free      = available - held

`held` is what calls in flight have reserved: the sum of the customer's open holds. What a call comes to is `consumed`. It is
paid from what its own hold reserved and from what is free; what neither covers is `written_off` where the limit is hard,
and `receivable` where it is not. A correction downwards takes back in the opposite order, first what was never paid (both of
these, where the limit was hard at one time and not at another), so that the end is the same as if the charge had been right
at once; what was charged before there was a balance is taken back from `receivable`.
"""

from metering.gate import Contribution

# Smallest first: whoever does not fit then is larger than what is left, so that a refusal is true at that instant. What is
# not covered at the snapshot is not even locked, so a customer who has run dry is answered without a write.
_HOLD = """
wanted as materialized (select customer_id, currency, id, amount, sum(amount) over (partition by customer_id order by amount, id) as upto
    from asked where amount > 0),
least_wanted as materialized (select customer_id, currency, min(amount) as amount from wanted group by customer_id, currency),
purses as materialized (select b.customer_id, b.available - b.held as free from billing_balances b join least_wanted l
    on l.customer_id = b.customer_id and l.currency = b.currency
    where b.available - b.held >= l.amount order by b.customer_id for update of b),
fitting as materialized (select w.customer_id, w.id, w.amount from wanted w join purses p using (customer_id) where w.upto <= p.free),
reserved as (update billing_balances b set held = b.held + f.amount
    from (select customer_id, sum(amount) as amount from fitting group by customer_id) f where b.customer_id = f.customer_id),
admitted as (select customer_id, id from fitting union all select customer_id, id from asked where amount = 0)"""

_HOLD_ROW = """update billing_balances set held = held + :amount
where customer_id = :customer_id and currency = :currency and available - held >= :amount"""

HOLD = Contribution(ctes=_HOLD, row_statements=(_HOLD_ROW,))


def _shares(most: str, least: str, charge: str, held: str) -> dict[str, str]:
    """What of a charge each of three accounts bears, as SQL over the balance row; negative for a correction downwards."""
    uncovered = f"{most}(0, {charge} - {most}(0, b.available - b.held + {held}))"
    back, owed = f"(-({charge}))", f"{most}(0, b.receivable)"
    unpaid = f"{least}({back}, b.written_off + {owed})"
    burnt = f"{most}(0, b.consumed - b.written_off - b.receivable)"
    forgiven = f"case when b.is_hard then {least}({back}, b.written_off) else {least}(b.written_off, {most}(0, {back} - {owed})) end"
    available = (
        f"(case when {charge} > 0 then {charge} - {uncovered} else -{least}({back} - {unpaid}, {burnt}) end)"
    )
    written_off = f"(case when {charge} > 0 then case when b.is_hard then {uncovered} else 0 end else -({forgiven}) end)"
    return {
        "available": available,
        "written_off": written_off,
        "receivable": f"({charge} - {available} - {written_off})",
    }


_ENTRY = "id, customer_id, key, posting_id, kind, debit, credit, amount, currency, created_at, reason, actor"
# The same movement read either way: from an account into `consumed`, or back.
_DIRECTION = """case when amount > 0 then 'use' else 'use_returned' end, case when amount > 0 then source else 'consumed' end,
    case when amount > 0 then 'consumed' else source end, abs(amount)"""
_KEY = "case when amount > 0 then 'use/' else 'back/' end"

_BOOK = f"""
shares as materialized (select b.customer_id, b.currency, k.held, k.charge, k.at, coalesce(k.posting_id, gen_random_uuid()) as posting_id,
    {", ".join(f"{text} as {name}" for name, text in _shares("greatest", "least", "k.charge", "k.held").items())}
    from billing_balances b join booked k on k.customer_id = b.customer_id and k.currency = b.currency
    where k.held <> 0 or k.charge <> 0 order by b.customer_id for update of b),
balanced as (update billing_balances b set held = b.held - s.held, consumed = b.consumed + s.charge,
    available = b.available - s.available, written_off = b.written_off + s.written_off, receivable = b.receivable + s.receivable
    from shares s where b.customer_id = s.customer_id),
transfers as (select s.customer_id, s.currency, s.at, s.posting_id, t.source, t.amount from shares s
    cross join lateral (values ('available', s.available), ('written_off', s.written_off), ('receivable', s.receivable)) as t(source, amount)),
entered as (insert into billing_entries ({_ENTRY})
    select gen_random_uuid(), customer_id, {_KEY} || posting_id || '/' || source, posting_id, {_DIRECTION}, currency, at, '', ''
    from transfers where amount <> 0)"""

# SQLite runs one statement after the other: the entries first, from the balance as it stands, then the balance.
_OF_ROW = _shares("max", "min", ":charge", ":held")


def _entry_row(source: str) -> str:
    return f"""insert into billing_entries ({_ENTRY})
select lower(hex(randomblob(16))), customer_id, {_KEY} || :entry_id || '/' || source, :posting_id, {_DIRECTION}, :currency, :at, '', ''
from (select customer_id, '{source}' as source, {_OF_ROW[source]} as amount from billing_balances b
    where customer_id = :customer_id and currency = :currency) where amount <> 0"""


_BALANCE_ROW = f"""update billing_balances as b set held = held - :held, consumed = consumed + :charge,
    available = available - {_OF_ROW["available"]}, written_off = written_off + {_OF_ROW["written_off"]},
    receivable = receivable + {_OF_ROW["receivable"]}
where customer_id = :customer_id and currency = :currency"""

BOOKS = Contribution(ctes=_BOOK, row_statements=(*map(_entry_row, _OF_ROW), _BALANCE_ROW))
