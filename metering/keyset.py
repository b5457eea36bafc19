"""Pages by keyset: what comes after the last row of the page before, in the order of the columns."""

from typing import Any

from django.db.models import Q


def after(**last: Any) -> Q:
    """Rows that come after the one with these values, ordered by these columns. The first comparison is one that an index
    can begin at."""
    (name, value), *rest = last.items()
    later = Q(**{f"{name}__gt": value})
    if not rest:
        return later
    return Q(**{f"{name}__gte": value}) & (later | after(**dict(rest)))
