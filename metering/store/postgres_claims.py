"""What PostgreSQL's statements say of idempotency keys, for batches in which a call brought one: parts of the one statement.

The order of locks is that of the whole product: writer → holds → keys → daily usage → what the gate contributes, the keys
sorted. The rule is that of `metering.store.claims`, over all attempts at once that a batch holds for a key.
"""

from collections.abc import Iterable

# A key is claimed by whoever is first. The update changes nothing: it makes the statement wait for one that claims the
# same key just now, and read what that one wrote, which its own snapshot would not show.
# `{asked}`: what the next part of the statement reads.
CLAIMED = """
claims as materialized (select customer_id, id, created_at, decode(claim ->> 'key_hash', 'hex') as key_hash,
    decode(claim ->> 'payload_hash', 'hex') as payload_hash from given where claim is not null),
claimed as (insert into idempotency_keys as k (customer_id, key_hash, payload_hash, occurred_at)
    select distinct on (customer_id, key_hash) customer_id, key_hash, payload_hash, created_at
    from claims order by customer_id, key_hash, id
    on conflict (customer_id, key_hash) do update set payload_hash = k.payload_hash
    returning customer_id, key_hash, payload_hash),
{asked} as materialized (select g.* from given g left join claims c using (customer_id, id)
    left join claimed k on k.customer_id = c.customer_id and k.key_hash = c.key_hash
    where c.id is null or k.payload_hash = c.payload_hash),"""

CONFLICTING = """select r.id from json_to_recordset(%(rows)s::json) as r(customer_id uuid, id uuid, claim json)
join idempotency_keys k on k.customer_id = r.customer_id and k.key_hash = decode(r.claim ->> 'key_hash', 'hex')
where k.payload_hash <> decode(r.claim ->> 'payload_hash', 'hex')"""

STANDING = """select event_id, coalesce(charged, 0), coalesce(counted, 0) from idempotency_keys
where customer_id = %(customer)s and key_hash = decode(%(key)s, 'hex')"""

# A correction that depends on how a key stands: the key is locked, and where it stands otherwise by now nothing is written.
_STANDING_RECORD = "answered_by uuid, charged numeric, counted numeric"
KEPT = f"""k as materialized (select k.customer_id, k.event_id, decode(k.key_hash, 'hex') as key_hash,
    b.answered_by, b.charged, b.counted, a.answered_by as answered_by_then, a.charged as charged_then, a.counted as counted_then
    from json_to_recordset(%(keys)s::json) as k(customer_id uuid, event_id uuid, key_hash text, before json, after json)
    cross join json_to_record(k.before) as b({_STANDING_RECORD}) cross join json_to_record(k.after) as a({_STANDING_RECORD})),
kept as materialized (select i.customer_id, i.key_hash from idempotency_keys i join k using (customer_id, key_hash)
    where i.event_id is not distinct from k.answered_by and coalesce(i.charged, 0) = k.charged
    and coalesce(i.counted, 0) = k.counted order by i.customer_id, i.key_hash for update of i),
stale as (select customer_id, event_id from k where (customer_id, key_hash) not in (select customer_id, key_hash from kept)),"""
MOVED = """moved as (update idempotency_keys i set event_id = k.answered_by_then, charged = k.charged_then, counted = k.counted_then
    from k join firsts f using (customer_id, event_id) where i.customer_id = k.customer_id and i.key_hash = k.key_hash),"""

# What the row in hand has to be told: it was rated before its key was asked.
ANSWERED = (
    "b.hold_id, b.judged, b.charge_total, b.quantity, b.pricing_status, b.repeat_of, b.charged_before from "
)

_COMPLETE = "(r.status = 'ok' and r.usage_source <> 'none' or r.status = 'client_disconnected' and r.usage_source = 'reported')"
_BEFORE = "partition by a.customer_id, a.key_hash order by a.hold_id rows between unbounded preceding and 1 preceding"


def booked(fields: Iterable[str]) -> str:
    """CTEs that make `b` of `r`: the same rows, with what of each attempt counts whose hold is in `ended`."""
    changed = {
        "charge_total": """case when j.hold_id is null or r.charge_total is null and j.repeat_of is null then r.charge_total
            when j.repeat_of is not null then 0 else greatest(0, r.charge_total - j.charged_before) end""",
        "quantity": """case when j.hold_id is null then r.quantity when j.repeat_of is not null then 0
            else greatest(0, r.quantity - j.counted_before) end""",
        "pricing_status": """case when j.repeat_of is null or r.pricing_status in ('priced', 'by_plan') then r.pricing_status
            when r.cost_total is not null and r.cost_input is not null and r.cost_output is not null
                and not coalesce(r.missing, '{}') ? coalesce(r.context #>> '{terms,cost_book}', 'cost') then 'priced'
            else 'partial' end""",
        "context": """r.context || jsonb_strip_nulls(jsonb_build_object('repeat_of', j.repeat_of,
            'key', case when j.hold_id is not null and j.repeat_of is null then r.claim ->> 'key_hash' end,
            'charged_before', case when j.charged_before > 0 then trim_scale(j.charged_before)::text end))""",
    }
    columns = ", ".join(f"{changed[name]} as {name}" if name in changed else f"r.{name}" for name in fields)
    return f"""
attempts as materialized (select r.customer_id, r.hold_id, r.id as event_id, r.charge_total, r.quantity,
    {_COMPLETE} as complete, decode(r.claim ->> 'key_hash', 'hex') as key_hash
    from r join ended d on d.customer_id = r.customer_id and d.id = r.hold_id where r.claim is not null),
keys as materialized (select k.customer_id, k.key_hash, k.event_id, k.charged, k.counted from idempotency_keys k
    where (k.customer_id, k.key_hash) in (select customer_id, key_hash from attempts)
    order by k.customer_id, k.key_hash for update of k),
judged as materialized (select a.customer_id, a.hold_id,
    coalesce(k.event_id, (array_agg(a.event_id) filter (where a.complete) over ({_BEFORE}))[1]) as repeat_of,
    greatest(k.charged, max(a.charge_total) over ({_BEFORE}), 0) as charged_before,
    greatest(k.counted, max(a.quantity) over ({_BEFORE}), 0) as counted_before
    from attempts a join keys k using (customer_id, key_hash)),
answered as (update idempotency_keys k set event_id = coalesce(k.event_id, t.event_id),
    charged = greatest(k.charged, t.charged), counted = greatest(k.counted, t.counted)
    from (select a.customer_id, a.key_hash, max(a.charge_total) as charged, max(a.quantity) as counted,
        (array_agg(a.event_id order by a.hold_id) filter (where a.complete))[1] as event_id
        from attempts a join keys using (customer_id, key_hash) group by a.customer_id, a.key_hash) t
    where k.customer_id = t.customer_id and k.key_hash = t.key_hash),
b as materialized (select {columns}, j.hold_id is not null as judged, j.repeat_of, j.charged_before
    from r left join judged j using (customer_id, hold_id)),"""
