"""Which headers pass between caller and upstream. Everything about who the caller is stays here."""

from collections.abc import Iterable

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
        b"trailer", b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip

# The caller's own: what the HTTP client sets anew, and what would be read against OUR account upstream. An Idempotency-Key
# is meant within one customer; upstream all customers are one account, and one could be handed another's answer.
_REQUEST_ONLY_OURS = frozenset(
    {
        b"host", b"content-length", b"content-encoding", b"accept-encoding", b"expect", b"forwarded", b"x-real-ip",
        b"via", b"idempotency-key", b"openai-organization", b"openai-project", b"x-end-user", b"x-http-method-override",
    }
)  # fmt: skip
# Google's headers can do what its query can: leave the usage out of an answer (X-Goog-FieldMask), bill another project.
_REQUEST_PREFIXES = (b"x-forwarded-", b"helicone-", b"x-portkey-", b"x-litellm-", b"cf-", b"x-goog-")
_GOES_UP_ALL_THE_SAME = frozenset({b"x-goog-api-client"})
_SECRET_MARKS = (b"auth", b"api-key", b"apikey", b"cookie", b"token", b"secret", b"password")

# What the server sets itself, and what tells about our account. Usage headers are ours alone to say.
_RESPONSE_ONLY_OURS = frozenset(
    {
        b"server", b"date", b"set-cookie", b"alt-svc", b"strict-transport-security", b"openai-organization",
        b"openai-project", b"anthropic-organization-id", b"x-request-id",
    }
)  # fmt: skip


def for_upstream(headers: Iterable[tuple[bytes, bytes]], own: Headers) -> Headers:
    """The caller's headers (names in lower case) without secrets, identity and framing, and `own` in place of theirs."""
    received = list(headers)
    withheld = named_by_connection(received) | {name for name, _ in own}
    kept = [(name, value) for name, value in received if name not in withheld and _may_go_up(name)]
    return [*kept, (b"accept-encoding", b"identity"), *own]


def for_caller(headers: Iterable[tuple[bytes, bytes]], *, rewritten: bool) -> Headers:
    """The upstream's headers for our answer; `rewritten`: the body is decoded or changed, so its framing is dropped.

    The upstream's X-Request-Id goes out as X-Upstream-Request-Id, since X-Request-Id names our own call.
    """
    received = [(name.lower(), value) for name, value in headers]
    named = named_by_connection(received)
    framing = (b"content-length", b"content-encoding") if rewritten else ()
    kept = [
        (name, value)
        for name, value in received
        if name not in named
        and name not in HOP_BY_HOP
        and name not in _RESPONSE_ONLY_OURS
        and name not in framing
        and not name.startswith(b"x-usage-")
    ]
    return kept + [(b"x-upstream-request-id", value) for name, value in received if name == b"x-request-id"]


def named_by_connection(headers: Headers) -> frozenset[bytes]:
    """The header names that a Connection header declares to be for this hop only."""
    values = [value for name, value in headers if name == b"connection"]
    return frozenset(token.strip().lower() for value in values for token in value.split(b","))


def _may_go_up(name: bytes) -> bool:
    if name in _GOES_UP_ALL_THE_SAME:
        return True
    if name in HOP_BY_HOP or name in _REQUEST_ONLY_OURS or name.startswith(_REQUEST_PREFIXES):
        return False
    return not any(mark in name for mark in _SECRET_MARKS)


def query_for_upstream(query: bytes) -> bytes:
    """The query string as it came, without parameters that carry a key."""
    if not query:
        return query
    parts = [part for part in query.split(b"&") if not _is_secret(part.split(b"=", 1)[0].lower())]
    return b"&".join(parts)


def _is_secret(name: bytes) -> bool:
    return name == b"key" or any(mark in name.replace(b"_", b"-") for mark in _SECRET_MARKS)
