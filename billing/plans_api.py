"""`GET /v1/plans`: what can be subscribed to now. Customers see the public plans and their own; operators see all."""

from decimal import Decimal
from typing import Any

from django.db.models import Prefetch, Q, QuerySet
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from billing.api import single_parameters
from billing.authentication import customers_seen_by, is_operator
from billing.models import Plan, PlanVersion, Subscription
from billing.problems import not_found
from pricing.money import decimal_string

LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrent_calls")


class PlansView(APIView):
    def get(self, request: Request) -> Response:
        single_parameters(request, ())
        return Response({"data": [plan_document(plan) for plan in _seen_by(request) if plan.offered]})


class PlanView(APIView):
    def get(self, request: Request, plan: str) -> Response:
        single_parameters(request, ())
        found = _seen_by(request).filter(slug=plan).first()
        if found is None or not found.offered:
            raise not_found(f"There is no plan {plan[:50]!r}.")
        return Response(plan_document(found))


def plan_document(plan: Any) -> dict[str, Any]:
    """The plan as a new subscription gets it."""
    version: PlanVersion = plan.offered[0]
    return {
        "slug": plan.slug,
        "name": plan.name,
        "description": plan.description,
        "is_public": plan.is_public,
        "version": version.number,
        "published_at": version.published_at and version.published_at.isoformat(),
        "currency": version.currency,
        "base_fee": decimal_string(version.base_fee),
        "interval": version.interval,
        "trial_days": version.trial_days,
        "charging": version.charging,
        "hard_credits": version.hard_credits,
        "limits": {name: getattr(version, name) for name in LIMITS},
        "features": {
            feature.feature: {
                "display_name": feature.display_name,
                "unit": feature.unit,
                "included": None if feature.included is None else decimal_string(feature.included),
                "hard": feature.hard,
                "reset_period": feature.reset_period,
                "price_model": feature.price_model,
                "unit_price": _text(feature.unit_price),
                "tiers": feature.tiers,
                "package_size": _text(feature.package_size),
                "percent": _text(feature.percent),
                "minimum": _text(feature.minimum),
                "maximum": _text(feature.maximum),
                "aggregation": feature.aggregation,
            }
            for feature in version.features.all()
        },
    }


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else decimal_string(amount)


def _seen_by(request: Request) -> QuerySet[Any]:
    """The plans that the caller may see, each with its published versions, newest first, as `offered`."""
    versions = PlanVersion.objects.published().order_by("-number").prefetch_related("features")
    plans: QuerySet[Any] = Plan.objects.prefetch_related(Prefetch("versions", versions, to_attr="offered"))
    if is_operator(request):
        return plans
    own = Subscription.objects.running().filter(customer__in=customers_seen_by(request))
    return plans.filter(Q(is_public=True) | Q(pk__in=own.values("plan_version__plan_id")))
