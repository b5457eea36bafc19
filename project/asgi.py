"""The ASGI application: one process, one port.

metering ─▶ dispatch ─▶ gateway      the paths that are metered
                    ─▶ operations   /healthz /readyz /metrics
                    ─▶ the check       /v1/usage/check, asked with a key
                    ─▶ static files
                    ─▶ Django       admin, portal, the rest of the API
"""

import os

import django
from starlette.types import ASGIApp


def _application() -> ASGIApp:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
    django.setup()
    from project.application import build_application  # it imports models, so Django's apps come first

    return build_application()


application = _application()
