"""What the double does wrong when it is asked to: by the header `x-fault: cut`, or by the model name `fault-cut`."""

from enum import StrEnum

HEADER = "x-fault"
MODEL_PREFIX = "fault-"


class Fault(StrEnum):
    """One thing that goes wrong with an answer."""

    NONE = ""
    SLOW = "slow"  # a pause before each piece of a stream, and before a whole answer: `Double.pause_s`, or header x-pause
    HANG = "hang"  # takes the request and never answers
    CUT = "cut"  # breaks off inside the third event or the body, in the middle of a character of two bytes
    CUT_LATE = "cut-late"  # breaks off before the terminal event: all text came, no [DONE], no message_stop
    RATE_LIMITED = "429"  # with retry-after: 2
    BROKEN = "500"
    OVERLOADED = "529"
    WRONG_KEY = "401"
    REDIRECT = "redirect"  # 307 to another host
    GARBAGE = "garbage"  # 200, and neither JSON nor UTF-8
    NO_USAGE = "no-usage"  # a good answer without a word of usage
    HUGE = "huge"  # the last event, or the body, is longer than a megabyte
    BYTEWISE = "bytewise"  # each byte of a stream is a chunk of its own
    CRLF = "crlf"  # lines end with CR LF, and comments come between the events
    GZIP = "gzip"  # compressed although nobody asked for it
    COOKIE = "cookie"  # sets a cookie and tells of its account


def fault_of(header: str, model: object) -> Fault:
    """The fault asked for; Fault.NONE where none is. Raises ValueError for one that does not exist."""
    if not header and isinstance(model, str) and model.startswith(MODEL_PREFIX):
        header = model.removeprefix(MODEL_PREFIX)
    return Fault(header)
