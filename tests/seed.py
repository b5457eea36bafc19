"""`python -m tests.seed`: migrates the database of DATABASE_URL, loads prices and customers, and prints them as JSON.

Run once a session; every database of a started server is a copy of the outcome.
"""

import json
from decimal import Decimal

import django


def seed() -> dict[str, str]:
    """Fills the database; answers the fields of `tests.servers.Seed`."""
    from django.core.management import call_command

    from billing import ledger
    from billing.models import ApiKey, Customer, OperatorToken, Plan, PlanVersion
    from billing.plans import publish
    from pricing import clock
    from pricing.catalog import import_prices

    call_command("migrate", verbosity=0)
    import_prices(book="cost")
    import_prices(book="list", markup_percent=Decimal(20))
    payer = Customer.objects.create(external_id="payer", name="Payer")
    stranger = Customer.objects.create(external_id="stranger", name="Stranger")
    prepaid = Customer.objects.create(external_id="prepaid", name="Prepaid")
    ledger.set_hard(prepaid, hard=True)
    capping = PlanVersion.objects.create(
        plan=Plan.objects.create(slug="capping", name="Capping"), number=1, charging="prepaid", hard_credits=True, when_short="cap",
        outage="closed",
    )  # fmt: skip
    publish(capping, clock.now())
    _, prepaid_key = ApiKey.issue(prepaid, "tests")
    _, operator_token = OperatorToken.issue("tests")
    _, payer_key = ApiKey.issue(payer, "tests")
    _, stranger_key = ApiKey.issue(stranger, "tests")
    return {
        "customer_id": str(payer.id),
        "api_key": payer_key,
        "other_customer_id": str(stranger.id),
        "other_api_key": stranger_key,
        "prepaid_api_key": prepaid_key,
        "operator_token": operator_token,
    }


if __name__ == "__main__":
    django.setup()
    print(json.dumps(seed()))
