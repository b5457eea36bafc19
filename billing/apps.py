"""Django's entry for billing."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
    label = "tollgate_billing"
    verbose_name = "Billing"
    default_auto_field = "django.db.models.BigAutoField"
