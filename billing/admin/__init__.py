"""The operator's pages of billing. Owns: how customers, keys and credits are shown and acted upon. Does not own: the acts."""

from billing.admin import customers, ledger

__all__ = ["customers", "ledger"]
