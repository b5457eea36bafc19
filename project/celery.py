"""The Celery application and when its jobs run, in UTC.

Every job is a sweep over the state of the database. A message that waits longer than its interval expires: the next tick
does the same work, and a worker that was away does not come back to a queue of a day's ticks.
"""

import os
from datetime import timedelta
from typing import Any

from celery import Celery
from celery.schedules import crontab
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")

SWEEP_S = 10
VACUUM_S = 5
RATE_UNPRICED_S = 30
EXPIRE_CREDITS_S = 10
ALERTS_S = 5
TOP_UP_S = 10
SUBSCRIPTIONS_S = 10


def _every(task: str, seconds: int) -> dict[str, Any]:
    return {"task": task, "schedule": timedelta(seconds=seconds), "options": {"expires": seconds}}


def _at(task: str, when: crontab) -> dict[str, Any]:
    return {"task": task, "schedule": when, "options": {"expires": 3600}}


app = Celery("tollgate")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    "sweep dead writers' holds": _every("metering.sweep", SWEEP_S),
    "rate what had no price": _every("metering.rate_unpriced", RATE_UNPRICED_S),
    "expire credits": _every("billing.expire_credits", EXPIRE_CREDITS_S),
    "say which thresholds were reached": _every("billing.alerts", ALERTS_S),
    "change subscriptions as arranged": _every("billing.subscriptions", SUBSCRIPTIONS_S),
    "buy credits that have run low": _every("billing.top_up", TOP_UP_S),
    "vacuum the hot tables": _every("metering.vacuum", VACUUM_S),
    "make partitions ahead": _at("metering.partitions", crontab(hour=0, minute=10)),
    "compare our rates with the price catalogues": _at("pricing.sync_prices", crontab(hour=3, minute=30)),
    "compare events with daily usage": _at("metering.check_rollups", crontab(minute=5)),
    "add the ledger up again": _at("billing.check_ledger", crontab(minute=15)),
}


@app.on_after_configure.connect
def _as_set(sender: Celery, **kwargs: Any) -> None:
    """The job whose hour is a setting: settings cannot be read while Django is on its way to them."""
    sender.conf.beat_schedule["bill the periods that are over"] = _at(
        "billing.invoices", settings.BILLING_CRON
    )
