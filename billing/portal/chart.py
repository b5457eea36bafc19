"""A bar chart as numbers for an SVG. Pure; positions are whole pixels of the drawing, so no money passes through a float."""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import msgspec

WIDTH = 960
HEIGHT = 160
LABELS_MAX = 8


class Bar(msgspec.Struct, frozen=True):
    """One day. `x`, `y`, `width` and `height` are in the drawing's units; `label` is "" where it would not fit."""

    day: date
    amount: Decimal
    calls: int
    x: int
    y: int
    width: int
    height: int
    middle: int
    label: str


def bars(days: Sequence[date], amounts: Sequence[Decimal], calls: Sequence[int]) -> list[Bar]:
    """One bar a day, the largest as high as the drawing. A day with any amount shows at least a line."""
    top = max(amounts, default=Decimal(0))
    pitch = WIDTH // max(1, len(days))
    gap = 1 if pitch < 8 else max(2, pitch // 5)
    every = -(-len(days) // LABELS_MAX)
    drawn = []
    for index, (day, amount, count) in enumerate(zip(days, amounts, calls, strict=True)):
        height = max(2, int(amount * HEIGHT / top)) if top > 0 and amount > 0 else 0
        drawn.append(
            Bar(
                day=day, amount=amount, calls=count, x=index * pitch, y=HEIGHT - height, width=pitch - gap, height=height,
                middle=index * pitch + (pitch - gap) // 2, label=f"{day.day} {day:%b}" if index % every == 0 else "",
            )
        )  # fmt: skip
    return drawn
