"""Invoices over the API, on the command line and in the admin: seen by their customer, moved on by operators."""

import json
from datetime import date
from decimal import Decimal
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.test import Client

from billing import tasks
from billing.invoicing import finalise
from billing.models import Customer, Invoice, InvoiceLine, OperatorToken, ParkedBilling
from metering.models import DailyUsage
from project.celery import app
from tests.billing.rows import payer, used
from tests.billing.test_drafts import APRIL, MARCH, NOW

pytestmark = pytest.mark.django_db
D = Decimal


@pytest.fixture
def own() -> Client:
    """The key of a customer that has used something in March, on pay as you go."""
    customer, secret = payer(created_at=MARCH.start)
    used(customer, date(2026, 3, 9), calls=3, tokens=(100, 20), charge="1.230000000001")
    used(customer, date(2026, 3, 10), calls=2, tokens=(10, 2), charge="0.5")
    used(customer, date(2026, 3, 9), feature="ocr_scans", calls=75)
    return caller(secret)


@pytest.fixture
def operator() -> Client:
    return caller(OperatorToken.issue("tests")[1])


def caller(secret: str) -> Client:
    return Client(headers={"Authorization": f"Bearer {secret}"})


def post(client: Client, path: str, **body: Any) -> Any:
    return client.post(f"/v1/invoices/{path}", json.dumps(body), "application/json")


def invoice_of_march() -> Invoice:
    invoice, _ = finalise(Customer.objects.get(external_id="payer"), MARCH, NOW)
    assert invoice is not None
    return invoice


def test_a_draft_shows_what_the_period_comes_to_before_it_is_billed(own: Client) -> None:
    draft = own.get("/v1/invoices/draft").json()
    assert (draft["state"], draft["number"], draft["total"], draft["carried"]) == (
        "draft",
        None,
        "2.98",
        "0.000000000001",
    )
    assert [(line["kind"], line["amount"]) for line in draft["lines"]] == [
        ("feature", "1.25"),
        ("usage", "1.73"),
    ]
    assert draft["period"] == {"start": "2026-03-01T00:00:00+00:00", "end": "2026-04-01T00:00:00+00:00"}


def test_a_customer_sees_its_own_invoices_and_nobody_elses(own: Client, operator: Client) -> None:
    invoice = invoice_of_march()
    _, secret = payer("second")
    stranger = caller(secret)
    [shown] = own.get("/v1/invoices").json()["data"]
    assert (shown["number"], shown["total"], shown["state"]) == ("2026-000001", "2.98", "open")
    assert stranger.get("/v1/invoices").json()["data"] == []
    for path in (f"/v1/invoices/{invoice.pk}", f"/v1/invoices/{invoice.pk}/lines/{uuid4()}/explain"):
        assert stranger.get(path).status_code == 404
    assert stranger.get("/v1/invoices?customer=payer").status_code == 403
    assert [one["number"] for one in operator.get("/v1/invoices?customer=payer").json()["data"]] == [
        "2026-000001"
    ]
    for path in ("run", f"{invoice.pk}/pay", f"{invoice.pk}/void", f"{invoice.pk}/notes"):
        assert post(own, path, reason="x").status_code == 403


def test_a_line_says_its_days_its_events_and_adds_up(own: Client) -> None:
    invoice = invoice_of_march()
    lines = own.get(f"/v1/invoices/{invoice.pk}").json()["lines"]
    scans, usage = (own.get(f"/v1/invoices/{invoice.pk}/lines/{line['id']}/explain").json() for line in lines)
    assert (scans["formula"], scans["total"]) == ("25 × 0.05 = 1.25", "75")
    assert [(one["day"], one["calls"], one["charge"]) for one in usage["days"]] == [
        ("2026-03-09", 3, "1.230000000001"), ("2026-03-10", 2, "0.5"),
    ]  # fmt: skip
    assert (usage["exact"], usage["total"], usage["since"]) == ("1.730000000001", "1.730000000001", "0")
    assert usage["rounding"] is not None and scans["rounding"] is None
    DailyUsage._base_manager.filter(day=date(2026, 3, 10)).update(charge_total=D(1))
    again = own.get(f"/v1/invoices/{invoice.pk}/lines/{lines[1]['id']}/explain").json()
    assert (again["exact"], again["since"]) == ("1.730000000001", "0.5"), "what came since is told beside it"


def test_a_dry_run_tells_what_a_run_then_does(own: Client, operator: Client) -> None:
    told = post(operator, "run", dry_run=True).json()
    assert (told["counts"], told["totals"], Invoice.objects.count()) == ({"charged": 1}, {"USD": "2.98"}, 0)
    done = post(operator, "run", customer="payer").json()
    assert done["totals"] == {"USD": "2.98"} and done["data"][0]["invoice"] == Invoice.objects.get().number
    assert post(operator, "run").json()["counts"].get("charged") is None
    assert post(operator, "run", customer="nobody").status_code == 404
    assert post(operator, "run", dryrun=True).status_code == 400


