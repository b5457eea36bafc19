"""The operator's pages of billing. Owns: how customers, keys, plans, limits and credits are shown and acted upon. Does not own: the acts."""

from billing.admin import customers, ledger, limits, plans

__all__ = ["customers", "ledger", "limits", "plans"]
