"""The one validator at the edge: what passes here, both databases accept.

A value that a database refuses would fail the whole batch it is written with: NUL and lone surrogates in text, integers
beyond 64 bits, amounts that are not finite, documents nested too deep. Text is mended (the offending character becomes
U+FFFD) and cut to its column; a number out of range becomes unknown and marks the event `inconsistent`; nothing raises.
"""

from decimal import Decimal
from typing import Any

import msgspec

from metering.rows import EventRow, HoldRow
from pricing.money import round_amount

TEXT_LIMITS = {
    "api_key_hash": 64, "user_id": 256, "execution_id": 128, "task_type": 64, "endpoint": 256, "method": 16,
    "feature": 64, "provider": 64, "model": 200, "model_requested": 200, "currency": 3, "consistency": 64,
    "extractor": 40, "idempotency_key": 255, "plan": 64, "request_id": 128,
}  # fmt: skip
DOCUMENT_BYTES_MAX = 65_536
COUNT_MAX = 2**53
AMOUNT_MAX = Decimal(10) ** 17  # numeric(30,12) takes 18 digits before the point; leave room for sums
MS_MAX = 2**31 - 1

_COUNTS = ("tokens_input", "tokens_output", "tokens_total")
_AMOUNTS = (
    "model_cost_input",
    "model_cost_output",
    "cost_input",
    "cost_output",
    "cost_total",
    "charge_total",
)
_encode = msgspec.json.Encoder().encode


def clean_text(value: str, limit: int) -> str:
    """`value` without NUL and lone surrogates, at most `limit` characters."""
    if value.isascii():
        if "\0" in value:
            value = value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    else:
        value = value.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    return value if len(value) <= limit else value[:limit]


def clean_document(value: Any) -> tuple[msgspec.Raw, bool]:
    """A JSON document as bytes both databases take, and whether it had to be mended."""
    try:
        encoded = _encode(value)
        if (
            len(encoded) <= DOCUMENT_BYTES_MAX
            and b"\\u0000" not in encoded
            and encoded.count(b"[") + encoded.count(b"{") < 500
        ):
            return msgspec.Raw(encoded), False
    except (TypeError, ValueError, RecursionError, OverflowError):
        pass
    mended = _encode(_mended(value, depth=0))
    if len(mended) > DOCUMENT_BYTES_MAX:
        mended = _encode({"truncated": True, "bytes": len(mended)})
    return msgspec.Raw(mended), True


def _mended(value: Any, depth: int) -> Any:
    if depth > 20:
        return "…"
    if isinstance(value, str):
        return clean_text(value, DOCUMENT_BYTES_MAX)
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return (
            value if abs(value) <= COUNT_MAX else str(value)[:64] if abs(value) < 2**256 else "out of range"
        )
    if isinstance(value, dict):
        return {
            clean_text(str(key), 256): _mended(item, depth + 1) for key, item in list(value.items())[:500]
        }
    if isinstance(value, (list, tuple)):
        return [_mended(item, depth + 1) for item in value[:500]]
    return clean_text(str(value), 1_000)


def clean_hold(row: HoldRow) -> HoldRow:
    """The same row, fit to be written."""
    _clean_texts(row)
    if not _count_fits(row.tokens_input):
        row.tokens_input = None
    return row


def clean_event(row: EventRow) -> EventRow:
    """The same row, fit to be written; what had to be dropped is said in `consistency`."""
    _clean_texts(row)
    mended = False
    for name in _COUNTS:
        if not _count_fits(getattr(row, name)):
            setattr(row, name, None)
            mended = True
    for name in _AMOUNTS:
        if not amount_fits(getattr(row, name)):
            setattr(row, name, None)
            mended = True
            row.pricing_status = "unpriced"
    if not amount_fits(row.quantity) or row.quantity < 0:
        row.quantity, mended = Decimal(0), True
    row.quantity = round_amount(row.quantity)
    for name in ("execution_time", "latency"):
        value = getattr(row, name)
        if value is not None:
            setattr(row, name, min(max(value, 0), MS_MAX))
    for name in ("raw_usage", "buckets", "context", "tags", "metadata", "missing"):
        value = getattr(row, name)
        if value is not None:
            document, was_mended = clean_document(value)
            setattr(row, name, document)
            mended = mended or was_mended
    if mended:
        row.consistency = "inconsistent"
    return row


def _clean_texts(row: HoldRow | EventRow) -> None:
    for name, limit in TEXT_LIMITS.items():
        value = getattr(row, name, None)
        if value and (len(value) > limit or not value.isascii() or "\0" in value):
            setattr(row, name, clean_text(value, limit))


def _count_fits(value: int | None) -> bool:
    return value is None or 0 <= value <= COUNT_MAX


def amount_fits(value: Decimal | None) -> bool:
    """Whether both databases hold the amount, with room for sums."""
    return value is None or (value.is_finite() and abs(value) < AMOUNT_MAX)
