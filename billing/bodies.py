"""Bodies of requests to our own API: read strictly, with amounts exact, and the idempotency key beside them."""

from typing import TypeVar

import msgspec
from rest_framework.request import Request

from billing.problems import bad_request

_Body = TypeVar("_Body", bound=msgspec.Struct)
KEY_LENGTH_MAX = 150


def body_of(request: Request, kind: type[_Body]) -> _Body:
    """The JSON body as `kind`. An unknown field is an error, since it would silently do nothing. Raises Refused (400)."""
    return decoded(request.body, kind)


def decoded(raw: bytes, kind: type[_Body]) -> _Body:
    """The same of bytes."""
    try:
        body = msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise bad_request(f"The body cannot be used: {error}") from None
    for name, value in msgspec.structs.asdict(body).items():
        if isinstance(value, str) and "\0" in value:  # which PostgreSQL cannot store
            raise bad_request(f"{name} holds a character U+0000.")
    return body


def idempotency_key_of(request: Request) -> str:
    """What `Idempotency-Key` says; "" where it is not sent. Raises Refused (400) for one that is too long or not readable."""
    given: str = request.headers.get("Idempotency-Key", "").strip()
    if len(given) > KEY_LENGTH_MAX or not given.isprintable():
        raise bad_request(f"Idempotency-Key: at most {KEY_LENGTH_MAX} printable characters.")
    return given
