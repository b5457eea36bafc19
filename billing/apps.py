"""Django's entry for billing."""

from django.apps import AppConfig


class BillingConfig(AppConfig):
    name = "billing"
    label = "tollgate_billing"
    verbose_name = "Billing"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Have balances move wherever metering ends a hold or corrects a charge."""
        from billing.ledger_sql import BOOKS
        from metering.wiring import keep_books

        keep_books(BOOKS)
