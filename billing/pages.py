"""Pages of long lists by cursor: newest first, each page one bounded query on an index, whatever was added meanwhile."""

import base64
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar
from uuid import UUID

import msgspec
from django.db.models import Model, Q, QuerySet
from rest_framework.request import Request

from billing.problems import bad_request

_Row = TypeVar("_Row", bound=Model)
LIMIT, LIMIT_MAX = 50, 500


class Page(msgspec.Struct, Generic[_Row]):
    """Some rows, and where the next page begins; None at the end."""

    rows: list[Any]
    next_cursor: str | None


def page_of(request: Request, rows: "QuerySet[_Row]") -> Page[_Row]:
    """The page that `?cursor=` and `?limit=` name, of rows that have `created_at` and an `id`. Raises Refused (400)."""
    limit = _limit(request.query_params.get("limit", str(LIMIT)))
    cursor = request.query_params.get("cursor", "")
    if cursor:
        created_at, after = _read(cursor)
        rows = rows.filter(Q(created_at__lt=created_at) | Q(created_at=created_at, pk__lt=after))
    found = list(rows.order_by("-created_at", "-pk")[: limit + 1])
    more = len(found) > limit
    return Page(rows=found[:limit], next_cursor=_cursor(found[limit - 1]) if more else None)


def _limit(given: str) -> int:
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= LIMIT_MAX:
        raise bad_request(f"limit: 1 to {LIMIT_MAX}.")
    return int(given)


def _cursor(row: Any) -> str:
    return base64.urlsafe_b64encode(f"{row.created_at.isoformat()} {row.pk}".encode()).decode()


def _read(cursor: str) -> tuple[datetime, UUID]:
    try:
        created_at, _, after = base64.urlsafe_b64decode(cursor.encode()).decode().partition(" ")
        instant = datetime.fromisoformat(created_at)
        if instant.tzinfo is None:
            raise ValueError
        return instant.astimezone(UTC), UUID(after)
    except (ValueError, OverflowError):
        raise bad_request("This cursor is none of ours.") from None
