"""What Google's API says outside of the body: the model and the verb in the path, the form of the answer in the query."""

import re
from urllib.parse import parse_qsl, urlencode

import msgspec

# Its official client calls `/v1`, and `/v1beta` where it is told to.
_PATH = re.compile(r"/(?:v1|v1beta)/models/(?P<model>[^/]+):(?P<verb>generateContent|streamGenerateContent)")
_NAMES = {"alt": "alt", "$alt": "alt", "prettyPrint": "prettyPrint", "$prettyPrint": "prettyPrint"}
_VALUES = {"alt": frozenset({"sse", "json"}), "prettyPrint": frozenset({"true", "false"})}


class GoogleCall(msgspec.Struct, frozen=True):
    """One call as its path and query put it."""

    model: str
    streams: bool
    events: bool  # a stream comes as server-sent events; else it is one JSON array

    @classmethod
    def of(cls, path: str, query: bytes = b"") -> "GoogleCall | None":
        """The call that goes to this path, or None where it is no path of Google's that is served here."""
        found = _PATH.fullmatch(path)
        if found is None:
            return None
        return cls(found["model"], found["verb"] == "streamGenerateContent", ("alt", "sse") in _known(query))


def query_for_google(query: bytes) -> bytes:
    """What of the query goes up: the form of the answer where it is one that the meter reads, and nothing else.

    Google takes parameters with which a caller could have its usage left out of the answer, or have it written in a way
    that nobody here reads: `fields`, `$fields`, `$alt=proto`, `$alt=json;enum-encoding=int`, `callback`. It also takes a
    key there, which is the caller's.
    """
    return urlencode(_known(query)).encode()


def _known(query: bytes) -> list[tuple[str, str]]:
    given = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    named = [(_NAMES[name], value) for name, value in given if name in _NAMES]
    return [(name, value) for name, value in named if value in _VALUES[name]]
