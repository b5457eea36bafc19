"""Errors of the API as problem+json, in the words of `metering.problem`."""

from typing import Any

import msgspec
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from rest_framework import exceptions

from metering.problem import Refusal, invalid_api_key, invalid_request, problem_response

_BY_STATUS = {
    403: ("forbidden", "Forbidden"),
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
    406: ("not_acceptable", "Not acceptable"),
    415: ("unsupported_media_type", "Unsupported media type"),
    429: ("rate_limited", "Rate limited"),
}


class Refused(exceptions.APIException):
    """An act of the API that ends with this refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.detail, refusal.code)
        self.refusal = refusal
        self.status_code = refusal.status


def forbidden(detail: str) -> Refused:
    return Refused(Refusal(403, "forbidden", "Forbidden", detail))


def not_found(detail: str) -> Refused:
    return Refused(Refusal(404, "not_found", "Not found", detail))


def bad_request(detail: str) -> Refused:
    return Refused(invalid_request(detail))


def problem_for(error: Exception, context: dict[str, Any]) -> HttpResponse | None:
    """REST framework's exception handler. None for what is no error of the caller: Django answers that with 500."""
    refusal = refusal_for(error)
    return None if refusal is None else answer(refusal, context["request"])


def refusal_for(error: Exception) -> Refusal | None:
    """The refusal that an exception stands for."""
    if isinstance(error, Refused):
        return error.refusal
    if isinstance(error, exceptions.NotAuthenticated):
        return invalid_api_key("Send an API key or an operator token as `Authorization: Bearer …`.")
    if isinstance(error, exceptions.AuthenticationFailed):
        return invalid_api_key()
    if isinstance(error, Http404):
        return Refusal(404, "not_found", "Not found", str(error) or "There is nothing here.")
    if isinstance(error, PermissionDenied):
        return Refusal(403, "forbidden", "Forbidden", str(error) or "This is not yours to see or to do.")
    if not isinstance(error, exceptions.APIException):
        return None
    if error.status_code in _BY_STATUS:
        code, title = _BY_STATUS[error.status_code]
        return Refusal(error.status_code, code, title, str(error.detail))
    return msgspec.structs.replace(invalid_request(str(error.detail)), status=error.status_code)


def answer(refusal: Refusal, request: HttpRequest) -> HttpResponse:
    """The refusal as an answer."""
    status, headers, body = problem_response(refusal, request.META.get("tollgate.request_id", ""))
    response = HttpResponse(body, status=status)
    for name, value in headers:
        response.headers[name.decode()] = value.decode()
    return response
