"""The one validator at the edge: what passes here, both databases accept.

A value that a database refuses would fail the whole batch it is written with: NUL and lone surrogates in text, integers
beyond 64 bits, amounts that are not finite, documents nested too deep. Text is mended (the offending character becomes
U+FFFD) and cut to its column; a number out of range becomes unknown and marks the event `inconsistent`; nothing raises.
"""

from collections.abc import Callable
from decimal import Decimal
from operator import attrgetter, le
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

_AMOUNT_DIGITS = AMOUNT_MAX.adjusted()

_COUNTS = ("tokens_input", "tokens_output", "tokens_total")
_AMOUNTS = (
    "model_cost_input",
    "model_cost_output",
    "cost_input",
    "cost_output",
    "cost_total",
    "charge_total",
)
DOCUMENTS = ("raw_usage", "buckets", "context", "tags", "metadata", "missing")
_counts, _amounts, _documents = attrgetter(*_COUNTS), attrgetter(*_AMOUNTS), attrgetter(*DOCUMENTS)
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


class _Texts:
    """The texts of one kind of row. Nearly all rows need nothing: they are looked at together, and singly where they do."""

    def __init__(self, kind: type[HoldRow | EventRow]) -> None:
        self._limits = {name: limit for name, limit in TEXT_LIMITS.items() if name in kind.__struct_fields__}
        self._longest = tuple(self._limits.values())
        self._values: Callable[[Any], tuple[str, ...]] = attrgetter(*self._limits)

    def clean(self, row: HoldRow | EventRow) -> None:
        values = self._values(row)
        if not self._are_plain(values):
            for (name, limit), value in zip(self._limits.items(), values, strict=True):
                if value:
                    setattr(row, name, clean_text(value, limit))

    def _are_plain(self, values: tuple[str, ...]) -> bool:
        try:
            text = "".join(values)
        except TypeError:  # one of them is None
            return False
        return text.isascii() and "\0" not in text and all(map(le, map(len, values), self._longest))


_HOLD_TEXTS, _EVENT_TEXTS = _Texts(HoldRow), _Texts(EventRow)


def clean_hold(row: HoldRow) -> HoldRow:
    """The same row, fit to be written."""
    _HOLD_TEXTS.clean(row)
    if row.tokens_input is not None and not 0 <= row.tokens_input <= COUNT_MAX:
        row.tokens_input = None
    return row


def clean_event(row: EventRow) -> EventRow:
    """The same row, fit to be written; what had to be dropped is said in `consistency`."""
    _EVENT_TEXTS.clean(row)
    mended = False
    for name, count in zip(_COUNTS, _counts(row), strict=True):
        if count is not None and not 0 <= count <= COUNT_MAX:
            setattr(row, name, None)
            mended = True
    for name, amount in zip(_AMOUNTS, _amounts(row), strict=True):
        if amount is not None and not amount_fits(amount):
            setattr(row, name, None)
            mended = True
            row.pricing_status = "unpriced"
    if not amount_fits(row.quantity) or row.quantity < 0:
        row.quantity, mended = Decimal(0), True
    row.quantity = round_amount(row.quantity)
    if row.execution_time is not None and not 0 <= row.execution_time <= MS_MAX:
        row.execution_time = min(max(row.execution_time, 0), MS_MAX)
    if row.latency is not None and not 0 <= row.latency <= MS_MAX:
        row.latency = min(max(row.latency, 0), MS_MAX)
    for name, value in zip(DOCUMENTS, _documents(row), strict=True):
        if value is not None and not (type(value) is dict and not value):
            document, was_mended = clean_document(value)
            setattr(row, name, document)
            mended = mended or was_mended
    if mended:
        row.consistency = "inconsistent"
    return row


def amount_fits(value: Decimal | None) -> bool:
    """Whether both databases hold the amount, with room for sums."""
    return value is None or (
        value.is_finite() and (value.adjusted() < _AMOUNT_DIGITS or abs(value) < AMOUNT_MAX)
    )
