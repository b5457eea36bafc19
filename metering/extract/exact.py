"""Numbers digit by digit: JSON decoders make floats of what has a point, and a float no longer says all its digits."""

import re
from decimal import Decimal

import msgspec


def digits_of(*names: str) -> re.Pattern[bytes]:
    """Finds the numbers of fields with these names. Text that quotes such a field is escaped and does not match."""
    return re.compile(rb'"(?:' + "|".join(names).encode() + rb')"\s*:\s*(\d[\d.eE+-]*)')


def as_written(value: float, fields: re.Pattern[bytes], text: bytes) -> Decimal:
    """The digits of the last of `fields` in the JSON `text` that mean `value`; where it is not there, the shortest that do."""
    for digits in reversed(fields.findall(text)):
        try:
            if msgspec.json.decode(digits) == value:
                return Decimal(digits.decode())
        except msgspec.DecodeError:
            continue
    return Decimal(repr(value))
