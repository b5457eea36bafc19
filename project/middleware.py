"""Django middleware, native to sync and async: what every answer of the control plane carries.

It replaces three stock classes (security headers, frame options, content length), each of which would hop threads twice.
"""

from collections.abc import Awaitable, Callable
from typing import cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from metering.ids import uuid7

Answer = Callable[[HttpRequest], HttpResponseBase]
AsyncAnswer = Callable[[HttpRequest], Awaitable[HttpResponseBase]]

STRICT = "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
# The admin of Django has its own scripts in files, and none inline.
ADMIN = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
REQUEST_ID_MAX = 128


@sync_and_async_middleware
def answer_headers(get_response: Answer | AsyncAnswer) -> Answer | AsyncAnswer:
    """Give each request an id (the caller's own where it sent one), and each answer its headers."""
    if iscoroutinefunction(get_response):
        ahead = cast(AsyncAnswer, get_response)

        async def asynchronous(request: HttpRequest) -> HttpResponseBase:
            request_id = name_request(request)
            return dress(request, await ahead(request), request_id)

        return markcoroutinefunction(asynchronous)
    synchronous = cast(Answer, get_response)

    def answer(request: HttpRequest) -> HttpResponseBase:
        request_id = name_request(request)
        return dress(request, synchronous(request), request_id)

    return answer


def name_request(request: HttpRequest) -> str:
    """The request's id, kept at `request.META["tollgate.request_id"]` for whoever writes an error."""
    given = request.headers.get("X-Request-Id", "")
    fits = 0 < len(given) <= REQUEST_ID_MAX and given.isascii() and given.isprintable()
    request_id = given if fits else uuid7().hex
    request.META["tollgate.request_id"] = request_id
    return request_id


def dress(request: HttpRequest, response: HttpResponseBase, request_id: str) -> HttpResponseBase:
    """The answer with its id, its length and the headers that keep a browser careful."""
    headers = response.headers
    headers["X-Request-Id"] = request_id
    headers.setdefault("Content-Security-Policy", ADMIN if request.path.startswith("/admin/") else STRICT)
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("X-Frame-Options", "DENY")
    headers.setdefault("Referrer-Policy", "same-origin")
    headers.setdefault("Cross-Origin-Opener-Policy", "same-origin")
    if settings.HTTPS:
        headers.setdefault("Strict-Transport-Security", "max-age=31536000")
    if isinstance(response, HttpResponse):
        headers.setdefault("Content-Length", str(len(response.content)))
    return response
