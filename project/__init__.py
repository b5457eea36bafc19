"""Wiring only. Owns: settings, URLs, the ASGI application, Celery, health and metrics, the reference API that is metered
(`gateway`), and `manage.py up`. Does not own: anything about prices, usage or money.

Nothing imports `project`.
"""

from project.celery import app as celery_app

__all__ = ["celery_app"]
