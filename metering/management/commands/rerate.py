"""`manage.py rerate`: price the events of a span of time again. Without --apply it only tells what would change."""

import getpass
import json
import platform
from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from metering import rerating
from metering.differences import Document, Report, Table
from metering.models import Rerating
from metering.rerating import Seen, Selection
from metering.store import Store, StoreError
from metering.wiring import current_store
from pricing import clock
from pricing.catalog import load_rate_card
from pricing.models import ClockOffset
from pricing.pricelist import RateCard


class Command(BaseCommand):
    """A dry run by default; the exit code is 1 when an event was refused or the run has to be resumed."""

    help = "Rate the events used in [--from, --to) again. Without --apply nothing is written."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--from", dest="start", metavar="INSTANT", help="ISO 8601 or a day, in UTC; included"
        )
        parser.add_argument("--to", dest="end", metavar="INSTANT", help="ISO 8601 or a day, in UTC; excluded")
        parser.add_argument("--customer", help="only this customer's events")
        parser.add_argument("--provider", help="only events of this provider")
        parser.add_argument("--model", help="only events of this model: served, requested, or one of several")
        parser.add_argument(
            "--reason", default="re-rated", help="kept on every correction, at most 64 characters"
        )
        parser.add_argument(
            "--apply", action="store_true", help="write the corrections, or go on writing them"
        )
        parser.add_argument("--resume", metavar="RUN", help="go on with this run; needs no other argument")
        parser.add_argument(
            "--page", type=int, default=rerating.PAGE, metavar="N", help="events in one transaction (1000)"
        )
        parser.add_argument("--json", action="store_true", help="one JSON document instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        clock.set_offset(ClockOffset.read())
        if options["page"] < 1:
            raise CommandError(f"--page {options['page']}: must be at least 1")
        card = load_rate_card()
        report: Report = Document(self.stdout) if options["json"] else Table(self.stdout)  # type: ignore[arg-type]  # it writes text
        if options["resume"] is not None:
            self._apply(self._run(options, card), card, report, options["page"])
        elif options["apply"]:
            run, goes_on = rerating.begin(
                self._selection(options), card, at=clock.now(), by=_who(), reason=options["reason"]
            )
            if goes_on:
                self.stderr.write(
                    f"going on with the unfinished run {run.id} of {run.started_at:%Y-%m-%d %H:%M}"
                )
            self._apply(run, card, report, options["page"])
        else:
            for seen in rerating.look(self._selection(options), card, page=options["page"]):
                report.page(seen)
            report.end({"applied": False, "run": None})
            self.stderr.write("Nothing was written. Add --apply to write it.")

    def _apply(self, run: Rerating, card: RateCard, report: Report, page: int) -> None:
        store = current_store()
        try:
            for seen in self._pages(run, card, store, page):
                report.page(seen)
        finally:
            store.close()
        report.end(
            {"applied": True, "run": str(run.id), "refused": run.events_refused, "run_totals": run.totals}
        )
        self.stderr.write(
            f"Run {run.id} is done: {run.events_seen} events looked at; corrected {json.dumps(run.totals)}."
        )
        if run.events_refused:
            raise CommandError(f"the database refused to correct {', '.join(run.events_refused)}")

    @staticmethod
    def _pages(run: Rerating, card: RateCard, store: Store, page: int) -> Iterator[list[Seen]]:
        try:
            yield from rerating.apply(run, store, card, clock.now, page=page)
        except (rerating.Stopped, StoreError) as error:
            raise CommandError(f"{error}; go on with: manage.py rerate --resume {run.id}") from error

    def _selection(self, options: dict[str, Any]) -> Selection:
        if options["start"] is None or options["end"] is None:
            raise CommandError("--from and --to say which events; give both")
        start, end = instant(options["start"], "--from"), instant(options["end"], "--to")
        if start >= end:
            raise CommandError(
                f"--from {start:%Y-%m-%dT%H:%M:%SZ} must be before --to {end:%Y-%m-%dT%H:%M:%SZ}"
            )
        named = options["customer"]
        customer = None if named is None else self.customer(named)
        return Selection(start, end, customer, options["provider"], options["model"])

    @staticmethod
    def _run(options: dict[str, Any], card: RateCard) -> Rerating:
        given = [
            name for name in ("start", "end", "customer", "provider", "model") if options[name] is not None
        ]
        if given:
            raise CommandError("--resume takes the run's own arguments; give no others")
        try:
            run = Rerating.objects.filter(id=options["resume"]).first()
        except (ValidationError, ValueError):
            run = None
        if run is None:
            raise CommandError(f"--resume {options['resume']}: there is no such run")
        if run.state == Rerating.State.DONE:
            raise CommandError(f"--resume {run.id}: this run is done")
        return rerating.resume(run, card)

    def customer(self, name: str) -> UUID:
        """The id of a customer. Metering knows no other name of one."""
        try:
            return UUID(name)
        except ValueError as error:
            raise CommandError(f"--customer {name}: must be a customer's id, a UUID") from error


def instant(text: str, option: str) -> datetime:
    """An instant in UTC: ISO 8601, where an offset that is missing means UTC, or a day, which is its first instant."""
    try:
        if len(text) == len("2026-11-01"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise CommandError(
            f"{option} {text}: must be a day or an instant, as in 2026-11-01 or 2026-11-01T12:00:00Z"
        ) from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _who() -> str:
    """The account of the operating system, and the machine."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        name = "unknown"
    return f"{name}@{platform.node()}"
