"""Jobs of pricing. Each may run twice at once, die anywhere, or lose its message; the next tick does the same."""

import logging

from celery import shared_task

from pricing import clock
from pricing.models import ClockOffset
from pricing.proposals import OtherCurrency, sync

log = logging.getLogger("pricing.tasks")


@shared_task(name="pricing.sync_prices", ignore_result=True)
def sync_prices() -> int:
    """Compare our rates with the price catalogues; how many differences are new."""
    clock.set_offset(ClockOffset.read())
    try:
        run = sync(clock.now())
    except OtherCurrency as error:
        log.warning("nothing is compared: %s", error)
        return 0
    for problem in run.problems:
        log.warning("not understood: %s", problem)
    log.info(
        "%d prices confirmed, %d differences are new, %d applied by policy",
        run.confirmed,
        run.opened,
        run.applied,
    )
    return run.opened
