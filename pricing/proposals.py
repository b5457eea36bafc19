"""From difference to decision: compare with the catalogues, keep what differs, and apply it when it is approved.

Comparing never changes a price. A price changes when somebody approves a proposal, or when the policy does, which may do so
only where nothing guards it (`pricing.compare`). Either way it is a new dated rate that begins now or later: what was used
before stays as it was rated. Each act is one transaction behind the catalogue's lock and decides by a conditional update,
so that two people, or a person and the nightly job, cannot both have decided.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from functools import partial
from itertools import islice

import msgspec
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q

from pricing.catalog import alias_resolver
from pricing.compare import ANCHOR_DAYS, Comparison, Finding, OurPrice, compare
from pricing.conditions import Conditions
from pricing.models import (
    CatalogueVersion,
    NotChangeable,
    PriceBook,
    PriceProposal,
    PriceSync,
    Rate,
    SyncPolicy,
)
from pricing.models.proposals import (
    APPROVED,
    BOOK,
    OPEN,
    OUTDATED,
    REJECTED,
    ROLLED_BACK,
    conditions_document,
    number_of,
)
from pricing.money import decimal_string
from pricing.sources import Line, SourceCatalogue, SourceUnreadable
from pricing.sources.genai_catalogue import read_genai_catalogue
from pricing.sources.litellm_map import read_litellm_map

log = logging.getLogger("pricing.proposals")

POLICY = "policy"  # who decided, where no person did
PROBLEMS_KEPT = 200
OPENED_MAX = 5_000  # a night; a catalogue that brings more is not one to go through by hand
PAGE = 500
CURRENCY = "USD"  # of every catalogue


class AlreadyDecided(ValueError):
    """The proposal is no longer open: somebody else has decided, or it is outdated. Nothing was changed."""


class OtherCurrency(ValueError):
    """Our book is not in the currency of the catalogues: nothing can be compared."""


class Inapplicable(ValueError):
    """Our rates are no longer as they were when it was proposed, or the instant lies in the past. Nothing was changed."""


def sync(now: datetime, *, price_map: str | None = None) -> PriceSync:
    """Compare once and keep what differs. `price_map` (file or https URL) stands in for the policy's.

    A catalogue that cannot be read is named among the problems; the others are compared all the same, but nothing is then
    taken for outdated. Raises OtherCurrency. May run twice at once and be repeated: a line has one open proposal at most.
    """
    policy = SyncPolicy.current()
    sources, unread = _read(now, policy.price_map if price_map is None else price_map)
    book, _ = PriceBook.objects.get_or_create(slug=BOOK, defaults={"name": "What providers charge us"})
    if book.currency != CURRENCY:
        raise OtherCurrency(f"the catalogues are in {CURRENCY}, the book {book} is in {book.currency}")
    run = PriceSync.objects.create(started_at=now)
    followed = policy.followed()
    findings = compare(our_prices(book, now), sources, alias_resolver(), followed, policy.guard)
    opened, outdated = _keep(book, findings, now, outdates=not unread)
    applied = _apply_by_policy(now) if policy.auto_approve else 0
    run.finished_at, run.confirmed, run.opened, run.outdated, run.applied = (
        now,
        findings.confirmed,
        opened,
        outdated,
        applied,
    )
    run.sources = {source.name: source.version for source in sources}
    problems = [*unread, *_misunderstood(sources, followed)]
    run.problems = [problem[:300] for problem in problems[:PROBLEMS_KEPT]]
    run.save()
    return run


def our_prices(book: PriceBook, now: datetime) -> dict[Line, OurPrice]:
    """The rates in force at `now`, by line, of exact names; with what each was before, and is to be."""
    lines: dict[int, list[Rate]] = {}
    since = now - timedelta(days=ANCHOR_DAYS)
    recent = Q(effective_to__isnull=True) | Q(effective_to__gt=since)
    for rate in Rate.objects.filter(recent, book=book, match="exact").order_by("effective_from", "revision"):
        lines.setdefault(rate.line, []).append(rate)
    found: dict[Line, OurPrice] = {}
    for rates in lines.values():
        current = _in_force(rates, now)
        if current is not None:
            anchor = _in_force(rates, since) or rates[0]
            later = next((rate for rate in rates if rate.effective_from > now), None)
            line = Line(current.provider, current.model, current.bucket, current.conditions)
            found[line] = OurPrice(
                current.pk, current.price, current.per, anchor.price * current.per / anchor.per,
                None if later is None else later.price * current.per / later.per,
            )  # fmt: skip
    return found


def approve(
    proposal: PriceProposal, *, by: str, now: datetime, at: datetime | None = None, price: Decimal | None = None,
    reason: str = "",
) -> Rate | None:  # fmt: skip
    """Apply it from `at` on (aware; None: now). The rate that came of it; None where one was ended.

    `price` (of as many as the proposal says) decides where the catalogues disagree. Raises AlreadyDecided, Inapplicable.
    """
    begins = now if at is None else at
    if begins < now:
        raise Inapplicable("a price cannot begin in the past: what was used then is rated already")
    chosen = proposal.price if price is None else price
    if chosen is None and proposal.kind != "withdrawn":
        raise Inapplicable("the catalogues disagree: say which price holds")
    with transaction.atomic():
        CatalogueVersion.bump()
        _decide(
            proposal, APPROVED, by, now, reason, price=chosen, effective_from=begins, expected=proposal.price
        )
        result = _applied(proposal, chosen, begins, by)
        PriceProposal.objects.filter(pk=proposal.pk).update(result=result)
    proposal.refresh_from_db()
    return result


def reject(proposal: PriceProposal, *, by: str, now: datetime, reason: str = "") -> None:
    """Leave our rate as it is. The same difference is not proposed again. Raises AlreadyDecided."""
    _decide(proposal, REJECTED, by, now, reason)
    proposal.refresh_from_db()


def roll_back(proposal: PriceProposal, *, by: str, now: datetime, reason: str = "") -> None:
    """Back to the rate before, from now on; one that has not begun yet never counts. What was used meanwhile stays rated as
    it was. Raises AlreadyDecided, Inapplicable."""
    with transaction.atomic():
        CatalogueVersion.bump()
        _decide(proposal, ROLLED_BACK, by, now, reason, was=APPROVED)
        _undo(proposal, now)
    proposal.refresh_from_db()


def _read(now: datetime, price_map: str) -> tuple[list[SourceCatalogue], list[str]]:
    sources: list[SourceCatalogue] = []
    unread: list[str] = []
    readers = [partial(read_genai_catalogue, now)]
    if price_map:
        readers.append(partial(read_litellm_map, price_map))
    for read in readers:
        try:
            sources.append(read())
        except SourceUnreadable as error:
            log.error("a price catalogue cannot be read: %s", error)
            unread.append(str(error))
    return sources, unread


def _misunderstood(sources: Iterable[SourceCatalogue], followed: frozenset[str]) -> list[str]:
    """What could not be understood of the providers that are compared; each once."""
    return list(
        dict.fromkeys(
            f"{source.name}: {problem}"
            for source in sources
            for problem in source.problems
            if problem.partition("/")[0] in followed
        )
    )


def _in_force(rates: Sequence[Rate], at: datetime) -> Rate | None:
    """Of the rates of one line the one that counts at `at`: the latest revision, unless that withdraws the price."""
    holding = [
        rate
        for rate in rates
        if rate.effective_from <= at and (rate.effective_to is None or at < rate.effective_to)
    ]
    latest = max(holding, key=lambda rate: rate.revision, default=None)
    return None if latest is None or latest.withdrawn else latest


def _keep(book: PriceBook, found: Comparison, now: datetime, *, outdates: bool) -> tuple[int, int]:
    """Open a proposal for each finding that has none; how many, and how many are outdated by now."""
    with transaction.atomic():
        CatalogueVersion.objects.select_for_update().first()  # one comparison at a time
        open_now = {row.line: row for row in PriceProposal.objects.filter(book=book, status=OPEN)}
        refused = _refused(book)
        new: list[PriceProposal] = []
        seen: set[int] = set()
        for finding in found.findings:
            row = _row(book, finding, now)
            seen.add(row.line)
            known = open_now.get(row.line)
            if known is not None and _says_the_same(known, row):
                continue
            if known is not None:
                PriceProposal.objects.filter(pk=known.pk, status=OPEN).update(status=OUTDATED, decided_at=now)
            if (row.line, row.kind, row.price) not in refused:
                new.append(row)
        still = [row.pk for row in open_now.values() if row.line in seen]
        for page in _pages(still):
            PriceProposal.objects.filter(pk__in=page, status=OPEN).update(last_seen=now)
        gone = [row.pk for row in open_now.values() if row.line not in seen] if outdates else []
        outdated = sum(
            PriceProposal.objects.filter(pk__in=page, status=OPEN).update(status=OUTDATED, decided_at=now)
            for page in _pages(gone)
        )
        PriceProposal.objects.bulk_create(new[:OPENED_MAX], batch_size=PAGE)
    if len(new) > OPENED_MAX:
        log.error("%d differences are too many to be proposed; %d were", len(new), OPENED_MAX)
    return min(len(new), OPENED_MAX), outdated


def _refused(book: PriceBook) -> set[tuple[int, str, Decimal | None]]:
    """What a person has turned down, or taken back: not to be proposed again at the same price."""
    turned_down = PriceProposal.objects.filter(book=book, status__in=[REJECTED, ROLLED_BACK])
    return set(turned_down.values_list("line", "kind", "price"))


def _row(book: PriceBook, finding: Finding, now: datetime) -> PriceProposal:
    line, ours = finding.line, finding.ours
    return PriceProposal(
        kind=finding.kind, book=book, provider=line.provider, model=line.model, bucket=line.bucket,
        conditions=conditions_document(line), line=number_of(book, line), price=finding.price, per=finding.per,
        old_price=None if ours is None else ours.price, change_percent=finding.change_percent,
        rate_id=None if ours is None else ours.rate_id, guard=finding.guard, first_seen=now, last_seen=now,
        statements=[[source, version, decimal_string(price)] for source, version, price in finding.statements],
    )  # fmt: skip


def _says_the_same(known: PriceProposal, row: PriceProposal) -> bool:
    names = ("kind", "price", "per", "old_price", "rate_id", "guard", "statements")
    return all(getattr(known, name) == getattr(row, name) for name in names)


def _apply_by_policy(now: datetime) -> int:
    """Approve what nothing guards, one by one: a proposal that cannot be applied holds up no other."""
    applied = 0
    for proposal in PriceProposal.objects.filter(status=OPEN, guard="", last_seen=now).order_by("pk"):
        try:
            approve(proposal, by=POLICY, now=now)
        except (AlreadyDecided, Inapplicable) as error:
            log.warning("%s is not applied by policy: %s", proposal, error)
        else:
            applied += 1
    return applied


def _decide(
    proposal: PriceProposal, status: str, by: str, now: datetime, reason: str, *, was: str = OPEN,
    expected: Decimal | None = None, **changes: object,
) -> None:  # fmt: skip
    """Move it on, if it is still as it was looked at."""
    rows = PriceProposal.objects.filter(pk=proposal.pk, status=was)
    if expected is not None:
        rows = rows.filter(price=expected)
    if rows.update(status=status, decided_at=now, decided_by=by[:200], reason=reason[:500], **changes) != 1:
        raise AlreadyDecided(f"{proposal} is no longer {was}")


def _applied(proposal: PriceProposal, price: Decimal | None, begins: datetime, by: str) -> Rate | None:
    said = ", ".join(f"{source} {version}" for source, version, _ in proposal.statements)
    evidence = {"source": said[:500], "source_date": begins.date(), "note": f"approved by {by}"[:500]}
    try:
        if proposal.rate is not None or price is None:
            return _changed(proposal, price, begins, evidence)
        conditions = msgspec.convert(proposal.conditions, Conditions, strict=False)
        rate = Rate(
            book_id=proposal.book_id, provider=proposal.provider, model=proposal.model, bucket=proposal.bucket,
            price=price, per=proposal.per, effective_from=begins, **msgspec.structs.asdict(conditions), **evidence,
        )  # fmt: skip
        rate.save()
    except (ValidationError, ValueError) as error:
        messages = error.messages if isinstance(error, ValidationError) else [str(error)]
        raise Inapplicable("; ".join(messages)) from error
    return rate


def _changed(
    proposal: PriceProposal, price: Decimal | None, begins: datetime, evidence: dict[str, object]
) -> Rate | None:
    rate = proposal.rate
    if rate is None or rate.effective_to is not None or not _counts(rate, begins):
        raise Inapplicable(f"{rate or 'our rate'} is not in force any more as it was proposed against")
    if price is not None:
        return rate.supersede(price, begins, **evidence)
    rate.end(begins)
    return None


def _counts(rate: Rate, at: datetime) -> bool:
    """Whether it is the rate of its line that counts at `at`, and no correction of it."""
    counting = _in_force(list(Rate.objects.same_line(rate)), at)
    return counting is not None and counting.pk == rate.pk


def _undo(proposal: PriceProposal, now: datetime) -> None:
    result = proposal.result
    if result is None:
        raise Inapplicable("a rate that was ended begins again by adding it anew")
    if result.effective_to is not None:
        raise Inapplicable(f"{result} has been superseded since")
    note = f"rolls back what was approved as {proposal}"[:500]
    begins = max(now, result.effective_from + timedelta(microseconds=1))
    try:
        if proposal.old_price is not None:
            result.supersede(proposal.old_price, begins, per=proposal.per, note=note)
        else:
            result.end(begins)
    except NotChangeable as error:
        raise Inapplicable(str(error)) from error


def _pages(ids: Iterable[int]) -> Iterable[list[int]]:
    rest = iter(ids)
    while page := list(islice(rest, PAGE)):
        yield page
