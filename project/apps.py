"""Django's entry for the project: it carries the commands, and no models."""

from django.apps import AppConfig


class ProjectConfig(AppConfig):
    name = "project"
    label = "tollgate_project"
    verbose_name = "Tollgate"
