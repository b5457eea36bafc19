"""The catalogue: price books, dated rates, other names of models; its version; and the shared clock."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, ClassVar, NoReturn, Self

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.db.models import F, Q

from pricing import clock
from pricing.conditions import (
    EXACT,
    PREFIX,
    Conditions,
    conditions_of,
    describe,
    line_key,
    problem_with_word,
)
from pricing.conflicts import conflicts
from pricing.fields import AmountField
from pricing.hours import WEEKDAYS, is_zone, weekday_set
from pricing.money import EXACT as EXACTLY, decimal_string
from pricing.units import is_billable

ONE_ROW = 1  # the id of the only row of a table that has one
LINE_FIELDS = (
    "book_id",
    "provider",
    "model",
    "match",
    "bucket",
)  # with the conditions: what has one price at a time


class NotChangeable(ValueError):
    """The rate cannot be superseded, ended or corrected so; the message says why. Nothing was changed."""


class CatalogueVersion(models.Model):
    """Counts the changes of the catalogue. Every process looks at it each second and loads the new rates."""

    id = models.SmallIntegerField(primary_key=True, default=ONE_ROW)
    version = models.BigIntegerField(default=0)

    class Meta:
        db_table = "tollgate_catalogue_version"

    def __str__(self) -> str:
        return f"version {self.version}"

    @classmethod
    def bump(cls) -> None:
        """Announce a change, in the transaction that makes it. Its row is the lock of all who change the catalogue.

        Take it before reading what the change depends on: two rates for the same time could not see each other otherwise.
        """
        row = cls.objects.filter(id=ONE_ROW)
        if not row.update(version=F("version") + 1):
            cls.objects.get_or_create(id=ONE_ROW)
            row.update(version=F("version") + 1)


class PriceBook(models.Model):
    """A named set of rates: `cost` (what the provider charges us), `list` (what we charge), or a customer's own."""

    slug = models.SlugField(max_length=64, unique=True)
    name = models.CharField(max_length=200)
    currency = models.CharField(max_length=3, default="USD", help_text="ISO 4217; fixed once a rate exists")

    class Meta:
        db_table = "tollgate_price_books"
        ordering: ClassVar = ["slug"]

    def __str__(self) -> str:
        return self.slug

    def save(self, *args: Any, **kwargs: Any) -> None:
        with transaction.atomic():
            CatalogueVersion.bump()
            self.clean()
            super().save(*args, **kwargs)

    def clean(self) -> None:
        if self.pk and self.rates.exists():
            before = PriceBook.objects.get(pk=self.pk)
            if (before.slug, before.currency) != (self.slug, self.currency):
                raise ValidationError(
                    "slug and currency of a book are fixed once it has rates: they are history"
                )


