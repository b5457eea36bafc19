"""A dictionary of a fixed size, for what a process keeps of callers whose number nobody bounds."""

from collections import OrderedDict
from typing import Generic, TypeVar

_V = TypeVar("_V")


class Bounded(Generic[_V]):
    """A dictionary that forgets what was used longest ago."""

    def __init__(self, size_max: int) -> None:
        self._size_max = size_max
        self._items: OrderedDict[str, _V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def get(self, key: str) -> _V | None:
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def put(self, key: str, value: _V) -> None:
        self._items[key] = value
        self._items.move_to_end(key)
        if len(self._items) > self._size_max:
            self._items.popitem(last=False)

    def pop(self, key: str) -> None:
        self._items.pop(key, None)
