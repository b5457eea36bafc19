"""SQL texts that both dialects share: the columns, the sums that go into daily usage, the list of what is unpriced."""

from metering.rows import CORRECTION_COLUMNS, EVENT_COLUMNS, HOLD_COLUMNS

DAILY_KEY = ("customer_id", "period_start", "day", "feature", "provider", "model", "api_key_id")
DAILY_SUMS = (
    "events", "quantity", "tokens_input", "tokens_output", "tokens_total", "cost_total", "charge_total",
    "unpriced_events", "estimated_events",
)  # fmt: skip

USER_KEY = ("customer_id", "user_id", "period_start", "day")
USER_SUMS = ("events", "quantity", "tokens_total", "charge_total")

EVENT_LIST = ", ".join(EVENT_COLUMNS)
HOLD_LIST = ", ".join(HOLD_COLUMNS)
CORRECTION_LIST = ", ".join(CORRECTION_COLUMNS)
DAILY_KEY_LIST = ", ".join(DAILY_KEY)
DAILY_SUM_LIST = ", ".join(DAILY_SUMS)

# What one event adds to each sum: unknown adds nothing, and is counted beside.
EVENT_SUMS = {
    "events": "1",
    "quantity": "{t}quantity",
    "tokens_input": "coalesce({t}tokens_input, 0)",
    "tokens_output": "coalesce({t}tokens_output, 0)",
    "tokens_total": "coalesce({t}tokens_total, 0)",
    "cost_total": "coalesce({t}cost_total, 0)",
    "charge_total": "coalesce({t}charge_total, 0)",
    "unpriced_events": "(case when {t}pricing_status in ('unpriced', 'partial') then 1 else 0 end)",
    "estimated_events": "(case when {t}usage_source in ('estimated', 'reported_partial') then 1 else 0 end)",
}

# What is listed of an event that a rate could still price. Version 0: no rate card has been asked since.
UNPRICED = {
    "customer_id": "{t}customer_id", "event_id": "{t}id", "created_at": "{t}created_at", "occurred_at": "{t}occurred_at",
    "provider": "{t}provider", "model": "{t}model", "missing": "{t}missing", "card_version": "0",
}  # fmt: skip
UNPRICED_LIST = ", ".join(UNPRICED)

USER_KEY_LIST = ", ".join(USER_KEY)
USER_SUM_LIST = ", ".join(USER_SUMS)
USER_ADD = ", ".join(f"{name} = t.{name} + excluded.{name}" for name in USER_SUMS)

DAILY_ADD = ", ".join(f"{name} = t.{name} + excluded.{name}" for name in DAILY_SUMS)

# A refused number makes seq NULL, which the column forbids: the whole batch aborts with it.
WRITER_UPSERT = """
insert into usage_writers as w (id, seq, beat, looks) values ({writer}, {seq}, 0, 0)
on conflict (id) do update set
    seq = case when w.seq = excluded.seq - 1 and w.fenced_at is null then excluded.seq end,
    beat = w.beat + 1
"""


def event_sums(table: str) -> dict[str, str]:
    """The contribution of one event to each daily sum, with the columns of `table` (an alias, or "")."""
    prefix = f"{table}." if table else ""
    return {name: text.format(t=prefix) for name, text in EVENT_SUMS.items()}


def unpriced_values(prefix: str) -> str:
    """What goes into `usage_unpriced` of one event, with its columns behind `prefix` ("r.", ":")."""
    return ", ".join(text.format(t=prefix) for text in UNPRICED.values())
