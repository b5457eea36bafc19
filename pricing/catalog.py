"""The catalogue as a whole: shipped price files in, rate card out."""

import tomllib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, date, datetime, time
from decimal import Decimal, InvalidOperation
from importlib import resources
from typing import Any

import msgspec
from django.db import transaction
from django.db.models import F

from pricing import clock
from pricing.conditions import EXACT, Conditions, Match
from pricing.models import CatalogueVersion, ModelAlias, PriceBook, Rate
from pricing.money import EXACT as EXACTLY, decimal_string
from pricing.pricelist import Alias, Rate as CardRate, RateCard, model_behind
from pricing.units import is_billable, is_token

PRICE_FILES = ("openai", "anthropic", "google", "demo")
PER_TOKENS = 1_000_000
PER_UNITS = 1_000
_BOOK_NAMES = {"cost": "What providers charge us", "list": "What we charge"}


class PriceFileError(ValueError):
    """A shipped price file says something that cannot be a price; the message names file, model and key."""


class PriceEntry(Conditions, frozen=True, kw_only=True):
    """One shipped price: of one bucket of one model, under its conditions, from one date on."""

    provider: str
    model: str
    match: Match = EXACT
    bucket: str
    price: Decimal  # of `per`
    per: int
    currency: str
    effective_from: datetime
    effective_to: datetime | None
    source: str
    source_date: date
    note: str


class PriceFiles(msgspec.Struct, frozen=True):
    """Everything that is shipped."""

    entries: tuple[PriceEntry, ...]
    aliases: dict[tuple[str, str], str]  # (provider, alias) -> model


class ImportResult(msgspec.Struct, frozen=True):
    """What an import did. `kept`: prices that this book knows differently for the same time; they stay as they are."""

    added: int
    ended: int
    unchanged: int
    kept: tuple[str, ...]


def load_rate_card() -> RateCard:
    """All rates of all books as they are now, compiled.

    The version is read first: a change that comes in between makes the card newer than it says, and it is loaded again.
    """
    version = CatalogueVersion.objects.values_list("version", flat=True).first() or 0
    aliases = _stored_aliases()
    names = CardRate.__struct_fields__
    columns = [{"book": "book__slug", "currency": "book__currency"}.get(name, name) for name in names]
    rows = Rate.objects.order_by("id").values_list(*columns)
    return RateCard.compile(
        (CardRate(**dict(zip(names, row, strict=True))) for row in rows), aliases, version
    )


def alias_resolver() -> Callable[[str, str], str]:
    """A function from (provider, name) to the name under which we have rates for that model now; else the name as it is."""
    aliases, now = _stored_aliases(), clock.now()
    own = set(Rate.objects.order_by().values_list("provider", "model").distinct())

    def resolved(provider: str, name: str) -> str:
        return name if (provider, name) in own else model_behind(aliases, provider, name, now) or name

    return resolved


def _stored_aliases() -> dict[tuple[str, str], list[Alias]]:
    """What each alias stands for, one after the other."""
    aliases: dict[tuple[str, str], list[Alias]] = defaultdict(list)
    rows = ModelAlias.objects.order_by(F("effective_from").asc(nulls_first=True))
    columns = ("provider", "alias", "model", "effective_from", "effective_to")
    for provider, alias, model, start, end in rows.values_list(*columns):
        aliases[provider, alias].append(Alias(model, start, end))
    return dict(aliases)


def read_price_files() -> PriceFiles:
    """The shipped prices, checked. Raises PriceFileError."""
    entries: list[PriceEntry] = []
    aliases: dict[tuple[str, str], str] = {}
    for name in PRICE_FILES:
        document = tomllib.loads(
            resources.files("pricing").joinpath("prices", f"{name}.toml").read_text("utf-8")
        )
        for model in document["models"]:
            entries.extend(price_entries(document, model))
            aliases.update(
                {(document["provider"], alias): model["name"] for alias in model.get("aliases", ())}
            )
    return PriceFiles(tuple(entries), aliases)


def import_prices(book: str = "cost", *, markup_percent: Decimal = Decimal(0)) -> ImportResult:
    """Bring the shipped prices into `book`, raised by `markup_percent`. Again changes nothing; no rate is ever edited.

    A price that begins after the one in force ends it. What an operator has set otherwise stays and is named in the result.
    """
    files = read_price_files()
    factor = EXACTLY.divide(EXACTLY.add(Decimal(100), markup_percent), Decimal(100))
    with transaction.atomic():
        CatalogueVersion.bump()
        target, _ = PriceBook.objects.get_or_create(slug=book, defaults={"name": _BOOK_NAMES.get(book, book)})
        _import_aliases(files.aliases)
        return _import_entries(target, (_raised(entry, factor) for entry in files.entries))