def test_an_open_invoice_is_paid_once_and_a_paid_one_is_not_void(own: Client, operator: Client) -> None:
    invoice = invoice_of_march()
    for _ in range(2):
        assert post(operator, f"{invoice.pk}/pay").json()["state"] == "paid"
    refused = post(operator, f"{invoice.pk}/void", reason="wrong")
    assert (refused.status_code, refused.json()["code"]) == (409, "invoice_conflict")


def test_one_that_was_given_up_may_still_be_paid(own: Client, operator: Client) -> None:
    invoice = invoice_of_march()
    given_up = post(operator, f"{invoice.pk}/uncollectible", reason="insolvent").json()
    assert (given_up["state"], given_up["reason"]) == ("uncollectible", "insolvent")
    assert post(operator, f"{invoice.pk}/pay").json()["state"] == "paid"


def test_a_void_invoice_keeps_its_number_and_the_period_is_billed_anew(own: Client, operator: Client) -> None:
    invoice = invoice_of_march()
    assert post(operator, f"{invoice.pk}/void", reason="wrong plan").json()["state"] == "void"
    again = invoice_of_march()
    assert (again.number, again.total) == ("2026-000002", invoice.total)


def test_only_the_last_invoice_is_voided(own: Client, operator: Client) -> None:
    invoice = invoice_of_march()
    customer = Customer.objects.get()
    used(customer, date(2026, 4, 9), charge="1")
    finalise(customer, APRIL, NOW)
    assert post(operator, f"{invoice.pk}/void", reason="wrong").status_code == 409


def test_notes_take_back_no_more_than_was_billed(own: Client, operator: Client) -> None:
    invoice = invoice_of_march()
    credit = post(operator, f"{invoice.pk}/notes", amount="-2.00", reason="goodwill").json()
    assert (credit["kind"], credit["total"], credit["corrects"]) == ("credit_note", "-2", "2026-000001")
    assert post(operator, f"{invoice.pk}/notes", amount="-0.99", reason="more").status_code == 409
    debit = post(operator, f"{invoice.pk}/notes", amount="0.01", reason="forgotten").json()
    assert (debit["kind"], debit["number"]) == ("debit_note", "2026-000003")
    assert post(operator, f"{invoice.pk}/notes", amount="-0.99", reason="more").status_code == 201
    for wrong in ("0", "0.001", "NaN"):
        assert post(operator, f"{invoice.pk}/notes", amount=wrong, reason="x").status_code == 409
    assert post(operator, f"{invoice.pk}/notes", amount="1", reason=" ").status_code == 409


def test_the_command_says_what_became_of_each_customer(own: Client) -> None:
    out = StringIO()
    call_command("run_billing", "--dry-run", "--customer", "payer", stdout=out)
    assert "total: 2.98 USD" in out.getvalue() and Invoice.objects.count() == 0
    call_command("run_billing", stdout=out)
    assert Invoice.objects.get().number in out.getvalue()
    with pytest.raises(CommandError, match="no customer 'nobody'"):
        call_command("run_billing", "--customer", "nobody")


def test_the_job_bills_what_is_over(own: Client) -> None:
    assert "billing.invoices" in {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert (tasks.bill_what_is_over(), tasks.bill_what_is_over()) == (1, 0)


def test_the_admin_shows_invoices_and_what_is_behind_a_line(own: Client) -> None:
    invoice = invoice_of_march()
    ParkedBilling.objects.create(
        customer=Customer.objects.get(), period_start=MARCH.start, reason="no rate", first_at=NOW, last_at=NOW
    )
    admin = Client()
    admin.force_login(get_user_model().objects.create_superuser("root", "root@example.com", "pw"))
    base = "/admin/tollgate_billing"
    assert "25 × 0.05 = 1.25" in admin.get(f"{base}/invoice/{invoice.pk}/change/").content.decode()
    line = InvoiceLine.objects.get(kind="usage")
    assert "1.730000000001" in admin.get(f"{base}/invoiceline/{line.pk}/change/").content.decode()
    admin.post(f"{base}/invoice/", {"action": "mark_paid", "_selected_action": [str(invoice.pk)]})
    invoice.refresh_from_db()
    assert invoice.state == "paid"
    assert "no rate" in admin.get(f"{base}/parkedbilling/").content.decode()
    customer = str(Customer.objects.get().pk)
    admin.post(f"{base}/parkedbilling/", {"action": "try_again", "_selected_action": [customer]})
    assert not ParkedBilling.objects.exists() or ParkedBilling.objects.get().attempts == 1
