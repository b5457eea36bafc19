"""Plans, their versions, and what a version includes. A published version is what customers agreed to: it is never edited."""

from datetime import datetime
from typing import Any, ClassVar, get_args

from django.core.exceptions import ValidationError
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models, transaction
from django.db.models import F, Q

from billing import features, periods
from billing.models.customer import check_currency, default_currency
from billing.price_terms import price_terms_of
from metering.ids import uuid7
from pricing import clock
from pricing.fields import AmountField
from pricing.price_models import InvalidTiers

TRIAL_DAYS_MAX = 730
INTERVALS = [(interval, interval) for interval in get_args(periods.Interval)]


def limit_field(help_text: str) -> "models.PositiveIntegerField[int | None, int | None]":
    """A bound that may be absent."""
    return models.PositiveIntegerField(
        null=True, blank=True, validators=[MinValueValidator(1)], help_text=help_text
    )


class VersionPublished(ValueError):
    """The version is published, so it is what customers agreed to: a change is a new version. Nothing was changed."""


class Plan(models.Model):
    """What a customer can subscribe to. What it costs and includes is said by its versions."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    slug = models.SlugField(max_length=50, unique=True, help_text="Its name in the API, as in payg.")
    name = models.CharField(max_length=100)
    description = models.CharField(max_length=500, blank=True)
    is_public = models.BooleanField(default=True, help_text="Whether customers are shown it.")
    created_at = models.DateTimeField(default=clock.now, editable=False)

    class Meta:
        db_table = "billing_plans"
        ordering = ["slug"]

    def __str__(self) -> str:
        return self.name

    @property
    def current(self) -> "PlanVersion | None":
        """The version that a new subscription gets: the last one published."""
        return self.versions.published().order_by("-number").first()


class PlanVersionQuerySet(models.QuerySet["PlanVersion"]):
    def drafts(self) -> "PlanVersionQuerySet":
        return self.filter(published_at=None)

    def published(self) -> "PlanVersionQuerySet":
        return self.exclude(published_at=None)

    def publish(self, at: datetime) -> int:
        """Publish those of them that are drafts; how many were. From then on they stand."""
        return super(PlanVersionQuerySet, self.drafts()).update(published_at=at)

    def update(self, **kwargs: Any) -> int:
        self.refuse_published()
        return super().update(**kwargs)

    def delete(self) -> tuple[int, dict[str, int]]:
        self.refuse_published()
        return super().delete()

    def refuse_published(self) -> None:
        """Raise VersionPublished if one of them is."""
        standing = self.published().select_related("plan").first()
        if standing is not None:
            raise VersionPublished(
                f"{standing} is published and never edited or deleted: a change is a new version."
            )


class PlanVersion(models.Model):
    """The terms of a plan from one publication to the next. Who subscribed to a version keeps it."""

    class Charging(models.TextChoices):
        ARREAR = "arrear", "monthly in arrear"
        REAL_TIME = "real_time", "per call"
        PREPAID = "prepaid", "from credits"

    class WhenShort(models.TextChoices):
        REFUSE = "refuse", "refuse the call"
        CAP = "cap", "lower max_tokens to what fits"

    class Outage(models.TextChoices):
        OPEN = "open", "let calls through"
        CLOSED = "closed", "refuse calls"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="versions")
    number = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    published_at = models.DateTimeField(null=True, blank=True, editable=False, help_text="Empty: a draft.")
    currency = models.CharField(max_length=3, default=default_currency, validators=[check_currency])
    base_fee = AmountField(default=0, validators=[MinValueValidator(0)], help_text="Per interval.")
    interval = models.CharField(max_length=8, choices=INTERVALS, default="month")
    trial_days = models.PositiveSmallIntegerField(default=0, validators=[MaxValueValidator(TRIAL_DAYS_MAX)])
    charging = models.CharField(max_length=10, choices=Charging.choices, default=Charging.ARREAR)
    hard_credits = models.BooleanField(
        default=False,
        help_text="On: a call that the credits do not cover is refused. Always on with credits.",
    )
    when_short = models.CharField(
        max_length=6, choices=WhenShort.choices, default=WhenShort.REFUSE, help_text="What a hard limit does."
    )
    outage = models.CharField(
        max_length=6, choices=Outage.choices, default=Outage.OPEN, help_text="While the database is away."
    )
    shows_cost = models.BooleanField(
        "shows cost", default=False, help_text="Whether the customer sees what the provider charges us."
    )
    blocks_unpriced = models.BooleanField(
        "block unpriced models", default=False, help_text="On: calls to a model without a price are refused."
    )
    cost_book = models.SlugField("cost book", max_length=64, default="cost", help_text="Price book.")
    list_book = models.SlugField("list book", max_length=64, default="list", help_text="Price book.")
    requests_per_minute = limit_field("Empty: no limit.")
    tokens_per_minute = limit_field("Empty: no limit.")
    concurrent_calls = limit_field("Calls in flight at once. Empty: no limit.")
    created_at = models.DateTimeField(default=clock.now, editable=False)

    objects: ClassVar[PlanVersionQuerySet] = PlanVersionQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        db_table = "billing_plan_versions"
        ordering = ["plan__slug", "-number"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["plan", "number"], name="billing_plan_versions_number"),
            models.CheckConstraint(condition=Q(number__gte=1), name="billing_plan_versions_from_one"),
            models.CheckConstraint(condition=Q(base_fee__gte=0), name="billing_plan_versions_fee"),
            models.CheckConstraint(condition=Q(trial_days__lte=TRIAL_DAYS_MAX), name="billing_plan_versions_trial"),
            models.CheckConstraint(condition=Q(interval__in=get_args(periods.Interval)), name="billing_plan_versions_interval"),
            models.CheckConstraint(condition=Q(charging__in=["arrear", "real_time", "prepaid"]), name="billing_plan_versions_charging"),
            models.CheckConstraint(condition=~Q(charging="prepaid") | Q(hard_credits=True), name="billing_plan_versions_hard"),
            models.CheckConstraint(condition=Q(when_short__in=["refuse", "cap"]), name="billing_plan_versions_when_short"),
            models.CheckConstraint(condition=Q(outage__in=["open", "closed"]), name="billing_plan_versions_outage"),
            models.CheckConstraint(condition=~Q(cost_book="") & ~Q(list_book=""), name="billing_plan_versions_books"),
            models.CheckConstraint(
                condition=(Q(requests_per_minute=None) | Q(requests_per_minute__gte=1))
                    & (Q(tokens_per_minute=None) | Q(tokens_per_minute__gte=1))
                    & (Q(concurrent_calls=None) | Q(concurrent_calls__gte=1)),
                name="billing_plan_versions_limits",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return f"{self.plan} {self.number}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            _lock_draft(self.pk)
            super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            _lock_draft(self.pk)
            return super().delete(*args, **kwargs)

    @property
    def is_published(self) -> bool:
        return self.published_at is not None

    def clean(self) -> None:
        if self.charging == self.Charging.PREPAID and not self.hard_credits:
            raise ValidationError({"hard_credits": "A plan that is paid from credits is hard."})


class PlanFeatureQuerySet(models.QuerySet["PlanFeature"]):
    def update(self, **kwargs: Any) -> int:
        self._refuse_published()
        return super().update(**kwargs)

    def delete(self) -> tuple[int, dict[str, int]]:
        self._refuse_published()
        return super().delete()

    def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list["PlanFeature"]:
        added = list(objs)
        PlanVersion.objects.filter(pk__in={feature.version_id for feature in added}).refuse_published()
        return super().bulk_create(added, *args, **kwargs)

    def _refuse_published(self) -> None:
        PlanVersion.objects.filter(pk__in=self.values("version_id")).refuse_published()


class PlanFeature(models.Model):
    """What a version of a plan says of one feature: how much it includes, and what happens beyond."""

    class Reset(models.TextChoices):
        DAY = "day"
        WEEK = "week"
        MONTH = "month"
        BILLING = "billing", "billing period"

    class PriceModel(models.TextChoices):
        BOOK = "book", "as the price book says, event by event"
        FLAT = "flat", "each at the unit price"
        GRADUATED = "graduated", "each part at the price of its tier"
        VOLUME = "volume", "all at the price of the tier that is reached"
        PACKAGE = "package", "by started packages"
        PERCENTAGE = "percentage", "a percentage of what it cost"

    class Aggregation(models.TextChoices):
        SUM = "sum"
        MAX = "max", "highest level"
        LAST = "last", "last level"

    version = models.ForeignKey(PlanVersion, on_delete=models.CASCADE, related_name="features")
    feature = models.CharField(max_length=64, help_text="As in api_calls.")
    display_name = models.CharField(max_length=100)
    unit = models.CharField(max_length=32, help_text="One of what is counted, as in call.")
    included = AmountField(
        null=True, blank=True, default=0, validators=[MinValueValidator(0)], help_text="Empty: unlimited."
    )
    hard = models.BooleanField(default=False, help_text="On: calls beyond what is included are refused.")
    reset_period = models.CharField(max_length=8, choices=Reset.choices, default=Reset.BILLING)
    price_model = models.CharField(
        max_length=10,
        choices=PriceModel.choices,
        default=PriceModel.BOOK,
        help_text="Beyond what is included.",
    )
    unit_price = AmountField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="Flat: of one. Package: of a package. Percentage: of one, beside the percentage.",
    )
    tiers = models.JSONField(
        default=list,
        blank=True,
        help_text='Graduated and volume: [{"up_to": "100", "unit_price": "0.05", "flat_fee": "0"}, {"up_to": null, …}].',
    )
    package_size = AmountField(null=True, blank=True, help_text="How many are a package.")
    percent = AmountField(
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="Of what it cost, 120 is 20 % on top.",
    )
    minimum = AmountField(
        null=True, blank=True, validators=[MinValueValidator(0)], help_text="Per billing period."
    )
    maximum = AmountField(
        null=True, blank=True, validators=[MinValueValidator(0)], help_text="Per billing period."
    )
    aggregation = models.CharField(
        max_length=4,
        choices=Aggregation.choices,
        default=Aggregation.SUM,
        help_text="Levels, as of storage, are not summed.",
    )

    objects: ClassVar[PlanFeatureQuerySet] = PlanFeatureQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        db_table = "billing_plan_features"
        ordering = ["feature"]
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["version", "feature"], name="billing_plan_features_once"),
            models.CheckConstraint(condition=~Q(feature=""), name="billing_plan_features_named"),
            models.CheckConstraint(condition=Q(included=None) | Q(included__gte=0), name="billing_plan_features_included"),
            models.CheckConstraint(condition=Q(unit_price=None) | Q(unit_price__gte=0), name="billing_plan_features_price"),
            models.CheckConstraint(condition=Q(reset_period__in=["day", "week", "month", "billing"]), name="billing_plan_features_reset"),
            models.CheckConstraint(
                condition=Q(price_model__in=["book", "graduated", "volume"]) | Q(price_model="flat", unit_price__gte=0)
                    | Q(price_model="package", unit_price__gte=0, package_size__gt=0) | Q(price_model="percentage", percent__gte=0),
                name="billing_plan_features_model",
            ),
            models.CheckConstraint(condition=Q(aggregation__in=["sum", "max", "last"]), name="billing_plan_features_aggregation"),
            models.CheckConstraint(
                condition=(Q(minimum=None) | Q(minimum__gte=0)) & (Q(maximum=None) | Q(maximum__gte=0))
                    & (Q(minimum=None) | Q(maximum=None) | Q(maximum__gte=F("minimum"))),
                name="billing_plan_features_bounds",
            ),
        ]  # fmt: skip

    def __str__(self) -> str:
        return self.display_name or self.feature

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            _lock_draft(self.version_id)
            super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        with transaction.atomic():
            _lock_draft(self.version_id)
            return super().delete(*args, **kwargs)

    def clean(self) -> None:
        self.feature = features.canonical(self.feature)
        if self.feature == "tokens" and self.price_model != self.PriceModel.BOOK:
            raise ValidationError(
                {"price_model": "Tokens are priced by the price book, each at its model's rate."}
            )
        needed = {
            "flat": ("unit_price",),
            "package": ("unit_price", "package_size"),
            "percentage": ("percent",),
        }
        for name in needed.get(self.price_model, ()):
            if getattr(self, name) is None:
                raise ValidationError({name: f"A price that is {self.price_model} needs it."})
        try:
            price_terms_of(self)
        except InvalidTiers as error:
            raise ValidationError({"tiers": str(error)}) from None


def _lock_draft(version_id: Any) -> None:
    """Keep the version from being published until the transaction ends. Raises VersionPublished where it was before."""
    version = PlanVersion.objects.select_for_update().filter(pk=version_id).first()
    if version is not None and version.is_published:
        PlanVersion.objects.filter(pk=version_id).refuse_published()
