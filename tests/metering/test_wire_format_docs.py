"""The page on wire formats names each of them, and each rule that an event may carry."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from metering.extract import wire_format

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "wire-formats.md").read_text()
SOURCES = [
    path.read_text() for folder in ("extract", "tap") for path in (ROOT / "metering" / folder).glob("*.py")
]
NOTED_BY = {"repair", "flaw", "with_rule", "with_doubt"}


def constants() -> dict[str, str]:
    """The texts that modules give a name."""
    return dict(re.findall(r'^([A-Z_]+) = "([a-z_]+)"', "\n".join(SOURCES), re.MULTILINE))


def rules_in(source: str, names: dict[str, str]) -> Iterator[str]:
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call):
            function = (
                call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            )
            for argument in call.args if function in NOTED_BY else ():
                if isinstance(argument, ast.Constant):
                    yield str(argument.value)
                elif isinstance(argument, ast.Name) and argument.id in names:
                    yield names[argument.id]


def test_each_wire_format_has_a_row() -> None:
    rows = set(re.findall(r"`([a-z0-9_]+)`", PAGE.partition("## Which")[0]))
    files = (ROOT / "metering" / "extract").glob("*.py")
    formats = {path.stem for path in files if re.search(r'^    name = "', path.read_text(), re.MULTILINE)}
    assert formats <= rows and len(formats) > 20
    assert all(wire_format(name).name == name for name in formats)


def test_each_rule_has_a_row() -> None:
    names = constants()
    rules = {rule for source in SOURCES for rule in rules_in(source, names)}
    rules |= set(re.findall(r'damage = "([a-z_]+)"', "\n".join(SOURCES)))
    rows = set(re.findall(r"`([a-z_]+)`", PAGE.partition("## Rules")[2]))
    assert rules <= rows and len(rules) > 30