class RateQuerySet(models.QuerySet["Rate"]):
    """Rates are history: they are added, and ended once."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise TypeError("a rate is never edited; supersede it by a new one")

    def delete(self) -> NoReturn:
        raise TypeError("a rate is never deleted; charges refer to it")

    def bulk_create(self, objs: Any, *args: Any, **kwargs: Any) -> list["Rate"]:
        rates = list(objs)
        with transaction.atomic():
            CatalogueVersion.bump()
            for rate in rates:
                rate.clean_row()
            books, models_ = {rate.book_id for rate in rates}, {rate.model for rate in rates}
            _refuse_conflicts(rates, Rate.objects.filter(book__in=books, model__in=models_))
            return super().bulk_create(rates, *args, **kwargs)

    def open(self) -> Self:
        """Those that hold until further notice."""
        return self.filter(effective_to__isnull=True)

    def end(self, at: datetime) -> int:
        """End those of these rates that are open and began before `at`; how many. The one change a rate ever sees."""
        return models.QuerySet.update(self.open().filter(effective_from__lt=at), effective_to=at)

    def same_line(self, rate: "Rate") -> Self:
        """All rates for what `rate` prices, under its conditions: at any instant at most one of them counts."""
        return self.filter(line=rate.line_key())

    def for_same_thing(self, rate: "Rate") -> Self:
        """Other rates for what `rate` prices, under whatever conditions."""
        return self.filter(**{name: getattr(rate, name) for name in LINE_FIELDS}).exclude(pk=rate.pk)


class Rate(models.Model):
    """The price of one bucket of one model in one book, in [effective_from, effective_to). Never edited, never deleted."""

    book = models.ForeignKey(PriceBook, on_delete=models.PROTECT, related_name="rates")
    provider = models.CharField(max_length=64, help_text="openai, anthropic, google, demo, …")
    model = models.CharField(max_length=200)
    match = models.CharField(
        max_length=8, choices=[(EXACT, "exact name"), (PREFIX, "beginning of a name")], default=EXACT
    )
    bucket = models.CharField(
        max_length=64, help_text="in_uncached, in_cache_read, out_visible, web_search, request, …"
    )
    byok = models.BooleanField(
        "own key", default=False, help_text="only for calls that the caller's own upstream key pays for"
    )
    batch = models.BooleanField(default=False, help_text="only for calls of a batch")
    service_tier = models.CharField(
        max_length=32, blank=True, help_text="flex, priority, …; empty: any, here and below"
    )
    speed = models.CharField(max_length=32, blank=True, help_text="fast, …")
    region = models.CharField(max_length=32, blank=True, help_text="us, eu, …")
    weekdays = models.CharField(max_length=27, blank=True, help_text="mon,tue or mon-fri")
    time_from = models.TimeField(null=True, blank=True, help_text="of the day; may be later than its end")
    time_to = models.TimeField(null=True, blank=True)
    time_zone = models.CharField(
        max_length=64, blank=True, help_text="by whose clock, with weekdays or times: Asia/Shanghai"
    )
    input_above = models.BigIntegerField(
        default=0, help_text="holds only for calls that read more tokens than this, then for all their tokens"
    )
    price = AmountField(help_text="of as many as `per` says")
    per = models.BigIntegerField(default=1_000_000)
    effective_from = models.DateTimeField()
    effective_to = models.DateTimeField(null=True, blank=True, help_text="empty: until further notice")
    source = models.CharField(max_length=500, blank=True, help_text="where the price is published")
    source_date = models.DateField(null=True, blank=True, help_text="when it was read there")
    note = models.CharField(max_length=500, blank=True)
    created_at = models.DateTimeField(default=clock.now, editable=False)
    # A number for book, provider, model, match, bucket and conditions: what at any instant has one price.
    line = models.BigIntegerField(editable=False)
    revision = models.PositiveSmallIntegerField(
        default=0,
        editable=False,
        help_text="of rates of one line that hold at the same time the highest counts",
    )
    corrects = models.ForeignKey(
        "self", on_delete=models.PROTECT, related_name="corrected_by", null=True, blank=True, editable=False
    )
    withdrawn = models.BooleanField(
        default=False, editable=False, help_text="where it counts, there is no such price"
    )

    objects: ClassVar = RateQuerySet.as_manager()

    class Meta:
        db_table = "tollgate_rates"
        ordering: ClassVar = ["provider", "model", "bucket", "input_above", "effective_from"]
        indexes: ClassVar = [
            # Every rate that is saved looks for others of the same thing.
            models.Index(fields=["provider", "model", "book"], name="tollgate_rates_thing"),
        ]
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["line", "revision", "effective_from"], name="tollgate_rates_once"
            ),
            models.CheckConstraint(condition=Q(price__gte=Decimal(0)), name="tollgate_rates_price"),
            models.CheckConstraint(condition=Q(per__gt=0), name="tollgate_rates_per"),
            models.CheckConstraint(condition=Q(input_above__gte=0), name="tollgate_rates_input_above"),
            models.CheckConstraint(condition=Q(match__in=[EXACT, PREFIX]), name="tollgate_rates_match"),
            models.CheckConstraint(
                condition=Q(effective_to__isnull=True) | Q(effective_to__gt=F("effective_from")),
                name="tollgate_rates_period",
            ),
        ]

    def __str__(self) -> str:
        name = f"{self.model}*" if self.match == PREFIX else self.model
        conditions = describe(self.conditions)
        price = "withdrawn" if self.withdrawn else f"{decimal_string(self.price)} per {self.per:,}"
        return f"{self.provider}/{name} {self.bucket}{f' ({conditions})' if conditions else ''}: {price}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise TypeError("a rate is never edited; supersede it by a new one")
        with transaction.atomic():
            CatalogueVersion.bump()
            self.clean_row()
            self.clean()
            super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a rate is never deleted; charges refer to it")

    @property
    def conditions(self) -> Conditions:
        """What it asks of a call besides its bucket."""
        return conditions_of(self)

    def line_key(self) -> int:
        """The number of its line. Set on the row by whatever saves it."""
        return line_key(self.book_id, self.provider, self.model, self.match, self.bucket, self.conditions)

    def clean(self) -> None:
        """Raises ValidationError for what could not be rated by, and for a second rate for the same calls and time."""
        self.check_conditions()
        self.check_price()
        self.line = self.line_key()
        begins: Any = self.effective_from  # None where a form was filled in badly
        if begins is not None and self.book_id:
            _refuse_conflicts([self], Rate.objects.for_same_thing(self))

    def clean_row(self) -> None:
        """Bring the columns into the form in which they are stored. Raises ValidationError for what they cannot hold."""
        self.clean_fields(exclude={"line", "book"})
        self.check_conditions()
        self.check_price()
        self.line = self.line_key()

    def check_conditions(self) -> None:
        """Raises ValidationError for conditions under which it would never hold, or that say nothing."""
        problems: dict[str, str] = {}
        for name in ("service_tier", "speed", "region"):
            if problem := problem_with_word(getattr(self, name)):
                problems[name] = problem
        try:
            self.weekdays = weekday_set(self.weekdays)
        except ValueError as error:
            problems["weekdays"] = str(error)
        if self.weekdays.count(",") == len(WEEKDAYS) - 1:
            problems["weekdays"] = "all days of the week are no condition: leave it empty"
        if (self.time_from is None) != (self.time_to is None):
            problems["time_to"] = "a window has a beginning and an end"
        elif self.time_from is not None and self.time_from == self.time_to:
            problems["time_to"] = (
                "a window from a time to the same time is empty, or the whole day: leave both empty"
            )
        has_hours = bool(self.weekdays or self.time_from or self.time_to)
        if has_hours and not is_zone(self.time_zone):
            problems["time_zone"] = "weekdays and times need a time zone: UTC, Asia/Shanghai, Europe/Berlin …"
        elif self.time_zone and not has_hours:
            problems["time_zone"] = "a time zone means nothing without weekdays or times"
        if problems:
            raise ValidationError(problems)

    def check_price(self) -> None:
        """Raises ValidationError when no exact charge can be computed by this rate, whenever it holds."""
        if not is_billable(self.bucket):
            raise ValidationError({"bucket": f"{self.bucket} is no bucket and no unit"})
        price: Any = self.price
        if not isinstance(price, Decimal):
            raise ValidationError({"price": "a price is a number"})
        if not price.is_finite():
            raise ValidationError({"price": "a price is a finite number"})
        if self.per and not _divides(price, self.per):
            raise ValidationError(
                {"per": f"{decimal_string(price)} / {self.per} has no end; choose a power of ten"}
            )

    def supersede(self, price: Decimal, at: datetime, **changes: Any) -> "Rate":
        """End this rate at `at` and begin a new one there; the new one. Raises NotChangeable.

        `changes` may set effective_to, per, source, source_date and note. What is rated already stays as it is.
        """
        with transaction.atomic():
            self.end(at)
            successor = self._of_same_line(price, effective_from=at, **changes)
            successor.save()
        return successor

    def end(self, at: datetime) -> None:
        """Let it hold until `at` (aware) and no longer, and what corrects it as well. Raises NotChangeable."""
        with transaction.atomic():
            CatalogueVersion.bump()
            self.check_end(at)
            Rate.objects.same_line(self).end(at)
        self.effective_to = at

    def correct(
        self, price: Decimal, start: datetime, end: datetime | None = None, *, reason: str, **changes: Any
    ) -> "Rate":
        """Say that the price was another one in [start, end) from the beginning; the rate that counts there instead.

        This one stays as it is, for the rest of its span and for the events that name it. What is rated already is not
        touched: rating it again is an act of its own, which finds the corrected price. `end` None: until further notice.
        `changes` may set per, source, source_date. Raises NotChangeable.
        """
        with transaction.atomic():
            CatalogueVersion.bump()
            self.check_correction(start, end, reason)
            corrected = self._of_same_line(
                price, effective_from=start, effective_to=end, revision=self.revision + 1, corrects=self,
                **{"note": reason, **changes},
            )  # fmt: skip
            corrected.save()
        return corrected

    def withdraw(self, start: datetime, end: datetime | None = None, *, reason: str) -> "Rate":
        """Say that there was no such price in [start, end): what it priced there is priced as if it were not there.

        Otherwise as `correct`, by which a withdrawn price can be brought back.
        """
        return self.correct(self.price, start, end, reason=reason, withdrawn=True)

    def check_end(self, at: datetime) -> None:
        """Raises NotChangeable when it cannot end at `at`. Holds until the catalogue changes."""
        line = Rate.objects.same_line(self)
        ends_there = Q(effective_to__isnull=True, effective_from__lt=at)
        if not line.filter(ends_there, pk=self.pk).exists():
            raise NotChangeable(f"{self} cannot end at {at:%Y-%m-%d %H:%M} UTC: it has ended, or began later")
        holds_after = Q(effective_to__isnull=True) | Q(effective_to__gt=at)
        if (other := line.filter(holds_after).exclude(ends_there).first()) is not None:
            raise NotChangeable(f"rate {other.pk} counts for the same thing after that: {other}")

    def check_correction(self, start: datetime, end: datetime | None, reason: str) -> None:
        """Raises NotChangeable when it did not count in all of [start, end). Holds until the catalogue changes."""
        if not reason.strip():
            raise NotChangeable("a correction says why")
        if end is not None and end <= start:
            raise NotChangeable("a correction ends after it begins")
        stored = Rate.objects.get(pk=self.pk)
        ends_later = stored.effective_to is not None and (end is None or end > stored.effective_to)
        if start < stored.effective_from or ends_later:
            raise NotChangeable(f"{self} does not hold in all of that span; correct each rate in its own")
        later = Rate.objects.same_line(self).filter(revision__gt=self.revision)
        for other in later:
            ends_before = other.effective_to is not None and other.effective_to <= start
            if not ends_before and (end is None or other.effective_from < end):
                raise NotChangeable(f"rate {other.pk} corrects it there already; correct that one: {other}")

    def _of_same_line(self, price: Decimal, **changes: Any) -> "Rate":
        same = {name: getattr(self, name) for name in (*LINE_FIELDS, *Conditions.__struct_fields__)}
        return Rate(**{**same, "per": self.per, **changes}, price=price)


class ModelAlias(models.Model):
    """Another name under which a provider serves a model; `{date}` at its end stands for any snapshot's date. Dated as rates
    are, since it decides what a call costs: it is superseded or ended, never edited, and deleted only before it holds."""

    provider = models.CharField(max_length=64)
    alias = models.CharField(max_length=200)
    model = models.CharField(max_length=200)
    effective_from = models.DateTimeField(null=True, blank=True, help_text="Empty: it has always been so.")
    effective_to = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        db_table = "tollgate_model_aliases"
        verbose_name_plural = "model aliases"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["provider", "alias"],
                condition=Q(effective_to=None),
                name="tollgate_model_aliases_open",
            ),
            models.UniqueConstraint(
                fields=["provider", "alias", "effective_from"], name="tollgate_model_aliases_once"
            ),
            models.CheckConstraint(
                condition=Q(effective_to=None)
                | Q(effective_from=None)
                | Q(effective_to__gt=F("effective_from")),
                name="tollgate_model_aliases_span",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.provider}/{self.alias} is {self.model}"

    def save(self, *args: Any, **kwargs: Any) -> None:
        """Add it. Raises NotChangeable where it would hold beside another one, or is there already."""
        if not self._state.adding:
            raise NotChangeable("an alias is superseded or ended, never edited")
        with transaction.atomic():
            CatalogueVersion.bump()  # whose row is locked from here on: nobody else changes the catalogue meanwhile
            if self._others().exists():
                raise NotChangeable(f"{self.provider}/{self.alias} stands for a model at that time already")
            super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        """Take it back before it holds. Raises NotChangeable afterwards: calls may have been rated by it."""
        if self.effective_from is None or self.effective_from <= clock.now():
            raise NotChangeable("an alias that holds, or has held, can be ended and not deleted")
        with transaction.atomic():
            CatalogueVersion.bump()
            return super().delete(*args, **kwargs)

    def supersede(self, model: str, at: datetime) -> "ModelAlias":
        """Let it stand for another model from `at` (aware) on; what is rated already stays as it is. Raises NotChangeable."""
        with transaction.atomic():
            self.end(at)
            successor = ModelAlias(provider=self.provider, alias=self.alias, model=model, effective_from=at)
            successor.save()
        return successor

    def end(self, at: datetime) -> None:
        """Let it hold until `at` (aware) and no longer. Raises NotChangeable."""
        running = ModelAlias.objects.filter(pk=self.pk, effective_to=None)
        with transaction.atomic():
            CatalogueVersion.bump()
            if running.filter(Q(effective_from=None) | Q(effective_from__lt=at)).update(effective_to=at) != 1:
                raise NotChangeable("it has ended already, or begins later than that")
        self.effective_to = at

    def _others(self) -> "models.QuerySet[ModelAlias]":
        """Those of the same name that hold at some time when this one does."""
        same = ModelAlias.objects.filter(provider=self.provider, alias=self.alias)
        if self.effective_from is not None:
            same = same.filter(Q(effective_to=None) | Q(effective_to__gt=self.effective_from))
        if self.effective_to is not None:
            same = same.filter(Q(effective_from=None) | Q(effective_from__lt=self.effective_to))
        return same


class ClockOffset(models.Model):
    """How far the clock of every process is ahead of real time: for tests and simulations, 0 in production."""

    id = models.SmallIntegerField(primary_key=True, default=ONE_ROW)
    offset_us = models.BigIntegerField(default=0)

    class Meta:
        db_table = "tollgate_clock"

    def __str__(self) -> str:
        return f"{timedelta(microseconds=self.offset_us)} ahead"

    @classmethod
    def read(cls) -> timedelta:
        """The offset that all processes share."""
        found = cls.objects.filter(id=ONE_ROW).values_list("offset_us", flat=True).first()
        return timedelta(microseconds=found or 0)

    @classmethod
    def move_to(cls, instant: datetime) -> timedelta:
        """Make it `instant` (aware) everywhere: here at once, in other processes within seconds. The offset."""
        return cls._set(instant - datetime.now(UTC))

    @classmethod
    def shift(cls, by: timedelta) -> timedelta:
        """Move every clock by `by` from where it is. The offset."""
        with transaction.atomic():
            cls.objects.get_or_create(id=ONE_ROW)
            cls.objects.filter(id=ONE_ROW).update(offset_us=F("offset_us") + by // timedelta(microseconds=1))
            offset = cls.read()
        clock.set_offset(offset)
        return offset

    @classmethod
    def _set(cls, offset: timedelta) -> timedelta:
        cls.objects.update_or_create(id=ONE_ROW, defaults={"offset_us": offset // timedelta(microseconds=1)})
        clock.set_offset(offset)
        return offset


def _refuse_conflicts(rates: list[Rate], known: RateQuerySet) -> None:
    """Raises ValidationError naming the other rate where one of `rates` could hold beside it, with nothing to choose by."""
    try:
        found = next(conflicts(rates, known), None)
    except ValueError as error:  # a rate that is there already, from a machine that knows more time zones
        raise ValidationError(str(error)) from error
    if found is None:
        return
    other, at = found.other, f"{found.instant:%Y-%m-%d %H:%M} UTC"
    name = f"rate {other.pk}, {other}" if other.pk else str(other)
    if found.is_same_line:
        raise ValidationError(
            f"another rate for the same thing holds at that time ({at}); supersede it: {name}"
        )
    raise ValidationError(
        f"ambiguous: another rate with the same conditions holds for the same calls in hours that meet, first at {at}; "
        f"choose other hours or set one more condition: {name}"
    )


def _divides(price: Decimal, per: int) -> bool:
    """Whether the price of a single one is a finite decimal: then the amount of any quantity is exact."""
    unit = EXACTLY.divide(price, Decimal(per))
    return EXACTLY.multiply(unit, Decimal(per)) == price and len(unit.as_tuple().digits) < EXACTLY.prec
