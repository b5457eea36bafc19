"""Paths of billing's API, below `/v1/`."""

from django.urls import path

from billing.alerts_api import AlertsView, AlertThresholdsView
from billing.api import UsageView
from billing.budgets_api import BudgetsView, BudgetView
from billing.check_api import CheckView
from billing.credits_api import BalanceView, CreditsView, RefundView
from billing.customers_api import (
    CustomersView,
    CustomerView,
    KeysView,
    KeyView,
    SubscriptionsView,
    SubscriptionView,
)
from billing.history_api import EstimateView, MonthsView, PeriodsView
from billing.invoices_api import (
    DraftView,
    ExplainView,
    InvoicesView,
    InvoiceView,
    NotesView,
    RunView,
    StateView,
)
from billing.plans_api import PlansView, PlanView
from billing.quotas_api import CustomerUsageView, QuotaView
from billing.top_up_api import TopUpView

urlpatterns = [
    path("customers", CustomersView.as_view(), name="api-customers"),
    path("customers/<str:customer>", CustomerView.as_view(), name="api-customer"),
    path("customers/<str:customer>/keys", KeysView.as_view(), name="api-keys"),
    path("customers/<str:customer>/keys/<uuid:key>", KeyView.as_view(), name="api-key"),
    path("customers/<str:customer>/subscriptions", SubscriptionsView.as_view(), name="api-subscriptions"),
    *(
        path(
            f"customers/<str:customer>/subscriptions/<uuid:subscription>/{act}",
            SubscriptionView.as_view(act=act),
            name=f"api-subscription-{act}",
        )
        for act in ("cancel", "keep", "upgrade")
    ),
    path("plans", PlansView.as_view(), name="api-plans"),
    path("plans/<str:plan>", PlanView.as_view(), name="api-plan"),
    path("customers/<str:customer>/budgets", BudgetsView.as_view(), name="api-budgets"),
    path("customers/<str:customer>/budgets/<uuid:budget>", BudgetView.as_view(), name="api-budget"),
    path("customers/<str:customer>/alerts", AlertsView.as_view(), name="api-alerts"),
    path(
        "customers/<str:customer>/alert-thresholds",
        AlertThresholdsView.as_view(),
        name="api-alert-thresholds",
    ),
    path("customers/<str:customer>/top-up", TopUpView.as_view(), name="api-top-up"),
    path("usage/check", CheckView.as_view(), name="api-usage-check"),
    path("usage/<str:customer>", CustomerUsageView.as_view(), name="api-customer-usage"),
    path("usage/<str:customer>/quotas/<str:feature>", QuotaView.as_view(), name="api-quota"),
    path("billing/usage", UsageView.as_view(), name="api-usage"),
    path("billing/usage/history", MonthsView.as_view(), name="api-usage-months"),
    path("usage/<str:customer>/history", PeriodsView.as_view(), name="api-usage-periods"),
    path("usage/<str:customer>/estimate", EstimateView.as_view(), name="api-usage-estimate"),
    path("customers/<str:customer>/credits", CreditsView.as_view(), name="api-credits"),
    path(
        "customers/<str:customer>/credits/<uuid:grant>/refund", RefundView.as_view(), name="api-credit-refund"
    ),
    path("customers/<str:customer>/balance", BalanceView.as_view(), name="api-balance"),
    path("invoices", InvoicesView.as_view(), name="api-invoices"),
    path("invoices/run", RunView.as_view(), name="api-invoices-run"),
    path("invoices/draft", DraftView.as_view(), name="api-invoices-draft"),
    path("invoices/<uuid:invoice>", InvoiceView.as_view(), name="api-invoice"),
    path("invoices/<uuid:invoice>/notes", NotesView.as_view(), name="api-invoice-notes"),
    path(
        "invoices/<uuid:invoice>/lines/<uuid:line>/explain", ExplainView.as_view(), name="api-invoice-explain"
    ),
    *(
        path(f"invoices/<uuid:invoice>/{act}", StateView.as_view(act=act), name=f"api-invoice-{act}")
        for act in ("pay", "void", "uncollectible")
    ),
]
