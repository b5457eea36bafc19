"""Plans: what ships, what a published version refuses, how the next one comes to be."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, transaction

from billing import plans
from billing.models import Plan, PlanFeature, PlanVersion, VersionPublished

pytestmark = pytest.mark.django_db

AT = datetime(2026, 11, 20, 12, tzinfo=UTC)


def shipped(slug: str) -> PlanVersion:
    version = Plan.objects.get(slug=slug).current
    assert version is not None
    return version


def draft(**terms: Any) -> PlanVersion:
    plan, _ = Plan.objects.get_or_create(slug="own", defaults={"name": "Own"})
    return PlanVersion.objects.create(**{"plan": plan, "number": 1, **terms})


def published(**terms: Any) -> PlanVersion:
    version = draft(**terms)
    PlanFeature.objects.create(
        version=version, feature="scans", display_name="Scans", unit="scan", included=5
    )
    plans.publish(version, AT)
    return version


# What ships

PAY_AS_YOU_GO: dict[str, tuple[int, str]] = {
    "ocr_scans": (50, "0.05"), "api_calls": (10_000, "0.001"), "storage": (5, "0.02"), "ai_classifications": (100, "0.01"),
    "emails": (1_000, "0.005"), "bank_syncs": (30, "0.03"), "sms_messages": (100, "0.10"), "pdf_exports": (200, "0.02"),
    "webhooks": (5_000, "0.002"), "custom_reports": (50, "0.05"),
}  # fmt: skip


@pytest.mark.parametrize(
    ("slug", "fee", "included"),
    [
        ("free", 0, {"api_calls": 1_000, "scans": 10, "wallet_checks": 100}),
        ("professional", 49, {"api_calls": 50_000, "scans": 1_000, "wallet_checks": 10_000}),
        ("enterprise", 0, {"api_calls": None, "scans": None, "wallet_checks": None}),
        ("payg", 0, {name: included for name, (included, _) in PAY_AS_YOU_GO.items()}),
        ("prepaid", 0, {"api_calls": 0, "documents": 0, "tokens": 0}),
    ],
)
def test_plans_come_with_the_tables(slug: str, fee: int, included: dict[str, int | None]) -> None:
    version = shipped(slug)
    assert (version.number, version.base_fee, version.interval, version.currency) == (1, fee, "month", "USD")
    assert dict(version.features.values_list("feature", "included")) == included
    assert not version.features.filter(hard=True).exists()


@pytest.mark.parametrize(("slug", "price"), [("free", "0.01"), ("professional", "0.01"), ("prepaid", None)])
def test_beyond_what_is_included_a_cent_or_the_price_book(slug: str, price: str | None) -> None:
    prices = set(shipped(slug).features.values_list("unit_price", "price_model"))
    assert prices == {(None, "book") if price is None else (Decimal(price), "flat")}


def test_pay_as_you_go_prices_ten_features_and_of_storage_the_highest_level() -> None:
    features = shipped("payg").features.all()
    prices = {one.feature: (one.included, one.unit_price) for one in features}
    assert prices == {name: (included, Decimal(price)) for name, (included, price) in PAY_AS_YOU_GO.items()}
    assert {one.feature for one in features if one.aggregation == "max"} == {"storage"}
    assert {one.price_model for one in features} == {"flat"}


def test_only_the_prepaid_plan_refuses_what_credits_do_not_cover() -> None:
    hard = PlanVersion.objects.filter(hard_credits=True)
    assert [(one.plan.slug, one.charging, one.outage) for one in hard] == [("prepaid", "prepaid", "closed")]
    assert set(
        PlanVersion.objects.values_list("requests_per_minute", "tokens_per_minute", "concurrent_calls")
    ) == {(None, None, None)}


def test_shipping_again_adds_nothing() -> None:
    assert plans.ship() == []
    assert (Plan.objects.count(), PlanVersion.objects.count()) == (5, 5)


def test_migrate_brings_back_what_is_missing_and_keeps_what_the_operator_made_of_the_rest() -> None:
    Plan.objects.filter(slug="professional").update(name="Ours")
    next_one = plans.draft_after(shipped("professional"))
    next_one.base_fee = Decimal(59)
    next_one.save()
    plans.publish(next_one, AT)
    free = Plan.objects.get(slug="free")
    super(type(free.versions.all()), PlanVersion.objects.filter(plan=free)).delete()
    free.delete()
    call_command("migrate", stdout=StringIO())
    professional = Plan.objects.get(slug="professional")
    assert professional.name == "Ours"
    assert [(one.number, one.base_fee) for one in professional.versions.all()] == [(2, 59), (1, 49)]
    assert shipped("free").features.count() == 3


def test_nothing_ships_while_the_tables_are_older_than_the_code() -> None:
    class Older:
        def get_model(self, label: str, name: str) -> Any:
            raise LookupError(name)

    super(type(PlanVersion.objects.all()), PlanVersion.objects.all()).delete()
    Plan.objects.all().delete()
    plans.ship_after_migrate(None, using="default", apps=Older())
    assert Plan.objects.count() == 0
    plans.ship_after_migrate(None, using="default")
    assert Plan.objects.count() == 5


# A published version stands


def test_a_published_version_is_not_edited() -> None:
    version = published()
    version.base_fee = Decimal(1)
    for act in (version.save, version.delete, PlanVersion.objects.filter(pk=version.pk).delete):
        with pytest.raises(VersionPublished, match="Own 1 is published"):
            act()
    with pytest.raises(VersionPublished):
        PlanVersion.objects.filter(plan=version.plan).update(base_fee=1)
    assert PlanVersion.objects.get(pk=version.pk).base_fee == 0


def test_the_features_of_a_published_version_are_not_edited() -> None:
    version = published()
    feature = version.features.get()
    feature.included = Decimal(6)
    another = PlanFeature(version=version, feature="tokens", display_name="Tokens", unit="token")
    for act in (feature.save, feature.delete, version.features.all().delete, another.save):
        with pytest.raises(VersionPublished):
            act()
    with pytest.raises(VersionPublished):
        version.features.update(included=6)
    with pytest.raises(VersionPublished):
        PlanFeature.objects.bulk_create([another])
    assert list(version.features.values_list("feature", "included")) == [("scans", 5)]


def test_a_version_loaded_as_a_draft_is_not_edited_once_another_has_published_it() -> None:
    version = draft()
    PlanVersion.objects.filter(pk=version.pk).publish(AT)
    with pytest.raises(VersionPublished):
        version.save()
    version.refresh_from_db()
    assert version.published_at == AT


def test_a_version_is_published_once() -> None:
    version = published()
    with pytest.raises(plans.NothingToPublish):
        plans.publish(version, AT + timedelta(days=1))
    assert version.published_at == AT


def test_a_draft_is_edited_and_deleted() -> None:
    version = draft()
    version.base_fee = Decimal(1)
    version.save()
    feature = PlanFeature.objects.create(version=version, feature="scans", display_name="Scans", unit="scan")
    feature.included = None
    feature.save()
    version.delete()
    assert not PlanFeature.objects.filter(pk=feature.pk).exists()


# The next version


def test_the_next_version_begins_with_the_terms_and_features_of_the_last() -> None:
    first = published(base_fee="9.5", trial_days=14, requests_per_minute=60, when_short="cap")
    second = plans.draft_after(first)
    assert (second.number, second.is_published) == (2, False)
    for name in ("base_fee", "trial_days", "requests_per_minute", "when_short", "plan_id"):
        assert getattr(second, name) == getattr(first, name)
    assert list(second.features.values_list("feature", "included", "unit")) == [("scans", 5, "scan")]
    assert first.plan.current == first
    assert plans.draft_after(first) == second  # the draft that waits
    plans.publish(second, AT)
    assert first.plan.current == second


def test_a_plan_without_a_published_version_has_no_current_one() -> None:
    assert draft().plan.current is None


# What the database refuses


@pytest.mark.parametrize(
    ("terms", "constraint"),
    [
        ({"number": 0}, "from_one"),
        ({"base_fee": -1}, "fee"),
        ({"trial_days": 731}, "trial"),
        ({"interval": "decade"}, "interval"),
        ({"charging": "barter"}, "charging"),
        ({"charging": "prepaid"}, "hard"),
        ({"when_short": "beg"}, "when_short"),
        ({"outage": "ajar"}, "outage"),
        ({"list_book": ""}, "books"),
        ({"cost_book": ""}, "books"),
        ({"requests_per_minute": 0}, "limits"),
        ({"tokens_per_minute": 0}, "limits"),
        ({"concurrent_calls": 0}, "limits"),
    ],
)
def test_terms_out_of_range_are_refused(terms: dict[str, Any], constraint: str) -> None:
    with pytest.raises(IntegrityError, match=f"billing_plan_versions_{constraint}"), transaction.atomic():
        draft(**terms)


def test_a_plan_has_one_version_of_a_number() -> None:
    draft()
    with pytest.raises(IntegrityError), transaction.atomic():
        draft()


@pytest.mark.parametrize(
    ("said", "constraint"),
    [
        ({"feature": ""}, "named"),
        ({"included": -1}, "included"),
        ({"unit_price": Decimal("-0.01")}, "price"),
        ({"reset_period": "aeon"}, "reset"),
    ],
)
def test_features_out_of_range_are_refused(said: dict[str, Any], constraint: str) -> None:
    facts = {"version": draft(), "feature": "scans", "display_name": "Scans", "unit": "scan", **said}
    with pytest.raises(IntegrityError, match=f"billing_plan_features_{constraint}"), transaction.atomic():
        PlanFeature.objects.create(**facts)


def test_a_version_says_one_thing_of_a_feature() -> None:
    facts: dict[str, Any] = {"version": draft(), "feature": "scans", "display_name": "Scans", "unit": "scan"}
    PlanFeature.objects.create(**facts)
    with pytest.raises(IntegrityError), transaction.atomic():
        PlanFeature.objects.create(**facts)


def test_a_form_says_that_credits_are_hard_and_takes_other_spellings() -> None:
    with pytest.raises(ValidationError, match="hard"):
        draft(hard_credits=True, charging="prepaid").__class__(
            plan=Plan.objects.get(slug="own"), number=2, charging="prepaid"
        ).full_clean()
    feature = PlanFeature(
        version=PlanVersion.objects.get(plan__slug="own"), feature="OCR_SCAN", display_name="OCR", unit="scan"
    )
    feature.full_clean()
    assert feature.feature == "ocr_scans"
