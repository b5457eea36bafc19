"""Paths of billing's API, below `/v1/`."""

from django.urls import path

from billing.api import UsageView

urlpatterns = [path("billing/usage", UsageView.as_view(), name="api-usage")]
