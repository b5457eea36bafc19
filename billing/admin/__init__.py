"""The operator's pages of billing. Owns: how customers, keys, plans, limits, alerts, credits and invoices are shown and acted
upon. Does not own: the acts."""

from billing.admin import alerts, customers, invoices, ledger, limits, plans, top_ups

__all__ = ["alerts", "customers", "invoices", "ledger", "limits", "plans", "top_ups"]
