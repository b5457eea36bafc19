"""The tables of pricing. Owns: rows and what one row knows of itself. Does not own: acts that cross rows."""

from pricing.models.catalogue import (
    LINE_FIELDS,
    ONE_ROW,
    CatalogueVersion,
    ClockOffset,
    ModelAlias,
    NotChangeable,
    PriceBook,
    Rate,
)
from pricing.models.proposals import PriceProposal, PriceSync, SyncPolicy

__all__ = [
    "LINE_FIELDS",
    "ONE_ROW",
    "CatalogueVersion",
    "ClockOffset",
    "ModelAlias",
    "NotChangeable",
    "PriceBook",
    "PriceProposal",
    "PriceSync",
    "Rate",
    "SyncPolicy",
]
