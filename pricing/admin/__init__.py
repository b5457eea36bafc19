"""Pricing in Django's admin: the catalogue, and what other catalogues say against it."""

from pricing.admin import proposals, rates

__all__ = ["proposals", "rates"]
