"""What PostgreSQL's statement for holds says of limits, for batches in which a call has any: parts of the one statement.

Usage is read from daily usage and from the holds in flight. That is exact because whoever decides holds of a customer who has
limits locks that customer first (`LOCK`), in a statement of its own that goes out in the same flush: the next one sees what
all before it have committed, and nobody else decides meanwhile. Settlements need no such lock, for they move a call from the
holds to daily usage in one transaction.

A hold that alone does not fit is refused; of those that do, as many as fit together are taken, the oldest first. Who does not
fit beside them is refused by what was really taken. What that does not decide is asked again (`n` -1): it depends on calls
that another limit, or the gate, refused.
"""

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

from metering.limits import Exceeded, Limit, part_of
from metering.rows import HoldRow
from metering.store.base import Held

UNDECIDED = -1
Verdict = tuple[
    UUID, int | None, Decimal | None
]  # a hold; the number of the limit that it is beyond, with its room

LOCK = """select pg_advisory_xact_lock(lock) from
    (select distinct hashtextextended(customer, 0) as lock from unnest($1::text[]) as customer order by lock) as locks"""

_RECORD = """n integer, customer_id uuid, measure text, most numeric, since timestamptz, until timestamptz, by_period boolean,
    feature text, api_key_id uuid, user_id text"""
_DAYS = "(l.since at time zone 'UTC')::date and u.day < (l.until at time zone 'UTC')::date"
_SCOPE = (
    "(l.feature = '' or {t}.feature = l.feature) and (l.api_key_id is null or {t}.api_key_id = l.api_key_id)"
)
_USED = (
    "case l.measure when 'tokens' then u.tokens_total when 'charge' then u.charge_total else u.quantity end"
)
_OF_CUSTOMER = f"select {_USED} as used from daily_usage u where l.user_id = '' and u.customer_id = l.customer_id and {_SCOPE.format(t='u')}"
_OF_USER = f"select {_USED} from daily_user_usage u where l.user_id <> '' and u.customer_id = l.customer_id and u.user_id = l.user_id"

ROOMS = f"""
limits as materialized (select * from json_to_recordset(%(limits)s::json) as l({_RECORD})),
rooms as materialized (select l.n, l.most - coalesce(used.sum, 0) - coalesce(in_flight.sum, 0) as room from limits l
    cross join lateral (select sum(used) from (
        {_OF_CUSTOMER} and l.by_period and u.period_start = l.since
        union all {_OF_CUSTOMER} and not l.by_period and u.day >= {_DAYS}
        union all {_OF_USER} and l.by_period and u.period_start = l.since
        union all {_OF_USER} and not l.by_period and u.day >= {_DAYS}) as all_used) as used
    cross join lateral (select sum(case l.measure when 'tokens' then coalesce(o.tokens_most, 0)
            when 'charge' then coalesce(o.charge_most, 0) else 1 end)
        from usage_holds o where o.customer_id = l.customer_id and {_SCOPE.format(t="o")}
        and (l.user_id = '' or o.user_id = l.user_id)
        and (l.since is null or o.created_at >= l.since and o.created_at < l.until)) as in_flight)"""

LIMITED = f"""{ROOMS},
parts as materialized (select p.n, p.id, p.part from json_to_recordset(%(parts)s::json) as p(n integer, id uuid, part numeric)
    join wanted_holds w using (id)),
beyond as materialized (select distinct on (p.id) p.id, p.n, r.room from parts p join rooms r using (n) where p.part > r.room
    order by p.id, p.n),
together as materialized (select p.id, bool_and(p.upto <= r.room) as fits from (
    select id, n, sum(part) over (partition by n order by id) as upto from parts where id not in (select id from beyond)) p
    join rooms r using (n) group by p.id),
asked as materialized (select w.* from wanted_holds w where w.id not in (select id from beyond)
    and w.id not in (select id from together where not fits)),"""

# Goes on with the list of common table expressions, and then asks.
VERDICTS = f""", taken as (select p.n, sum(p.part) as part from parts p join admitted a using (id) group by p.n),
late as (select distinct on (t.id) t.id, p.n, r.room - coalesce(k.part, 0) as room from together t
    join parts p using (id) join rooms r using (n) left join taken k using (n)
    where not t.fits and p.part > r.room - coalesce(k.part, 0) order by t.id, p.n)
select id, null::integer, null::numeric from h
union all select id, n, room from beyond
union all select id, n, room from late
union all select id, {UNDECIDED}, null from together where not fits and id not in (select id from late)"""


class Asked(msgspec.Struct):
    """The limits of a batch, each once, and what each hold takes of each."""

    each: list[Limit]
    limits: list[dict[str, Any]]
    parts: list[dict[str, Any]]

    def held(self, found: Iterable[Verdict]) -> Held:
        """What the statement has answered."""
        held = Held(admitted=set(), exceeded={}, undecided=set())
        for hold_id, n, room in found:
            if n is None:
                held.admitted.add(hold_id)
            elif n == UNDECIDED:
                held.undecided.add(hold_id)
            else:
                held.exceeded[hold_id] = Exceeded(self.each[n], room or Decimal(0))
        return held


def asked_of(rows: Sequence[HoldRow]) -> Asked:
    """What a batch asks of its limits."""
    numbers: dict[tuple[UUID, Limit], int] = {}
    parts = []
    for row in rows:
        for limit in row.limits:
            n = numbers.setdefault((row.customer_id, limit), len(numbers))
            parts.append({"n": n, "id": row.id, "part": part_of(limit, row)})
    limits = [document_of(n, customer_id, limit) for (customer_id, limit), n in numbers.items()]
    return Asked([limit for _, limit in numbers], limits, parts)


def document_of(n: int, customer_id: UUID, limit: Limit) -> dict[str, Any]:
    """A limit of a customer as the statement reads it."""
    return {"n": n, "customer_id": customer_id, **{name: getattr(limit, name) for name in _FIELDS}}


_FIELDS = ("measure", "most", "since", "until", "by_period", "feature", "api_key_id", "user_id")
