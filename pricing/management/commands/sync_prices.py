"""Compare our rates with the price catalogues and keep what differs as proposals. Changes no price, unless the policy does."""

from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from pricing import clock
from pricing.models import ClockOffset, PriceProposal, PriceSync
from pricing.models.proposals import OPEN, price_text
from pricing.proposals import OtherCurrency, sync

_SHOWN = 20


class Command(BaseCommand):
    """`manage.py sync_prices [--price-map FILE|URL] [--all]`"""

    help = "Compare our rates with genai-prices' shipped data and a price map in LiteLLM's form; differences become proposals."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--price-map",
            metavar="FILE|URL",
            help="a price map in LiteLLM's form, instead of the policy's; \"\" for none",
        )
        parser.add_argument(
            "--all", action="store_true", help=f"list every open proposal, not {_SHOWN} a kind"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        clock.set_offset(ClockOffset.read())
        try:
            run = sync(clock.now(), price_map=options["price_map"])
        except OtherCurrency as error:
            raise CommandError(str(error)) from error
        self._report(run)
        self._list(None if options["all"] else _SHOWN)
        if not run.sources:
            raise CommandError("no catalogue could be read")

    def _report(self, run: PriceSync) -> None:
        said = ", ".join(f"{name} {version}" for name, version in run.sources.items()) or "nothing"
        self.stdout.write(f"compared with {said}: {run.confirmed} prices confirmed")
        self.stdout.write(
            f"{run.opened} differences are new, {run.outdated} are gone, {run.applied} were applied by policy"
        )
        for problem in run.problems[:_SHOWN]:
            self.stderr.write(f"  not understood: {problem}")
        if len(run.problems) > _SHOWN:
            self.stderr.write(f"  … and {len(run.problems) - _SHOWN} more")

    def _list(self, most: int | None) -> None:
        waiting = PriceProposal.objects.filter(status=OPEN)
        kinds = Counter(waiting.order_by().values_list("kind", flat=True))
        for kind, count in sorted(kinds.items()):
            self.stdout.write(f"\n{kind}: {count} open")
            for proposal in waiting.filter(kind=kind)[:most]:
                self.stdout.write(f"  {self._line(proposal)}")
            if most is not None and count > most:
                self.stdout.write(f"  … and {count - most} more")

    @staticmethod
    def _line(proposal: PriceProposal) -> str:
        change = f" ({proposal.change_percent:+.2f} %)" if proposal.change_percent is not None else ""
        stated = "; ".join(f"{source} {price}" for source, _, price in proposal.statements) or "not listed"
        return (
            f"{proposal}: {price_text(proposal.old_price)} → {price_text(proposal.price)} per {proposal.per:,}{change}"
            f"; {stated}{f'; {proposal.guard}' if proposal.guard else ''}"
        )
