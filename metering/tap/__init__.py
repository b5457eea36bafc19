"""The tap: watches the bytes of one answer go by and says at its end what the call used.

It changes nothing and keeps little: of a stream the frame that is still open, of a JSON body the body up to a bound. Its
one word about time is the offset from which bytes must wait for the commit: the client must not hold the whole answer
before we have it in the books.

A stream is cut into frames in one of several ways, its framing: server-sent events (`events`), one JSON document per line
(`lines`), one JSON array (`array`), the AWS event stream (`aws`). What is in a frame is the wire format's to know.
"""

from metering.tap.base import BODY_MAX, TAIL_BYTES, Tap
from metering.tap.messages import usage_of_messages
from metering.tap.opening import open_tap

__all__ = ["BODY_MAX", "TAIL_BYTES", "Tap", "open_tap", "usage_of_messages"]
