"""The tables of billing. Owns: rows and what one row knows of itself. Does not own: acts that cross rows."""

from billing.models.access import ApiKey, OperatorToken
from billing.models.alerts import Alert, AlertThreshold, OutboxMessage, Subject
from billing.models.customer import Customer, Membership
from billing.models.invoices import Invoice, InvoiceFinalised, InvoiceLine, InvoiceNumber, ParkedBilling
from billing.models.ledger import Account, Balance, Entry, Grant, GrantUse
from billing.models.limits import Budget, QuotaOverride
from billing.models.plans import Plan, PlanFeature, PlanVersion, VersionPublished
from billing.models.subscriptions import Subscription
from billing.models.top_ups import TopUp, TopUpRule

__all__ = [
    "Account",
    "Alert",
    "AlertThreshold",
    "ApiKey",
    "Balance",
    "Budget",
    "Customer",
    "Entry",
    "Grant",
    "GrantUse",
    "Invoice",
    "InvoiceFinalised",
    "InvoiceLine",
    "InvoiceNumber",
    "Membership",
    "OperatorToken",
    "OutboxMessage",
    "ParkedBilling",
    "Plan",
    "PlanFeature",
    "PlanVersion",
    "QuotaOverride",
    "Subject",
    "Subscription",
    "TopUp",
    "TopUpRule",
    "VersionPublished",
]
