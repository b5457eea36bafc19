"""How many answers whose client has gone are read to their end.

A provider bills for what it generates, whether anybody listens or not; read to the end, such a call is settled exactly. But
an answer without a reader is work for nobody, so it is bounded: in seconds for each, in number for a customer and in all.
Beyond, the call is cut short and settled by estimate.
"""

from collections import Counter
from uuid import UUID


class Drains:
    """Counts the drains of a process."""

    def __init__(self, *, seconds_max: float = 120.0, total_max: int = 100, customer_max: int = 4) -> None:
        self.seconds_max, self.total_max, self.customer_max = seconds_max, total_max, customer_max
        self._by_customer: Counter[UUID] = Counter()

    def enter(self, customer_id: UUID) -> bool:
        """Whether one more may be drained; then `leave` must follow."""
        if self._by_customer.total() >= self.total_max or self._by_customer[customer_id] >= self.customer_max:
            return False
        self._by_customer[customer_id] += 1
        return True

    def leave(self, customer_id: UUID) -> None:
        """One of them has ended."""
        self._by_customer[customer_id] -= 1
        if self._by_customer[customer_id] <= 0:
            del self._by_customer[customer_id]
