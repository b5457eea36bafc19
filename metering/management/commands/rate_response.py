"""What a kept response used and what that costs: the same reading and the same rates as a metered call, explained as JSON."""

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils.dateparse import parse_date, parse_datetime

from metering.context import context_of
from metering.read_any import ReadAnswer, UnreadableAnswer, read_any
from pricing import clock
from pricing.catalog import load_rate_card
from pricing.models import ClockOffset, PriceBook
from pricing.money import decimal_string
from pricing.rating import Charge, rate_usage

UNREADABLE = 2  # exit code
BYTES_MAX = 256 * 1024 * 1024


class Command(BaseCommand):
    """`manage.py rate_response FILE|- [--provider P] [--model M] [--at INSTANT] [--book B]`"""

    help = (
        "Read a provider's response from a file (a body, a recorded stream, WebSocket messages) and price it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file", metavar="FILE|-", help="the response as it was received; - reads standard input"
        )
        parser.add_argument(
            "--provider",
            default="",
            metavar="P",
            help="openai, anthropic, google …; decides where the content does not",
        )
        parser.add_argument(
            "--model", metavar="M", help="the model that was asked for, where the response does not name it"
        )
        parser.add_argument(
            "--at",
            metavar="INSTANT",
            help="ISO 8601, UTC where it names no zone; a day is its beginning. Default: now",
        )
        parser.add_argument(
            "--book",
            default="cost",
            metavar="B",
            help="the price book (default: cost, what the provider charges)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        clock.set_offset(ClockOffset.read())
        at = clock.now() if options["at"] is None else _instant(options["at"])
        book = options["book"]
        if not PriceBook.objects.filter(slug=book).exists():
            known = ", ".join(PriceBook.objects.values_list("slug", flat=True)) or "none"
            raise CommandError(
                f"--book {book}: there is no such price book; there are: {known}", returncode=UNREADABLE
            )
        data = _bytes_of(options["file"])
        try:
            answer = read_any(data, provider=options["provider"], model=options["model"])
        except UnreadableAnswer as error:
            raise CommandError(f"{options['file']}: {error}", returncode=UNREADABLE) from error
        charge = rate_usage(load_rate_card(), answer.usage, book=book, at=at)
        self.stdout.write(json.dumps(explained(answer, charge, at), indent=2, ensure_ascii=False))


def explained(answer: ReadAnswer, charge: Charge, at: datetime) -> dict[str, Any]:
    """The reading and the charge as a JSON document; amounts are decimal strings, what is unknown is null."""
    usage = answer.usage
    return {
        "wire_format": answer.wire_format,
        "framing": answer.framing,
        "extractor": usage.extractor,
        "provider": usage.provider,
        "model": usage.model,
        "model_requested": usage.model_requested,
        "model_served": usage.model_served,
        "buckets": {name: _quantity(count) for name, count in usage.buckets.items()},
        "tokens_input": usage.tokens_input,
        "tokens_output": usage.tokens_output,
        "tokens_total": usage.tokens_total,
        "context": _plain(context_of(usage)),
        "book": charge.book,
        "at": at.astimezone(UTC).isoformat(),
        "currency": charge.currency,
        "lines": [
            {
                "model": line.model or usage.model,
                "unit": line.bucket,
                "quantity": _quantity(line.quantity),
                "unit_price": decimal_string(line.unit_price),
                "amount": decimal_string(line.amount),
                "rate_id": line.rate_id,
            }
            for line in charge.lines
        ],
        "amount_input": _amount(charge.amount_input),
        "amount_output": _amount(charge.amount_output),
        "total": _amount(charge.total),
        "unpriced": list(charge.unpriced),
        "usage_source": usage.source,
        "pricing_status": charge.status,
        "consistency": usage.consistency,
        "rules": list(usage.rules),
    }


def _bytes_of(file: str) -> bytes:
    try:
        if file == "-":
            data = sys.stdin.buffer.read(BYTES_MAX + 1)
        else:
            with Path(file).open("rb") as opened:
                data = opened.read(BYTES_MAX + 1)
    except (OSError, ValueError) as error:
        raise CommandError(f"{file}: {error}", returncode=UNREADABLE) from error
    if len(data) > BYTES_MAX:
        raise CommandError(f"{file}: more than {BYTES_MAX:,} bytes", returncode=UNREADABLE)
    return data


def _instant(text: str) -> datetime:
    """An aware instant. Raises CommandError."""
    try:
        instant = parse_datetime(text)
        if instant is None and (day := parse_date(text)) is not None:
            instant = datetime(day.year, day.month, day.day)  # noqa: DTZ001  (made aware below)
    except ValueError:
        instant = None
    if instant is None:
        raise CommandError(
            f"--at {text}: must be an instant such as 2026-11-25T12:00:00Z", returncode=UNREADABLE
        )
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def _amount(value: Any) -> str | None:
    return None if value is None else decimal_string(value)


def _quantity(value: Any) -> Any:
    """A count as a number; a fraction (of a second) as a decimal string, which no reader can round."""
    return value if isinstance(value, int) else decimal_string(value)


def _plain(value: Any) -> Any:
    """Counts within a document as `_quantity` has them."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (str, int)) else decimal_string(value)
