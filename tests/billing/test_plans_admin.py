"""Plans in the admin: drafts are written and published, what is published is to look at."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.test import Client

from billing.models import Plan, PlanVersion
from billing.plans import draft_after
from billing.subscriptions import subscribe
from tests.billing.rows import payer

pytestmark = pytest.mark.django_db

BILLING = "/admin/tollgate_billing"
AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


@pytest.fixture
def operator() -> Client:
    client = Client()
    person = get_user_model().objects.create_superuser("operator", "operator@example.com", "x" * 12)
    client.force_login(person)
    return client


@pytest.fixture
def free() -> PlanVersion:
    version = Plan.objects.get(slug="free").current
    assert version is not None
    return version


def form(version: PlanVersion, **changed: Any) -> dict[str, Any]:
    """The form of a version as a browser sends it."""
    names = (
        "currency",
        "interval",
        "trial_days",
        "charging",
        "when_short",
        "outage",
        "cost_book",
        "list_book",
    )
    sent: dict[str, Any] = {name: getattr(version, name) for name in names} | {"base_fee": "0"}
    rows = list(version.features.all())
    sent |= {"features-TOTAL_FORMS": len(rows), "features-INITIAL_FORMS": len(rows)}
    for number, row in enumerate(rows):
        facts = {
            "id": row.pk,
            "version": version.pk,
            "feature": row.feature,
            "display_name": row.display_name,
            "unit": row.unit,
        }
        facts |= {"included": row.included, "reset_period": row.reset_period, "unit_price": row.unit_price}
        facts |= {"price_model": row.price_model, "tiers": "[]", "aggregation": row.aggregation}
        sent |= {f"features-{number}-{name}": value for name, value in facts.items()}
    return sent | changed


def test_a_published_version_is_shown_and_not_changed(operator: Client, free: PlanVersion) -> None:
    page = f"{BILLING}/planversion/{free.pk}/change/"
    shown = operator.get(page).content.decode()
    assert "OCR" not in shown and "Wallet checks" in shown
    assert ">1000<" in shown and ">0.01 each<" in shown and "0.010" not in shown
    assert 'name="base_fee"' not in shown and 'name="features-0-included"' not in shown
    assert operator.post(page, form(free, base_fee="5")).status_code == 403
    assert operator.post(f"{BILLING}/planversion/{free.pk}/delete/", {"post": "yes"}).status_code == 403
    free.refresh_from_db()
    assert free.base_fee == 0


def test_the_next_version_is_written_published_and_then_stands(operator: Client, free: PlanVersion) -> None:
    chosen = {"action": "start_next", "_selected_action": [str(free.pk)]}
    opened = operator.post(f"{BILLING}/planversion/", chosen)
    draft = PlanVersion.objects.get(plan=free.plan, number=2)
    assert opened.headers["Location"].endswith(f"{draft.pk}/change/")
    sent = form(draft, base_fee="9.50", requests_per_minute="60", **{"features-0-included": ""})
    assert operator.post(opened.headers["Location"], sent).status_code == 302
    operator.post(f"{BILLING}/planversion/", {"action": "publish", "_selected_action": [str(draft.pk)]})
    current = free.plan.current
    assert current is not None
    assert (current.number, str(current.base_fee.normalize()), current.requests_per_minute) == (2, "9.5", 60)
    assert current.features.get(feature="api_calls").included is None
    again = operator.post(
        f"{BILLING}/planversion/", {"action": "publish", "_selected_action": [str(draft.pk)]}, follow=True
    )
    assert "was published before" in again.content.decode()


def test_a_draft_that_asks_for_what_cannot_be_is_sent_back(operator: Client, free: PlanVersion) -> None:
    draft = draft_after(free)
    for wrong in (
        {"base_fee": "-1"},
        {"charging": "prepaid"},
        {"trial_days": "9999"},
        {"requests_per_minute": "0"},
        {"features-0-price_model": "graduated"},
        {"features-0-price_model": "volume", "features-0-tiers": '[{"up_to": "5", "unit_price": "1"}]'},
        {"features-0-price_model": "package"},
        {"features-0-price_model": "percentage"},
    ):
        answer = operator.post(f"{BILLING}/planversion/{draft.pk}/change/", form(draft, **wrong))
        assert answer.status_code == 200 and "errorlist" in answer.content.decode(), wrong


def test_amounts_are_written_without_their_trailing_zeros(operator: Client) -> None:
    version = Plan.objects.get(slug="professional").current
    assert version is not None
    assert ">49<" in operator.get(f"{BILLING}/planversion/{version.pk}/change/").content.decode()
    draft = draft_after(version)
    form_of_draft = operator.get(f"{BILLING}/planversion/{draft.pk}/change/").content.decode()
    assert 'value="49"' in form_of_draft and 'value="0.01"' in form_of_draft


def test_a_plan_leads_to_its_versions(operator: Client, free: PlanVersion) -> None:
    link = f"{BILLING}/planversion/?plan__id__exact={free.plan_id}"
    assert link in operator.get(f"{BILLING}/plan/{free.plan_id}/change/").content.decode()
    listed = operator.get(link).content.decode()
    assert "Free 1" in listed and "Prepaid 1" not in listed


def test_a_new_plan_gets_its_first_version(operator: Client) -> None:
    operator.post(
        f"{BILLING}/plan/add/",
        {"slug": "own", "name": "Own", "versions-TOTAL_FORMS": 0, "versions-INITIAL_FORMS": 0},
    )
    plan = Plan.objects.get(slug="own")
    link = f"{BILLING}/planversion/add/?plan={plan.pk}&amp;number=1"
    assert link in operator.get(f"{BILLING}/plan/{plan.pk}/change/").content.decode()
    assert operator.get(link.replace("&amp;", "&")).status_code == 200


def test_a_plan_keeps_its_slug_and_is_never_deleted(operator: Client, free: PlanVersion) -> None:
    sent = {
        "slug": "other",
        "name": "Gratis",
        "is_public": "on",
        "versions-TOTAL_FORMS": 0,
        "versions-INITIAL_FORMS": 0,
    }
    operator.post(f"{BILLING}/plan/{free.plan_id}/change/", sent)
    plan = Plan.objects.get(pk=free.plan_id)
    assert (plan.slug, plan.name) == ("free", "Gratis")
    assert operator.post(f"{BILLING}/plan/{plan.pk}/delete/", {"post": "yes"}).status_code == 403


def test_a_subscription_is_to_look_at(operator: Client) -> None:
    subscription, _ = subscribe(payer()[0], "free", AT)
    page = f"{BILLING}/subscription/{subscription.pk}/change/"
    assert "Free 1" in operator.get(page).content.decode()
    assert operator.post(page, {"ended_at_0": "2026-11-21"}).status_code == 403
    assert operator.post(f"{BILLING}/subscription/add/", {}).status_code == 403
