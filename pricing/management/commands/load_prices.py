"""Bring the shipped prices into the price books. Running it again changes nothing."""

from decimal import Decimal, InvalidOperation
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from pricing.catalog import import_prices


class Command(BaseCommand):
    """`manage.py load_prices [--list-markup PERCENT]`"""

    help = "Load the shipped prices into the book `cost`, and with a markup into the book `list`."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--list-markup", metavar="PERCENT", help="also load `list`, so many percent above `cost`"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        self._load("cost", Decimal(0))
        if options["list_markup"] is not None:
            self._load("list", self._percent(options["list_markup"]))

    def _load(self, book: str, markup: Decimal) -> None:
        result = import_prices(book, markup_percent=markup)
        self.stdout.write(
            f"{book}: {result.added} rates added, {result.ended} ended, {result.unchanged} unchanged"
        )
        for difference in result.kept:
            self.stdout.write(f"  kept {difference}")

    @staticmethod
    def _percent(text: str) -> Decimal:
        try:
            percent = Decimal(text)
        except InvalidOperation as error:
            raise CommandError(f"--list-markup {text}: must be a number of percent") from error
        if not percent.is_finite() or percent < -100:
            raise CommandError(f"--list-markup {text}: must be a finite number not below -100")
        return percent
