"""Django settings of the measured site: the project's own, with one asynchronous view."""

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.answers import CHAT
from project.settings import *  # noqa: F403

ROOT_URLCONF = "benchmarks.django_site"
ALLOWED_HOSTS = ["*"]


async def chat(request: HttpRequest) -> HttpResponse:
    return HttpResponse(CHAT, content_type="application/json")


chat.csrf_exempt = True  # type: ignore[attr-defined]
urlpatterns: list[Any] = [path("v1/chat/completions", chat), path("up", chat)]
