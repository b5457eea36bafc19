"""`manage.py run_billing`: bills every period that is over, as the job does, and says what became of each customer."""

from collections import Counter, defaultdict
from decimal import Decimal
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from billing import invoicing
from billing.invoicing import Billed
from billing.models import Customer
from pricing import clock
from pricing.models import ClockOffset
from pricing.money import decimal_string

BAR = 30


class Command(BaseCommand):
    help = "Bill the periods that are over. What was billed before is left alone, so it may be run again at any time."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--dry-run", action="store_true", help="tell what would be billed, and write nothing"
        )
        parser.add_argument("--customer", help="only this one, by its id or external id")

    def handle(self, *args: Any, **options: Any) -> None:
        clock.set_offset(ClockOffset.read())
        customer = self._named(options["customer"]) if options["customer"] else None
        counts: Counter[str] = Counter()
        totals: defaultdict[str, Decimal] = defaultdict(Decimal)
        waiting = 1 if customer else Customer.objects.count()
        seen: set[Any] = set()
        for billed in invoicing.run(clock.now(), customer=customer, dry_run=options["dry_run"]):
            counts[billed.outcome] += 1
            if billed.outcome == "charged":
                totals[billed.customer.currency] += billed.total
            seen.add(billed.customer.pk)
            self._say(billed)
            self._progress(len(seen), waiting)
        self._summary(counts, totals, dry_run=options["dry_run"])
        if counts["failed"]:
            raise CommandError(f"{counts['failed']} customers could not be billed; they are parked.")

    def _say(self, billed: Billed) -> None:
        name = billed.invoice.number if billed.invoice else billed.outcome
        period = f"{billed.period.start:%Y-%m-%d} – {billed.period.end:%Y-%m-%d}"
        money = (
            f"{decimal_string(billed.total)} {billed.customer.currency}"
            if billed.outcome == "charged"
            else billed.reason
        )
        self.stdout.write(f"{billed.customer.external_id:30} {period}  {name:16} {money}")

    def _progress(self, done: int, of: int) -> None:
        if not self.stderr.isatty():
            return
        filled = BAR * done // max(1, of)
        self.stderr.write(f"\r[{'#' * filled}{'.' * (BAR - filled)}] {done} of {of}", ending="")

    def _summary(self, counts: Counter[str], totals: dict[str, Decimal], *, dry_run: bool) -> None:
        would = "would be " if dry_run else ""
        self.stdout.write(f"charged: {counts['charged']} {would}".rstrip())
        for outcome in ("nothing to bill", "billed before", "failed"):
            if counts[outcome]:
                self.stdout.write(f"{outcome}: {counts[outcome]}")
        for currency, total in sorted(totals.items()):
            self.stdout.write(f"total: {decimal_string(total)} {currency}")

    @staticmethod
    def _named(name: str) -> Customer:
        found = Customer.objects.named(name)
        if found is None:
            raise CommandError(f"There is no customer {name!r}.")
        return found
