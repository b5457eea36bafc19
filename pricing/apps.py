"""Django's entry for pricing."""

from django.apps import AppConfig


class PricingConfig(AppConfig):
    name = "pricing"
    label = "tollgate_pricing"
    verbose_name = "Pricing"
    default_auto_field = "django.db.models.BigAutoField"
