"""Django's entry for billing."""

from django.apps import AppConfig
from django.db.models.signals import post_migrate


class BillingConfig(AppConfig):
    name = "billing"
    label = "tollgate_billing"
    verbose_name = "Billing"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        """Have balances move wherever metering ends a hold or corrects a charge, and plans come with `migrate`."""
        from billing.ledger_sql import BOOKS
        from billing.plans import ship_after_migrate
        from metering.wiring import keep_books

        keep_books(BOOKS)
        post_migrate.connect(ship_after_migrate, sender=self, dispatch_uid="tollgate.plans")
