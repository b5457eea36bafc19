"""Plans as acts: those that ship, and how the next version of one comes to be.

`migrate` ships what is missing and touches nothing that is there: a plan is its operator's from the first day on, and so is
every later version of it.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec
from django.apps import apps as installed
from django.conf import settings
from django.db import DEFAULT_DB_ALIAS, router, transaction
from django.db.models import Max

from billing.features import FEATURES
from billing.models import Plan, PlanFeature, PlanVersion
from pricing import clock

UNLIMITED = None


class _Shipped(msgspec.Struct, frozen=True):
    """A plan as it ships. `included` by feature; `terms` are what differs from a version's defaults."""

    slug: str
    name: str
    description: str
    included: Mapping[str, int | None]
    unit_prices: Mapping[str, Decimal] = {}  # beyond what is included; of others the price book says it
    is_public: bool = True
    terms: dict[str, Any] = {}


_FROM_THE_BOOK = dict.fromkeys(("api_calls", "tokens", "documents"), 0)
_AT_A_CENT = dict.fromkeys(("scans", "wallet_checks", "api_calls"), Decimal("0.01"))
_PAY_AS_YOU_GO = {  # what is included, and what each costs beyond
    "ocr_scans": (50, "0.05"), "api_calls": (10_000, "0.001"), "storage": (5, "0.02"), "ai_classifications": (100, "0.01"),
    "emails": (1_000, "0.005"), "bank_syncs": (30, "0.03"), "sms_messages": (100, "0.10"), "pdf_exports": (200, "0.02"),
    "webhooks": (5_000, "0.002"), "custom_reports": (50, "0.05"),
}  # fmt: skip
LEVELS = frozenset({"storage"})  # of which a period has a highest, and no sum
SHIPPED = (
    _Shipped(
        "free", "Free", "To try it.",
        {"scans": 10, "wallet_checks": 100, "api_calls": 1_000}, _AT_A_CENT,
    ),
    _Shipped(
        "professional", "Professional", "For products in use.",
        {"scans": 1_000, "wallet_checks": 10_000, "api_calls": 50_000}, _AT_A_CENT, terms={"base_fee": Decimal(49)},
    ),
    _Shipped(
        "enterprise", "Enterprise", "Without limits, by agreement.",
        dict.fromkeys(("scans", "wallet_checks", "api_calls"), UNLIMITED), is_public=False,
    ),
    _Shipped(
        "payg", "Pay as you go", "Pay for what is used, monthly in arrear.",
        {name: included for name, (included, _) in _PAY_AS_YOU_GO.items()},
        {name: Decimal(price) for name, (_, price) in _PAY_AS_YOU_GO.items()}, terms={"shows_cost": True},
    ),
    _Shipped(
        "prepaid", "Prepaid", "Pay first: a call that the credits do not cover is refused.", _FROM_THE_BOOK,
        terms={
            "charging": PlanVersion.Charging.PREPAID, "hard_credits": True, "outage": PlanVersion.Outage.CLOSED,
            "shows_cost": True, "blocks_unpriced": True,
        },
    ),
)  # fmt: skip


class NothingToPublish(ValueError):
    """The version was published before. Nothing was changed."""


def default_slug() -> str:
    """The plan of customers who have no subscription."""
    return str(getattr(settings, "TOLLGATE", {}).get("DEFAULT_PLAN", "payg"))


def publish(version: PlanVersion, at: datetime) -> None:
    """Have new subscriptions get this version from now on. Nobody can edit it any more. Raises NothingToPublish."""
    changed = PlanVersion.objects.filter(pk=version.pk).publish(at)
    version.refresh_from_db()
    if not changed:
        raise NothingToPublish(f"{version} was published before.")


def draft_after(version: PlanVersion) -> PlanVersion:
    """A draft of the plan's next version with the terms and features of this one; the draft that waits, where one does."""
    with transaction.atomic():
        plan = Plan.objects.select_for_update().get(pk=version.plan_id)
        waiting = plan.versions.drafts().order_by("-number").first()
        if waiting is not None:
            return waiting
        number = plan.versions.aggregate(last=Max("number"))["last"] + 1
        terms = {name: getattr(version, name) for name in _copied(PlanVersion, "plan", "number")}
        draft = PlanVersion.objects.create(plan=plan, number=number, **terms)
        said = _copied(PlanFeature, "version")
        PlanFeature.objects.bulk_create(
            PlanFeature(version=draft, **{name: getattr(feature, name) for name in said})
            for feature in version.features.all()
        )
        return draft


def _copied(model: type[PlanVersion] | type[PlanFeature], *left_out: str) -> list[str]:
    """The columns of a row that its successor begins with."""
    own = {"id", "created_at", "published_at", *left_out}
    return [field.name for field in model._meta.concrete_fields if field.name not in own]


def ship(using: str = DEFAULT_DB_ALIAS) -> list[str]:
    """Add the shipped plans that are missing; their slugs. Twice, or two at once, add nothing twice."""
    there = set(Plan.objects.using(using).values_list("slug", flat=True))
    missing = [plan for plan in SHIPPED if plan.slug not in there]
    if not missing:
        return []
    with transaction.atomic(using=using):
        versions = dict(_versions_of(missing, using))
        PlanFeature.objects.using(using).bulk_create(
            (
                PlanFeature(
                    version=versions[plan.slug], feature=name, display_name=FEATURES[name].display_name,
                    unit=FEATURES[name].unit, included=included, unit_price=plan.unit_prices.get(name),
                    price_model="flat" if name in plan.unit_prices else "book", aggregation="max" if name in LEVELS else "sum",
                )
                for plan in missing if plan.slug in versions
                for name, included in plan.included.items()
            ),
            ignore_conflicts=True,
        )  # fmt: skip
        drafts = [version.pk for version in versions.values()]
        PlanVersion.objects.using(using).filter(pk__in=drafts).publish(clock.now())
    return list(versions)


def _versions_of(missing: Iterable[_Shipped], using: str) -> Iterable[tuple[str, PlanVersion]]:
    """The first versions of new plans, as drafts, by slug. Another process may have added a plan by now: that one is left out."""
    rows = {
        plan.slug: Plan(
            slug=plan.slug, name=plan.name, description=plan.description, is_public=plan.is_public
        )
        for plan in missing
    }
    Plan.objects.using(using).bulk_create(rows.values(), ignore_conflicts=True)
    ours = set(
        Plan.objects.using(using)
        .filter(pk__in=[row.pk for row in rows.values()])
        .values_list("slug", flat=True)
    )
    drafts = [
        PlanVersion(plan=rows[plan.slug], number=1, **plan.terms) for plan in missing if plan.slug in ours
    ]
    PlanVersion.objects.using(using).bulk_create(drafts)
    return [(draft.plan.slug, draft) for draft in drafts]


def ship_after_migrate(sender: Any, *, using: str, apps: Any = installed, **kwargs: Any) -> None:
    """Ship after `migrate`, once the tables are as this code knows them: not where it stopped at an older migration."""
    if router.allow_migrate_model(using, Plan) and all(
        map(_as_migrated(apps), (Plan, PlanVersion, PlanFeature))
    ):
        ship(using)


def _as_migrated(apps: Any) -> Any:
    def same(model: Any) -> bool:
        try:
            migrated = apps.get_model(model._meta.app_label, model._meta.model_name)
        except LookupError:
            return False
        return {field.column for field in migrated._meta.concrete_fields} == {
            field.column for field in model._meta.concrete_fields
        }

    return same
