"""What the admission check adds to an empty view of the same server: customers with credits, a quota, a budget and a limit of
calls at once, on a durable PostgreSQL."""

import os
import subprocess
import sys
from collections.abc import Iterator

from benchmarks.figures import Figure, median
from benchmarks.http import load
from benchmarks.servers import ROOT, postgresql, web

ROUNDS, SECONDS = 5, 3.0
EMPTY, CHECK = "/empty", "/v1/usage/check"
_CUSTOMERS = """
import django
django.setup()
from decimal import Decimal
from benchmarks.load import CUSTOMERS
from billing import ledger
from billing.models import ApiKey, Budget, Customer, QuotaOverride
from pricing import clock
for number in range(CUSTOMERS):
    customer = Customer.objects.create(external_id=f"c{number}", name=f"Customer {number}")
    ApiKey.issue(customer, secret=f"tg_bench_{number}", concurrent_calls=9)
    QuotaOverride.objects.create(customer=customer, feature="api_calls", included=10**6, hard=True)
    Budget.objects.create(customer=customer, amount=10**6, measure="tokens", hard=True)
    ledger.set_hard(customer, hard=True)
    ledger.grant(customer, Decimal(100), "USD", key="bench", at=clock.now())
"""


def measure() -> Iterator[Figure]:
    """What one check at a time waits longer than the empty view, and with eight at once."""
    with postgresql() as url:
        env = {"DATABASE_URL": url, "DJANGO_SETTINGS_MODULE": "project.settings"}
        subprocess.run([sys.executable, "-c", _CUSTOMERS], cwd=ROOT, env={**os.environ, **env}, check=True)
        with web("benchmarks.apps:check", env) as server:
            for path in (EMPTY, CHECK):
                load(server, 1, 1.0, path=path)
            for connections, goal in ((1, 5.0), (8, None)):
                pairs = [
                    [load(server, connections, SECONDS, path=path) for path in (EMPTY, CHECK)]
                    for _ in range(ROUNDS)
                ]
                for name in ("p50", "p99"):
                    added = median([check[name] - empty[name] for empty, check in pairs])
                    yield Figure(
                        f"check added {name}, {connections} at once", added, "ms", goal=goal if name == "p99" else None, at_most=True
                    )  # fmt: skip
