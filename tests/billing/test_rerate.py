"""Re-rating a customer by your own name for it."""

from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command, get_commands

from billing.management.commands.rerate import Command
from billing.models import Customer

pytestmark = pytest.mark.django_db


def test_the_command_of_this_app_stands_in_front() -> None:
    assert get_commands()["rerate"] == "billing"


def test_a_customer_is_found_by_either_name_and_usage_outlives_it() -> None:
    customer, gone = Customer.objects.create(external_id="org-1", name="Payer"), uuid4()
    command = Command()
    assert command.customer("org-1") == command.customer(str(customer.pk)) == customer.pk
    assert command.customer(str(gone)) == gone


def test_a_name_that_nobody_has_is_refused() -> None:
    with pytest.raises(CommandError, match="--customer org-2"):
        call_command(
            "rerate", "--from", "2026-11-20", "--to", "2026-11-21", "--customer", "org-2", stdout=StringIO()
        )
