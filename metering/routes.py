"""Which requests are metered, and how each is read: a table compiled once at start-up."""

import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import msgspec

from metering.extract import UnknownWireFormat, wire_format


class InvalidRoute(ValueError):
    """A route that cannot be compiled; the message names the entry and the key."""


class Route(msgspec.Struct, frozen=True):
    """One metered endpoint. `pattern` is a path; `{name}` in it stands for one or more characters other than `/`.

    `{model}` is where a path names the model of its call, which then goes before one that the body names.
    """

    method: str  # upper case
    pattern: str
    feature: str = "api_calls"
    wire_format: str = "openai_chat"
    provider: str = "openai"  # the default; a model that is named demo-… is the built-in provider's
    drain: bool = True  # let the call run to its end when the client has gone, so that usage is known


class RouteTable:
    """Finds the route of a request: fixed paths by one dictionary look-up, patterns in the order given."""

    __slots__ = ("_exact", "_models", "_patterns", "routes")

    def __init__(
        self,
        routes: tuple[Route, ...],
        exact: dict[tuple[str, str], Route],
        patterns: tuple[tuple[str, re.Pattern[str], Route], ...],
    ) -> None:
        self.routes = routes
        self._exact = exact
        self._patterns = patterns
        self._models = {route.pattern: regex for _, regex, route in patterns if "model" in regex.groupindex}

    @classmethod
    def compile(cls, routes: Iterable[Route]) -> Self:
        """Raises `InvalidRoute` for a malformed or repeated entry."""
        table = tuple(routes)
        exact: dict[tuple[str, str], Route] = {}
        patterns = []
        seen: set[tuple[str, str]] = set()
        for number, route in enumerate(table, start=1):
            problem = _problem(route)
            if (route.method, route.pattern) in seen:
                problem = f"pattern: {route.method} {route.pattern} is listed twice"
            if problem:
                raise InvalidRoute(f"route {number} ({route.method} {route.pattern}): {problem}")
            seen.add((route.method, route.pattern))
            if "{" in route.pattern:
                patterns.append((route.method, _regex(route.pattern), route))
            else:
                exact[route.method, route.pattern] = route
        return cls(table, exact, tuple(patterns))

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """A table from a TOML file with one `[[route]]` per entry, keys as in `Route`. Raises `InvalidRoute`."""
        try:
            document = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidRoute(f"{path}: {error}") from error
        entries = document.pop("route", [])
        if document or not isinstance(entries, list) or not entries:
            raise InvalidRoute(f"{path}: expected one or more [[route]] entries and nothing else")
        try:
            return cls.compile([_route(number, entry) for number, entry in enumerate(entries, start=1)])
        except InvalidRoute as error:
            raise InvalidRoute(f"{path}: {error}") from error

    def match(self, method: str, path: str) -> Route | None:
        """The route of a request, or None when it is not metered. A trailing slash is another path.

        One newline at the end is not: routers whose patterns end in `$` serve such a path like the one without.
        """
        path = path.removesuffix("\n")
        route = self._exact.get((method, path))
        if route is not None or not self._patterns:
            return route
        for pattern_method, regex, candidate in self._patterns:
            if pattern_method == method and regex.fullmatch(path):
                return candidate
        return None

    def model_in(self, route: Route, path: str) -> str | None:
        """The model that the path of a request on `route` names, as the server decoded it; None where it names none."""
        regex = self._models.get(route.pattern)
        found = regex.fullmatch(path.removesuffix("\n")) if regex is not None else None
        return found["model"] if found is not None else None


_NAME = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
_MODEL = "{model}"


def _route(number: int, entry: Any) -> Route:
    if not isinstance(entry, dict):
        raise InvalidRoute(f"route {number}: is no table")
    unknown = sorted(set(entry) - set(Route.__struct_fields__))
    if unknown:
        raise InvalidRoute(
            f"route {number}: unknown key {unknown[0]!r}; keys are {', '.join(Route.__struct_fields__)}"
        )
    try:
        return msgspec.convert(entry, Route)
    except msgspec.ValidationError as error:
        raise InvalidRoute(f"route {number}: {error}") from error


def _problem(route: Route) -> str | None:
    """What is wrong with the route, naming the key; None when nothing is."""
    if not route.method.isalpha() or route.method != route.method.upper():
        return f"method: {route.method!r} is no HTTP method in capitals"
    if not route.pattern.startswith("/"):
        return "pattern: does not start with /"
    if re.search(r"[{}]", _NAME.sub("", route.pattern)):
        return "pattern: a brace that is not part of {name}"
    if route.pattern.count(_MODEL) > 1:
        return "pattern: {model} stands there twice"
    if not route.feature:
        return "feature: is empty"
    try:
        wire_format(route.wire_format)
    except UnknownWireFormat as error:
        return f"wire_format: {error}"
    return None


def _regex(pattern: str) -> re.Pattern[str]:
    """Literal text around `{name}` parts. Names are for the reader of the table; only the model is captured."""
    parts = []
    end = 0
    for name in _NAME.finditer(pattern):
        parts += [
            re.escape(pattern[end : name.start()]),
            "(?P<model>[^/]+)" if name[0] == _MODEL else "[^/]+",
        ]
        end = name.end()
    return re.compile("".join(parts) + re.escape(pattern[end:]))


DEFAULT_ROUTES = (
    Route("POST", "/v1/execute", wire_format="execute", provider="demo"),
    Route("POST", "/v1/chat/completions", wire_format="openai_chat", provider="openai"),
    Route("POST", "/v1/responses", wire_format="openai_responses", provider="openai"),
    Route("POST", "/v1/embeddings", wire_format="openai_embeddings", provider="openai"),
    Route("POST", "/v1/messages", wire_format="anthropic_messages", provider="anthropic"),
    # Google's client calls either version.
    *(
        Route("POST", f"/{version}/models/{{model}}:{verb}", wire_format="gemini_generate", provider="google")
        for version in ("v1beta", "v1")
        for verb in ("generateContent", "streamGenerateContent")
    ),
)
