"""The table of metered routes: what it matches, and how it refuses a wrong entry."""

from pathlib import Path

import pytest

from metering.routes import DEFAULT_ROUTES, InvalidRoute, Route, RouteTable
from project.gateway.app import PATHS, serves


@pytest.mark.parametrize(
    ("method", "path", "wire_format"),
    [
        ("POST", "/v1/execute", "execute"),
        ("POST", "/v1/chat/completions", "openai_chat"),
        ("POST", "/v1/responses", "openai_responses"),
        ("POST", "/v1/embeddings", "openai_embeddings"),
        ("POST", "/v1/messages", "anthropic_messages"),
        ("POST", "/v1beta/models/gemini-2.5-pro:generateContent", "gemini_generate"),
        ("POST", "/v1beta/models/gemini-2.5-pro:streamGenerateContent", "gemini_generate"),
        ("POST", "/v1/models/gemini-2.5-pro:generateContent", "gemini_generate"),
        ("POST", "/v1/models/gemini-2.5-pro:streamGenerateContent", "gemini_generate"),
    ],
)
def test_the_default_table_meters_the_pass_throughs(method: str, path: str, wire_format: str) -> None:
    route = RouteTable.compile(DEFAULT_ROUTES).match(method, path)
    assert route is not None and route.wire_format == wire_format


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/messages"),
        ("post", "/v1/messages"),
        ("POST", "/v1/messages/"),
        ("POST", "/v1/messages/count_tokens"),
        ("GET", "/v1beta/models/gemini-2.5-pro:generateContent"),
        ("POST", "/v1beta/models/gemini-2.5-pro:countTokens"),
        ("POST", "/"),
        ("POST", ""),
    ],
)
def test_anything_else_passes_untouched(method: str, path: str) -> None:
    assert RouteTable.compile(DEFAULT_ROUTES).match(method, path) is None


def test_whatever_the_gateway_serves_is_metered() -> None:
    table = RouteTable.compile(DEFAULT_ROUTES)
    paths = [*PATHS, *(f"/{version}/models/x:{verb}" for version in ("v1", "v1beta", "v1alpha", "v2")
                       for verb in ("generateContent", "streamGenerateContent", "countTokens"))]  # fmt: skip
    assert [path for path in paths if serves(path)] == [path for path in paths if table.match("POST", path)]


def test_a_name_in_braces_stands_for_one_segment_or_part_of_it() -> None:
    table = RouteTable.compile([Route("POST", "/v1beta/models/{model}:generateContent")])
    assert table.match("POST", "/v1beta/models/gemini-2.5-pro:generateContent") is table.routes[0]
    assert table.match("POST", "/v1beta/models/:generateContent") is None
    assert table.match("POST", "/v1beta/models/a/b:generateContent") is None
    assert table.match("GET", "/v1beta/models/a:generateContent") is None
    assert table.match("POST", "/v1beta/models/a:generateContent\n\n") is None


def test_a_path_that_a_router_serves_with_a_newline_behind_it_is_metered() -> None:
    """`/v1/execute%0A`: a pattern that ends in `$` matches there as well."""
    table = RouteTable.compile(DEFAULT_ROUTES)
    assert table.match("POST", "/v1/execute\n") is table.match("POST", "/v1/execute") is not None


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/gemini-2.5-pro:generateContent", "gemini-2.5-pro"),
        ("/v1beta/models/gemini-2.5-pro:generateContent\n", "gemini-2.5-pro"),
        ("/v1beta/models/größe:neu%41:generateContent", "größe:neu%41"),  # decoded once, by the server
        ("/v1beta/models/a/b:generateContent", None),
        ("/v1beta/models/:generateContent", None),
    ],
)
def test_a_path_names_its_model(path: str, model: str | None) -> None:
    table = RouteTable.compile([Route("POST", "/{version}/models/{model}:generateContent")])
    assert table.model_in(table.routes[0], path) == model


def test_a_path_without_a_place_for_the_model_names_none() -> None:
    table = RouteTable.compile([Route("POST", "/scan/{id}"), Route("POST", "/v1/messages")])
    assert [table.model_in(route, route.pattern) for route in table.routes] == [None, None]


def test_a_fixed_path_wins_over_a_pattern_and_the_first_pattern_over_the_second() -> None:
    fixed, first, second = Route("POST", "/a/b"), Route("POST", "/a/{x}"), Route("POST", "/{x}/c")
    table = RouteTable.compile([second, first, fixed])
    assert table.match("POST", "/a/b") is fixed
    assert table.match("POST", "/a/c") is second
    assert table.match("POST", "/a/d") is first


def test_characters_with_a_meaning_in_regular_expressions_are_literal() -> None:
    table = RouteTable.compile([Route("POST", "/v1.0/{x}/(a)")])
    assert table.match("POST", "/v1.0/q/(a)") is not None
    assert table.match("POST", "/v1x0/q/(a)") is None


@pytest.mark.parametrize(
    ("route", "says"),
    [
        (Route("post", "/a"), "method: 'post'"),
        (Route("", "/a"), "method: ''"),
        (Route("POST", "a"), "pattern: does not start with /"),
        (Route("POST", "/a/{x"), "pattern: a brace"),
        (Route("POST", "/a/{1}"), "pattern: a brace"),
        (Route("POST", "/{model}/{model}"), "pattern: {model} stands there twice"),
        (Route("POST", "/a", feature=""), "feature: is empty"),
        (
            Route("POST", "/a", wire_format="soap"),
            "wire_format: unknown wire format 'soap'; known are anthropic_messages, ",
        ),
    ],
)
def test_a_wrong_route_is_named_with_its_key(route: Route, says: str) -> None:
    with pytest.raises(InvalidRoute, match="route 2 ") as caught:
        RouteTable.compile([Route("POST", "/fine"), route])
    assert says in str(caught.value)


def test_a_route_listed_twice_is_refused() -> None:
    with pytest.raises(InvalidRoute, match=r"route 2 .*listed twice"):
        RouteTable.compile([Route("POST", "/a"), Route("POST", "/a", feature="scans")])


def test_a_file_gives_the_same_table_as_code(tmp_path: Path) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(
        '[[route]]\nmethod = "POST"\npattern = "/scan/{id}"\nfeature = "scans"\nwire_format = "execute"\ndrain = false\n'
    )
    table = RouteTable.from_file(file)
    assert table.match("POST", "/scan/7") == Route("POST", "/scan/{id}", "scans", "execute", drain=False)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[route]]\nmethod = "POST"\n', "route 1: Object missing required field `pattern`"),
        ('[[route]]\nmethod = "POST"\npattern = 3\n', "route 1: Expected `str`, got `int` - at `$.pattern`"),
        (
            '[[route]]\nmethod = "POST"\npattern = "/a"\npath = "/a"\n',
            "route 1: unknown key 'path'; keys are method, ",
        ),
        ('[[route]]\nmethod = "POST"\npattern = "b"\n', "route 1 (POST b): pattern"),
        ("route = 3\n", "expected one or more [[route]]"),
        ("route = [3]\n", "route 1: is no table"),
        ("[routes]\n", "expected one or more [[route]]"),
        ("", "expected one or more [[route]]"),
        ("[[route]\n", "line 1"),
    ],
)
def test_a_wrong_file_is_named_with_its_entry_and_key(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "routes.toml"
    file.write_text(text)
    with pytest.raises(InvalidRoute) as caught:
        RouteTable.from_file(file)
    assert str(file) in str(caught.value) and says in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRoute, match=r"absent\.toml"):
        RouteTable.from_file(tmp_path / "absent.toml")