def price_entries(document: dict[str, Any], model: dict[str, Any]) -> Iterator[PriceEntry]:
    """The prices of one model of a file; equal prices on successive dates are one entry. Raises PriceFileError.

    A row is a price list from a date on. Rows of the same conditions, whatever their thresholds, are one list: what a later
    date of it does not name has ended.
    """
    lines: dict[tuple[Conditions, str], dict[date, Decimal]] = {}
    dates: dict[Conditions, set[date]] = {}  # by the conditions of a list, whatever the threshold
    for row in model["prices"]:
        since, conditions = row.get("from", document["since"]), _conditions(document, model, row)
        dates.setdefault(_list_of(conditions), set()).add(since)
        for bucket, price in row.items():
            if bucket == "from" or bucket in Conditions.__struct_fields__:
                continue
            found = lines.setdefault((conditions, bucket), {})
            if since in found:
                raise PriceFileError(f"{_place(document, model)}: two prices for {bucket} from {since}")
            found[since] = _price(document, model, bucket, price)
    for (conditions, bucket), prices in lines.items():
        for since, until, price in _spans(prices, sorted(dates[_list_of(conditions)])):
            yield PriceEntry(
                provider=document["provider"], model=model["name"], match=model.get("match", EXACT), bucket=bucket,
                price=price, per=PER_TOKENS if is_token(bucket) else PER_UNITS, currency=document["currency"],
                effective_from=_midnight(since), effective_to=_midnight(until) if until else None,
                source=document["source"], source_date=document["checked"], note=model.get("note", ""),
                **msgspec.structs.asdict(conditions),
            )  # fmt: skip


def _conditions(document: dict[str, Any], model: dict[str, Any], row: dict[str, Any]) -> Conditions:
    given = {name: value for name, value in row.items() if name in Conditions.__struct_fields__}
    try:
        return msgspec.convert(given, Conditions)
    except msgspec.ValidationError as error:
        raise PriceFileError(f"{_place(document, model)}: {given}: {error}") from error


def _list_of(conditions: Conditions) -> Conditions:
    """What of its conditions makes a row part of one price list: a list with a new date replaces all of the old one."""
    return msgspec.structs.replace(conditions, input_above=0)


def _place(document: dict[str, Any], model: dict[str, Any]) -> str:
    return f"{document['provider']}.toml: {model['name']}"


def _spans(at: dict[date, Decimal], dates: list[date]) -> Iterator[tuple[date, date | None, Decimal]]:
    """(from, to, price) of one bucket. A date on which the list is there without this bucket ends its price."""
    start: date | None = None
    for day in dates:
        price = at.get(day)
        if start is not None and price != at[start]:
            yield start, day, at[start]
            start = None
        if start is None and price is not None:
            start = day
    if start is not None:
        yield start, None, at[start]


def _price(document: dict[str, Any], model: dict[str, Any], bucket: str, price: Any) -> Decimal:
    try:
        amount = Decimal(price) if isinstance(price, str) and is_billable(bucket) else None
    except InvalidOperation:
        amount = None
    if amount is None or not amount.is_finite() or amount < 0:
        raise PriceFileError(f"{_place(document, model)}: {bucket} = {price!r} is no price")
    return amount


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), tzinfo=UTC)


def _raised(entry: PriceEntry, factor: Decimal) -> PriceEntry:
    return (
        entry if factor == 1 else msgspec.structs.replace(entry, price=EXACTLY.multiply(entry.price, factor))
    )


def _import_aliases(aliases: dict[tuple[str, str], str]) -> None:
    """Add the names that are missing; a name that an operator has pointed elsewhere stays."""
    known = set(ModelAlias.objects.values_list("provider", "alias"))
    ModelAlias.objects.bulk_create(
        [ModelAlias(provider=provider, alias=alias, model=model) for (provider, alias), model in aliases.items()
         if (provider, alias) not in known]
    )  # fmt: skip


def _import_entries(book: PriceBook, entries: Iterable[PriceEntry]) -> ImportResult:
    # By line, what was set first and not what corrects it; the oldest first.
    lines: dict[int, list[Rate]] = defaultdict(list)
    for rate in Rate.objects.filter(book=book, revision=0).order_by("effective_from"):
        lines[rate.line].append(rate)
    new: list[Rate] = []
    kept: list[str] = []
    ended = unchanged = 0
    for entry in sorted(entries, key=lambda entry: entry.effective_from):
        if entry.currency != book.currency:
            raise PriceFileError(
                f"{entry.model} is priced in {entry.currency}, the book {book} in {book.currency}"
            )
        rate = _rate(book, entry)
        line = lines[rate.line]
        same = next((known for known in line if known.effective_from == entry.effective_from), None)
        last = line[-1] if line else None
        if same is not None and same.price == entry.price:
            unchanged += 1
            ended += _end(same, entry.effective_to)
        elif same is not None or (last is not None and entry.effective_from < _settled_until(last)):
            there = last if same is None else same
            kept.append(f"{there}, not {decimal_string(entry.price)} from {entry.effective_from:%Y-%m-%d}")
        else:
            if last is not None:
                ended += _end(last, entry.effective_from)
            line.append(rate)
            new.append(rate)
    Rate.objects.bulk_create(new)
    return ImportResult(len(new), ended, unchanged, tuple(kept))


def _settled_until(rate: Rate) -> datetime:
    """The instant from which on another rate may begin."""
    return rate.effective_to if rate.effective_to is not None else rate.effective_from


def _end(rate: Rate, at: datetime | None) -> int:
    """End a stored rate that is still open, and with it what corrects it; 1 if that was so."""
    if rate._state.adding or rate.effective_to is not None or at is None:
        return 0
    rate.effective_to = at
    return min(Rate.objects.same_line(rate).end(at), 1)


def _rate(book: PriceBook, entry: PriceEntry) -> Rate:
    given = {name: getattr(entry, name) for name in PriceEntry.__struct_fields__ if name != "currency"}
    rate = Rate(book=book, **given)
    rate.line = rate.line_key()
    return rate
