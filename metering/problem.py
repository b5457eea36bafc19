"""Refusals: what we answer when we do not let a call through, in the words the caller's client understands.

A `Refusal` is a value, so that a gate can return one, a recorder can carry one and a view can raise one of its own. On the
wire it is problem+json (RFC 9457); on routes that speak a provider's protocol the same document also holds that
provider's error object, because its official client looks for its message there and nowhere else.
"""

from typing import Any, Literal

import msgspec

Fields = tuple[tuple[bytes, bytes], ...]  # of an answer's header, the names in lower case
Native = Literal["openai", "anthropic", "google"]

_encode = msgspec.json.Encoder().encode


class Refusal(msgspec.Struct, frozen=True):
    """Why a call is not let through. `retryable` says whether the same call can succeed by being sent again soon."""

    status: int
    code: str  # stable, for programs; see the functions below
    title: str  # the same for every refusal of this code
    detail: str  # this one, for people
    retry_after_s: int | None = None
    retryable: bool = False
    retry_after_ms: int | None = None  # where it is known better than to the second
    headers: Fields = ()  # that the answer carries beside its own

    def with_headers(self, headers: Fields) -> "Refusal":
        """The same with these headers."""
        return msgspec.structs.replace(self, headers=headers) if headers else self


def invalid_api_key(detail: str = "The API key is missing, unknown or revoked.") -> Refusal:
    return Refusal(401, "invalid_api_key", "Invalid API key", detail)


def customer_suspended(detail: str = "This customer is suspended or inactive.") -> Refusal:
    return Refusal(403, "customer_suspended", "Customer suspended", detail)


def credits_do_not_cover(detail: str = "The remaining credits do not cover this call.") -> Refusal:
    return Refusal(402, "insufficient_credits", "Insufficient credits", detail)


def quota_exceeded(retry_after_s: int, detail: str = "The quota of this period is used up.") -> Refusal:
    """`retry_after_s` runs until the quota resets, which may be weeks: no client should wait for it by itself."""
    return Refusal(429, "quota_exceeded", "Quota exceeded", detail, retry_after_s)


def budget_exceeded(retry_after_s: int, detail: str = "The budget of this period is spent.") -> Refusal:
    return Refusal(429, "budget_exceeded", "Budget exceeded", detail, retry_after_s)


def rate_limited(
    retry_after_s: int, detail: str = "Too many requests at once.", retry_after_ms: int | None = None
) -> Refusal:
    return Refusal(
        429,
        "rate_limited",
        "Rate limited",
        detail,
        retry_after_s,
        retryable=True,
        retry_after_ms=retry_after_ms,
    )


def model_not_priced(detail: str = "The plan admits no model without a price.") -> Refusal:
    return Refusal(403, "model_not_priced", "Model not priced", detail)


def metering_unavailable(
    retry_after_s: int = 1, detail: str = "Usage cannot be recorded just now."
) -> Refusal:
    return Refusal(503, "metering_unavailable", "Metering unavailable", detail, retry_after_s, retryable=True)


def invalid_request(detail: str) -> Refusal:
    return Refusal(400, "invalid_request", "Invalid request", detail)


def idempotency_conflict(detail: str = "This idempotency key was used before with other content.") -> Refusal:
    return Refusal(409, "idempotency_conflict", "Idempotency conflict", detail)


# By status, as the providers document them; by code where one status has two meanings.
_OPENAI_TYPES: dict[int | str, str] = {
    400: "invalid_request_error", 401: "invalid_request_error", 402: "insufficient_quota", 403: "permission_error",
    409: "invalid_request_error", 429: "rate_limit_error", 503: "server_error",
    "quota_exceeded": "insufficient_quota", "budget_exceeded": "insufficient_quota",
}  # fmt: skip
_ANTHROPIC_TYPES: dict[int | str, str] = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    409: "invalid_request_error", 429: "rate_limit_error", 503: "api_error",
}  # fmt: skip
_GOOGLE_STATUSES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 402: "RESOURCE_EXHAUSTED", 403: "PERMISSION_DENIED",
    404: "NOT_FOUND", 405: "UNIMPLEMENTED", 409: "ALREADY_EXISTS", 413: "INVALID_ARGUMENT", 415: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED", 502: "UNAVAILABLE", 503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED",
}  # fmt: skip


def problem_document(refusal: Refusal, request_id: str, native: Native | None = None) -> dict[str, Any]:
    """The body as a dictionary, with the client's own error object when `native` names one.

    Anthropic's client identifies an error document by `type: "error"`, so there `type` is that instead of our URN. Google's
    takes a `status` at the top for the name that stands in its error object, so there the number is left out: the answer
    itself and `error.code` carry it.
    """
    document: dict[str, Any] = {
        "type": f"urn:tollgate:problem:{refusal.code}", "title": refusal.title, "status": refusal.status,
        "detail": refusal.detail, "code": refusal.code, "request_id": request_id,
    }  # fmt: skip
    if native == "openai":
        document["error"] = {
            "message": refusal.detail, "type": _native_type(_OPENAI_TYPES, refusal), "code": refusal.code, "param": None,
        }  # fmt: skip
    elif native == "anthropic":
        document["type"] = "error"
        document["error"] = {"type": _native_type(_ANTHROPIC_TYPES, refusal), "message": refusal.detail}
    elif native == "google":
        del document["status"]
        document["error"] = _google_error(refusal)
    return document


def problem_headers(refusal: Refusal, request_id: str) -> list[tuple[bytes, bytes]]:
    """The headers that belong to the refusal itself; content-type and content-length are not among them.

    `x-should-retry: false` stops the official clients, which would otherwise repeat 409, 429 and 503 by themselves.
    """
    headers = [(b"cache-control", b"no-store")]
    if request_id.isascii() and request_id.isprintable():
        headers.append((b"x-request-id", request_id.encode("ascii")))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", b"%d" % refusal.retry_after_s))
        if refusal.retryable:
            known = refusal.retry_after_ms
            headers.append(
                (b"retry-after-ms", b"%d" % (refusal.retry_after_s * 1000 if known is None else known))
            )
    if not refusal.retryable:
        headers.append((b"x-should-retry", b"false"))
    headers += refusal.headers
    return headers


def problem_response(
    refusal: Refusal, request_id: str, native: Native | None = None
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer, ready for ASGI. Header names are lower case."""
    body = _encode(problem_document(refusal, _writable(request_id), native))
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    return refusal.status, headers + problem_headers(refusal, request_id), body


def _google_error(refusal: Refusal) -> dict[str, Any]:
    """Google's error object. When to come back stands in its details too: who speaks that protocol looks for it there."""
    error: dict[str, Any] = {
        "code": refusal.status, "message": refusal.detail, "status": _GOOGLE_STATUSES.get(refusal.status, "UNKNOWN"),
    }  # fmt: skip
    if refusal.retryable and refusal.retry_after_s is not None:
        retry = {
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": f"{refusal.retry_after_s}s",
        }
        error["details"] = [retry]
    return error


def _native_type(types: dict[int | str, str], refusal: Refusal) -> str:
    return types.get(refusal.code) or types.get(refusal.status) or "api_error"


def _writable(text: str) -> str:
    """A header's bytes may have been read as surrogates, which JSON cannot carry."""
    return text.encode("utf-8", "replace").decode("utf-8")
