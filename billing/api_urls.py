"""Paths of billing's API, below `/v1/`."""

from django.urls import path

from billing.api import UsageView
from billing.credits_api import BalanceView, CreditsView, RefundView

urlpatterns = [
    path("billing/usage", UsageView.as_view(), name="api-usage"),
    path("customers/<str:customer>/credits", CreditsView.as_view(), name="api-credits"),
    path(
        "customers/<str:customer>/credits/<uuid:grant>/refund", RefundView.as_view(), name="api-credit-refund"
    ),
    path("customers/<str:customer>/balance", BalanceView.as_view(), name="api-balance"),
]
