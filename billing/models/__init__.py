"""The tables of billing. Owns: rows and what one row knows of itself. Does not own: acts that cross rows."""

from billing.models.access import ApiKey, OperatorToken
from billing.models.customer import Customer, Membership
from billing.models.ledger import Account, Balance, Entry, Grant, GrantUse

__all__ = [
    "Account",
    "ApiKey",
    "Balance",
    "Customer",
    "Entry",
    "Grant",
    "GrantUse",
    "Membership",
    "OperatorToken",
]
