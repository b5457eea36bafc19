"""Django's entry for metering."""

from django.apps import AppConfig


class MeteringConfig(AppConfig):
    name = "metering"
    label = "tollgate_metering"
    verbose_name = "Metering"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from metering import checks  # noqa: F401  (registers the system checks)
