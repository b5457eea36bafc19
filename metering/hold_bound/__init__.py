"""What a call can use and cost at the most, from its request alone: the amount of a hold where a limit is hard.

    bound = hold_bound(body, "openai_chat", facts)
    amount = hold_amount(card, bound, book="list", currency="USD", provider="openai", model="gpt-5", at=now)

Owns: how text, media and limits of each wire format become a bound, and what models are known to read and write at the most.
Does not own: what is held. Customers without a hard limit hold 0, and for them none of this runs.
"""

from metering.hold_bound.amount import hold_amount
from metering.hold_bound.bound import NOTHING_KNOWN, HoldBound, hold_bound

__all__ = ["NOTHING_KNOWN", "HoldBound", "hold_amount", "hold_bound"]
