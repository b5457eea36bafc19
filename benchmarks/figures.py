"""What a measurement comes out as, and how it is said."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

LATEST = Path(__file__).with_name("latest.json")


class Figure(msgspec.Struct, frozen=True):
    """One line. Ratios within one run are judged by their goal; whatever depends on the machine has none and is reported."""

    name: str
    value: float
    unit: str
    goal: float | None = None
    at_most: bool = False  # the goal is not to be passed, instead of to be reached

    @property
    def met(self) -> bool | None:
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def __str__(self) -> str:
        goal = (
            "reported"
            if self.goal is None
            else f"goal {'≤' if self.at_most else '≥'} {self.goal:g}, {'met' if self.met else 'NOT MET'}"
        )
        return f"{self.name}: {self.value:.4g} {self.unit} ({goal})"


def write(figures: Sequence[Figure]) -> None:
    """Keep the run as JSON, for whoever compares."""
    rows = [{"name": f.name, "value": f.value, "unit": f.unit, "goal": f.goal, "met": f.met} for f in figures]
    LATEST.write_text(json.dumps(rows, indent=1) + "\n")


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
