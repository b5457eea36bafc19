"""System checks: what a host project set up wrongly, with the way to mend it."""

import difflib
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning as CheckWarning, register

from metering.policy import InvalidPolicy, WhoPays

KNOWN = frozenset({
    "METERED_ROUTES", "GATE", "ENABLE_PRICING_MIDDLEWARE", "SNAPSHOT_MAX_STALE_S", "CURRENCY", "WHO_PAYS", "DEFAULT_PLAN",
    "SPOOL_DIR", "SPOOL_MAX_MB", "REDIS_URL", "PAYMENTS", "BILLING_GRACE_HOURS", "INVOICE_DUE_DAYS",
})  # fmt: skip


@register("tollgate")
def check_options(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Names in the TOLLGATE setting that nobody reads."""
    given = getattr(settings, "TOLLGATE", {})
    if not isinstance(given, dict):
        return [Error("TOLLGATE must be a dict", id="tollgate.E001")]
    return [
        *(_unknown(name) for name in given if name not in KNOWN),
        *_wrong_choices(given.get("WHO_PAYS", {})),
    ]


def _wrong_choices(options: Any) -> list[CheckMessage]:
    try:
        WhoPays.from_options(options)
    except (InvalidPolicy, TypeError, AttributeError) as error:
        return [Error(f'TOLLGATE["WHO_PAYS"]: {error}', id="tollgate.E002")]
    return []


@register("tollgate")
def check_middleware_order(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """The Django entry sees the answer that goes out only where it stands before everything that compresses it."""
    order = list(getattr(settings, "MIDDLEWARE", []))
    entry = "metering.django_middleware.metering_middleware"
    gzip = "django.middleware.gzip.GZipMiddleware"
    if entry in order and gzip in order and order.index(entry) < order.index(gzip):
        return [
            CheckWarning(
                "metering_middleware stands before GZipMiddleware and has to decompress every answer to read it",
                hint=f"Put {entry} after {gzip} in MIDDLEWARE.",
                id="tollgate.W002",
            )
        ]
    return []


def _unknown(name: str) -> CheckMessage:
    near = difflib.get_close_matches(name, KNOWN, n=1)
    hint = f"Did you mean {near[0]}?" if near else f"Known are: {', '.join(sorted(KNOWN))}."
    return CheckWarning(f"TOLLGATE has no option {name!r}", hint=hint, id="tollgate.W001")
