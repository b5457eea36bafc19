"""The spool's files: what comes back, wherever a kill has cut them."""

import asyncio
from collections.abc import Callable, Coroutine
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, strategies as st

from metering.clean import clean_event, clean_hold
from metering.rows import Claim
from metering.spool import Spool, SpoolFull, frames
from metering.spool.place import Place
from metering.spool.records import Record, decode, encode, gist
from metering.spool.spool import RESERVED
from tests.metering.rows import a_hold, an_event

MEGABYTE = 2**20


def a_file(*payloads: bytes) -> bytes:
    return frames.header(1_700_000_000_000) + b"".join(map(frames.frame, payloads))


def read(data: bytes) -> tuple[list[bytes], frames.Reader]:
    reader = frames.Reader(data)
    return list(reader), reader


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.integers(0, 64))
def test_a_file_cut_at_any_byte_gives_every_whole_record_and_nothing_else(
    payloads: list[bytes], zeros: int
) -> None:
    whole = a_file(*payloads)
    ends = [len(a_file(*payloads[:count])) for count in range(len(payloads) + 1)]
    for cut in range(len(whole) + 1):
        found, reader = read(whole[:cut] + bytes(zeros))
        # A frame whose last bytes are zeros may be whole again with what was promised to the file ahead.
        kept = sum(end <= cut for end in ends[1:])
        assert found[:kept] == payloads[:kept]
        assert found == payloads[: len(found)]
        assert not reader.is_damaged


def test_the_zeros_behind_the_last_record_are_no_tear() -> None:
    found, reader = read(a_file(b"one", b"two") + bytes(4096))
    assert (found, reader.torn, reader.is_damaged) == ([b"one", b"two"], 0, False)


def test_a_torn_record_is_told_by_its_bytes() -> None:
    whole = a_file(b"one", b"two")
    found, reader = read(whole[:-1] + bytes(100))
    assert (found, reader.torn, reader.is_damaged) == ([b"one"], 8 + 2, False)


def test_a_bad_record_with_others_behind_it_is_damage_and_no_tear() -> None:
    data = bytearray(a_file(b"one", b"two", b"three"))
    data[len(a_file(b"one")) + frames.FRAME_BYTES] ^= 1
    found, reader = read(bytes(data))
    assert (found, reader.is_damaged) == ([b"one"], True)


@pytest.mark.parametrize("data", [b"", b"TGSP", bytes(64)], ids=["empty", "cut header", "zeros"])
def test_a_file_without_its_header_holds_nothing(data: bytes) -> None:
    found, reader = read(data)
    assert (found, reader.is_damaged) == ([], False)


def test_a_record_comes_back_exactly() -> None:
    claim = Claim("0" * 32, "f" * 32)
    hold = clean_hold(a_hold(claim=claim, amount=Decimal("0.123456789012"), user_id="Zoë\0"))
    event = clean_event(
        an_event(hold, claim=claim, charge_total=Decimal("12345678901234.000000000001"), on_credit=True,
                 raw_usage={"seconds": 1.10, "big": 2**53}, metadata={"a": ["b", None]}, missing={"list": ["output"]})
    )  # fmt: skip
    back = decode(encode(Record(hold=hold, event=event, writer=hold.id)))
    assert (back.hold, back.writer, back.dropped) == (hold, hold.id, False)
    assert back.event is not None
    assert msgspec.json.encode(back.event) == msgspec.json.encode(event)
    assert (back.event.charge_total, back.event.rate_ids) == (event.charge_total, event.rate_ids)
    assert back.event.created_at == event.created_at and back.event.day == event.day


def test_the_gist_of_a_record_says_whose_it_is_and_whether_it_ends_the_call() -> None:
    hold = a_hold()
    records = [Record(hold=hold), Record(hold=hold, dropped=True), Record(event=an_event(hold))]
    found = [gist(encode(record)) for record in records]
    assert [one.hold_id for one in found] == [hold.id] * 3
    assert [one.ends for one in found] == [False, True, True]


# --- the spool of a live process


