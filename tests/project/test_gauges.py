"""Figures that only the database knows: told when asked for, unknown rather than wrong."""

import math
import threading
from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry, Gauge

from project import gauges
from project.gauges import StoredGauges
from project.ops import Operations
from tests.project.asgi import ask

pytestmark = pytest.mark.anyio


class Bench:
    """A gauge in a registry of its own, and what is read into it."""

    def __init__(self, query: Callable[[], int]) -> None:
        self.registry, self.asked = CollectorRegistry(), 0
        self.query = query
        self.gauges = StoredGauges({Gauge("waiting", "…", registry=self.registry): self.count})

    def count(self) -> int:
        self.asked += 1
        return self.query()

    @property
    def value(self) -> float | None:
        return self.registry.get_sample_value("waiting")


def fails() -> int:
    raise RuntimeError("the database is away")


async def test_the_database_is_asked_when_somebody_asks_us() -> None:
    bench = Bench(lambda: 7)
    operations = Operations(lambda: pytest.fail("not asked for"), read_gauges=bench.gauges.read)
    assert (await ask(operations, "/metrics")).status == 200
    assert (bench.value, bench.asked) == (7, 1)


async def test_many_who_ask_at_once_are_one_question() -> None:
    bench = Bench(lambda: 7)
    for _ in range(3):
        await bench.gauges.read()
    assert bench.asked == 1


async def test_what_cannot_be_read_is_unknown_and_not_zero() -> None:
    bench = Bench(fails)
    await bench.gauges.read()
    assert bench.value is not None and math.isnan(bench.value)


async def test_a_database_that_does_not_answer_holds_nobody_up() -> None:
    answered = threading.Event()
    bench = Bench(lambda: 7 if answered.wait(gauges.PATIENCE_S + 5) else 0)
    await bench.gauges.read()
    assert bench.value is not None and math.isnan(bench.value)
    answered.set()
    await bench.gauges.read()
    assert bench.value == 7
