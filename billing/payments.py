"""The seam to whoever takes money. `TOLLGATE["PAYMENTS"]` names a class that does; without one nothing can be bought."""

from decimal import Decimal
from typing import Literal, Protocol
from uuid import UUID

import msgspec
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string


class Payment(msgspec.Struct, frozen=True):
    """What became of a payment. `pending`: it is on its way; ask again under the same key."""

    state: Literal["paid", "declined", "pending"]
    reference: str = ""
    detail: str = ""


class Payments(Protocol):
    """Takes payments from customers' standing means of payment."""

    def charge(self, customer_id: UUID, amount: Decimal, currency: str, *, key: str) -> Payment:
        """Take so much, once for each key: a repeat answers what became of the first. May raise whatever it likes where
        nothing is known; the same key is asked for again then."""


def current_payments() -> Payments | None:
    """What the installation has chosen. Raises ImproperlyConfigured for a name that is none."""
    named = getattr(settings, "TOLLGATE", {}).get("PAYMENTS", "")
    if not named:
        return None
    try:
        made: Payments = import_string(named)()
    except ImportError as error:
        raise ImproperlyConfigured(f'TOLLGATE["PAYMENTS"]: {error}') from error
    return made
