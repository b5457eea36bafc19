"""What every answer of the control plane carries, whether Django runs synchronously or not."""

import asyncio

import pytest
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.test import RequestFactory, override_settings

from project.middleware import answer_headers


def answer(request: HttpRequest, response: HttpResponseBase | None = None) -> HttpResponseBase:
    handler = answer_headers(lambda _request: response or HttpResponse(b"12345"))
    found = handler(request)
    assert isinstance(found, HttpResponseBase)
    return found


def test_the_callers_request_id_comes_back() -> None:
    request = RequestFactory().get("/", headers={"X-Request-Id": "abc-1"})
    assert answer(request).headers["X-Request-Id"] == "abc-1"
    assert request.META["tollgate.request_id"] == "abc-1"


@pytest.mark.parametrize("given", ["", "x" * 129, "tab\there", "naïve"])
def test_a_request_id_that_fits_no_header_is_replaced(given: str) -> None:
    found = answer(RequestFactory().get("/", headers={"X-Request-Id": given})).headers["X-Request-Id"]
    assert found != given
    assert len(found) == 32


def test_the_length_is_said_where_it_is_known() -> None:
    assert answer(RequestFactory().get("/")).headers["Content-Length"] == "5"
    assert "Content-Length" not in answer(RequestFactory().get("/"), StreamingHttpResponse([b"1"])).headers


def test_scripts_run_in_the_admin_only() -> None:
    assert "script-src" in answer(RequestFactory().get("/admin/")).headers["Content-Security-Policy"]
    assert (
        "script-src" not in answer(RequestFactory().get("/portal/usage")).headers["Content-Security-Policy"]
    )


def test_hsts_is_sent_where_all_is_https() -> None:
    assert "Strict-Transport-Security" not in answer(RequestFactory().get("/")).headers
    with override_settings(HTTPS=True):
        assert "Strict-Transport-Security" in answer(RequestFactory().get("/")).headers


def test_an_asynchronous_stack_stays_asynchronous() -> None:
    async def view(request: HttpRequest) -> HttpResponseBase:
        return HttpResponse(b"1")

    handler = answer_headers(view)
    assert asyncio.iscoroutinefunction(handler) or hasattr(handler, "_is_coroutine_mark")
    coroutine = handler(RequestFactory().get("/"))
    assert asyncio.iscoroutine(coroutine)
    assert asyncio.run(coroutine).headers["X-Frame-Options"] == "DENY"