def run(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(act())


def on_disk(root: Path) -> list[Record]:
    files = sorted(root.glob("*/*.spool"))
    return [decode(payload) for file in files for payload in frames.Reader(file.read_bytes())]


async def end(spool: Spool, event: Any) -> None:
    durable = asyncio.Event()
    spool.event(event, durable.set)
    await durable.wait()


def test_a_call_is_on_the_disk_before_it_is_answered(tmp_path: Path) -> None:
    spool, hold = Spool(tmp_path, MEGABYTE), a_hold()

    async def act() -> None:
        await spool.hold(hold)
        assert [record.hold for record in on_disk(tmp_path)] == [hold]
        assert spool.owns(hold.id) and spool.records == 1
        event = an_event(hold)
        await end(spool, event)
        last = on_disk(tmp_path)[-1]
        assert (last.hold, last.event and last.event.id) == (hold, event.id)
        assert not spool.owns(hold.id) and spool.records == 1

    run(act)
    spool.close()


def test_many_calls_at_once_are_all_there(tmp_path: Path) -> None:
    spool, holds = Spool(tmp_path, 64 * MEGABYTE), [a_hold() for _ in range(500)]

    async def act() -> None:
        await asyncio.gather(*(spool.hold(hold) for hold in holds))
        await asyncio.gather(*(end(spool, an_event(hold)) for hold in holds))

    run(act)
    assert {record.hold_id for record in on_disk(tmp_path) if record.event} == {hold.id for hold in holds}
    spool.close()


def test_a_full_spool_refuses_calls_and_takes_every_event_of_those_it_has(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 4 * RESERVED)
    taken, refused = [], 0

    async def act() -> None:
        nonlocal refused
        for _ in range(10):
            hold = a_hold()
            try:
                await spool.hold(hold)
                taken.append(hold)
            except SpoolFull:
                refused += 1
        assert 0 < len(taken) < 4 and refused == 10 - len(taken)
        for hold in taken:
            await end(spool, an_event(hold))

    run(act)
    events = {record.hold_id for record in on_disk(tmp_path) if record.event}
    assert events == {hold.id for hold in taken}
    assert sum(file.stat().st_size for file in tmp_path.glob("*/*.spool")) <= MEGABYTE
    spool.close()


def test_what_a_full_disk_does_not_take_is_refused(tmp_path: Path) -> None:
    """A file where the folder should be: nothing can be written under it, whoever asks."""
    (tmp_path / "spool").write_text("in the way")
    spool = Spool(tmp_path / "spool", MEGABYTE)
    hold = a_hold()

    async def act() -> None:
        with pytest.raises(SpoolFull):
            await spool.hold(hold)
        assert not spool.owns(hold.id) and spool.records == 0

    run(act)
    spool.close()


def test_a_call_that_never_went_out_ends_without_an_event(tmp_path: Path) -> None:
    spool, hold = Spool(tmp_path, MEGABYTE), a_hold()

    async def act() -> None:
        await spool.hold(hold)
        spool.drop(hold)

    run(act)
    spool.close()
    assert [(record.hold_id, record.dropped) for record in on_disk(tmp_path)] == [
        (hold.id, False),
        (hold.id, True),
    ]


def test_a_folder_is_the_dead_processs_only_once_its_lock_is_free(tmp_path: Path) -> None:
    spool, hold = Spool(tmp_path, MEGABYTE), a_hold()

    async def act() -> None:
        await spool.hold(hold)

    run(act)
    assert list(Place.of_the_dead(tmp_path)) == []
    spool.close()
    assert [len(place.segments()) for place in Place.of_the_dead(tmp_path)] == [1]


def test_a_spool_that_was_never_used_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    spool = Spool(root, MEGABYTE)
    assert (spool.records, spool.age_s) == (0, 0.0)
    spool.close()
    assert not root.exists()


def test_the_age_is_that_of_the_oldest_file(tmp_path: Path) -> None:
    now = 1_700_000_000_000
    spool = Spool(tmp_path, MEGABYTE, now_ms=lambda: now)

    async def act() -> None:
        await spool.hold(a_hold())

    run(act)
    now += 90_000
    assert spool.age_s == 90.0
    spool.close()
