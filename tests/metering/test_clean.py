"""The validator at the edge: whatever comes in, both databases take what comes out."""

import asyncio
import functools
import re
from decimal import Decimal
from typing import Any, cast
from uuid import uuid4

import pytest
from hypothesis import given, strategies as st

from metering.clean import COUNT_MAX, clean_event, clean_hold, clean_text
from metering.models import QuarantinedRow, UsageEvent
from metering.wiring import current_store
from tests.metering.rows import a_hold, an_event

NESTED: Any = functools.reduce(lambda inner, _: [inner], range(3_000), cast(Any, 1))
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=[])), inner, max_size=4)
    ),
)


@given(st.text(st.characters(exclude_categories=[])), st.integers(1, 300))
def test_text_is_storable_and_short_enough(text: str, limit: int) -> None:
    cleaned = clean_text(text, limit)
    assert len(cleaned) <= limit and "\0" not in cleaned
    cleaned.encode("utf-8")
    assert clean_text(cleaned, limit) == cleaned


def test_plain_text_is_left_alone() -> None:
    assert clean_text("Zürich 東京", 20) == "Zürich 東京"


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "values",
    [
        {"model": "a\0b", "user_id": "\ud800", "execution_id": "x" * 5_000, "task_type": "\udfff\0" * 100},
        {"tokens_input": 2**63, "tokens_output": -1, "tokens_total": COUNT_MAX + 1},
        {"cost_total": Decimal("NaN"), "charge_total": Decimal("Infinity"), "cost_input": Decimal(10) ** 19},
        {"raw_usage": {"a": "\0\ud800", "b": [[[[1]]]], "c": 2**200, "\0": None}},
        {"raw_usage": {"deep": NESTED}},
        {"metadata": {"big": "x" * 1_000_000}},
        {"metadata": {"object": object(), "bytes": b"\xff", "float": float("nan")}},
        {"quantity": Decimal("-Infinity"), "latency": 2**40, "execution_time": -5},
    ],
    ids=["text", "counts", "amounts", "document", "deep", "large", "foreign", "quantity"],
)
def test_the_database_takes_what_was_cleaned(values: dict[str, Any]) -> None:
    hold = clean_hold(a_hold(user_id="\ud800\0", request_id="y" * 999))
    event = clean_event(an_event(hold, **values))

    async def write() -> None:
        lane, writer = await current_store().open_lane("test"), uuid4()
        assert (await lane.hold(writer, 1, [hold], None)).admitted == {hold.id}
        assert await lane.settle(writer, 2, [event], None) == {hold.id}
        await lane.close()

    asyncio.run(write())
    assert UsageEvent.objects.get(id=event.id).customer_id == hold.customer_id
    assert QuarantinedRow.objects.count() == 0


def test_a_number_out_of_range_becomes_unknown_and_marks_the_event() -> None:
    event = clean_event(an_event(a_hold(), tokens_input=2**60))
    assert (event.tokens_input, event.tokens_output, event.consistency) == (None, 5, "inconsistent")


@given(anything)
def test_any_document_is_mended_into_json(value: object) -> None:
    event = clean_event(an_event(a_hold(), metadata={"value": value}))
    assert isinstance(bytes(event.metadata), bytes)  # type: ignore[arg-type]
    # A NUL is `\u0000` after an even number of backslashes; after an odd one it is text that says so.
    assert re.search(rb"(?<!\\)(?:\\\\)*\\u0000", bytes(event.metadata)) is None  # type: ignore[arg-type]


def test_what_needs_no_mending_stays_as_it_is_to_the_last_column() -> None:
    values: dict[str, Any] = {
        "user_id": "u" * 256, "model": "m" * 200, "currency": "EUR", "plan": "", "tokens_input": COUNT_MAX, "tokens_output": 0,
        "cost_total": Decimal("99999999999999999.999999999999"), "charge_total": Decimal("-0.000000000001"),
        "latency": 2**31 - 1, "execution_time": 0, "metadata": {}, "quantity": Decimal("1.5"),
    }  # fmt: skip
    event = clean_event(an_event(a_hold(), **values))
    assert {name: getattr(event, name) for name in values} == values
    assert event.consistency == "ok"


@pytest.mark.parametrize(
    "values",
    [
        {"user_id": "u" * 257},
        {"model": "ü" * 201},
        {"currency": "EURO"},
        {"plan": "\0"},
        {"feature": "a\ud800"},
    ],
)
def test_one_text_that_does_not_fit_is_mended_and_the_others_stay(values: dict[str, Any]) -> None:
    plain, mended = an_event(a_hold()), clean_event(an_event(a_hold(), **values))
    ((name, value),) = values.items()
    assert getattr(mended, name) != value and len(getattr(mended, name)) <= len(value)
    assert (mended.endpoint, mended.provider, mended.extractor) == (
        plain.endpoint,
        plain.provider,
        plain.extractor,
    )
