"""`python -m tests.e2e.aftermath`: what operations does after a crash, made quick: drain what the dead have spooled, sweep
whoever is silent, compare the books.

Prints the differences that are left as JSON. Run it when no web process is alive: it looks more often than a process beats.
"""

import json
import time
from datetime import timedelta
from pathlib import Path

import django

LOOK_S = 0.2
LOOKS_MAX = (
    100  # a statement of a killed process may still be on its way, and counts as a beat when it arrives
)


def clean_up() -> list[str]:
    """Sweeps until every dead writer is fenced and has left nothing; answers what the check of the books finds."""
    from metering import rollups, sweeper
    from metering.models import Hold, Writer
    from metering.spool import drain_abandoned
    from metering.wiring import current_card, current_store, option
    from pricing import clock
    from pricing.refresh import Refresher

    card = current_card()
    Refresher(card).refresh_now()
    store = current_store()
    for _ in range(LOOKS_MAX):
        drain_abandoned(store, Path(option("SPOOL_DIR", "")))
        sweeper.sweep(store, card.card, clock.now, every=timedelta(seconds=LOOK_S / 2))
        if not Writer.objects.filter(fenced_at__isnull=True).exists() and not Hold.objects.exists():
            break
        time.sleep(LOOK_S)
    today = clock.now().date()
    return [str(drift) for day in (today - timedelta(days=1), today) for drift in rollups.check_day(day)]


if __name__ == "__main__":
    django.setup()
    print(json.dumps(clean_up()))
