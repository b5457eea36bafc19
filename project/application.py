"""Everything that one web process serves, put together."""

from typing import cast

from django.conf import settings
from django.core.asgi import get_asgi_application
from starlette.types import ASGIApp

from billing.accounts import build_gate
from billing.check_app import PATH as CHECK_PATH, UsageCheck
from metering import metrics, unpriced
from metering.middleware import MeteringMiddleware
from metering.wiring import build_meter, current_card
from pricing.refresh import Refresher
from project.dispatch import Dispatch
from project.gateway import GatewaySettings, build_gateway
from project.gauges import StoredGauges
from project.ops import Operations
from project.readiness import Readiness
from project.static import static_files


def build_application() -> ASGIApp:
    """The ASGI application. Django's apps are loaded."""
    card = current_card()
    gate = build_gate()
    meter = build_meter(gate)
    django = cast("ASGIApp", get_asgi_application())  # it takes any mapping, its stubs say dict
    app = Dispatch(
        gateway=build_gateway(GatewaySettings.from_env(settings.UPSTREAMS)),
        operations=Operations(
            Readiness(card, meter.recorder.status).checks,
            metrics_token=settings.METRICS_TOKEN,
            read_gauges=StoredGauges({metrics.unpriced_events: unpriced.count_open}).read,
        ),
        static=static_files(),
        django=django,
        exact={CHECK_PATH: UsageCheck(gate, card, django)},
        background=Refresher(card),
        warm=lambda: card.loaded_at is not None,
    )
    return MeteringMiddleware(app, meter) if settings.TOLLGATE["ENABLE_PRICING_MIDDLEWARE"] else app
