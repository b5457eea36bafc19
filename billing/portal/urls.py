"""Paths of the portal, below `/portal/`."""

from django.contrib.auth.views import LoginView, LogoutView
from django.urls import path
from django.views.generic import RedirectView

from billing.portal import pages

app_name = "tollgate"
urlpatterns = [
    path("", RedirectView.as_view(pattern_name="tollgate:usage")),
    path(
        "login",
        LoginView.as_view(template_name="tollgate/login.html", redirect_authenticated_user=True),
        name="login",
    ),
    path("logout", LogoutView.as_view(), name="logout"),
    path("usage", pages.usage, name="usage"),
]
