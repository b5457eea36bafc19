"""The rules of the house that a machine can check. Each failure names the file and the line."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.apps import apps
from django.db.migrations.loader import MigrationLoader

from project import environment

ROOT = Path(__file__).resolve().parent.parent
# From left to right: an app may use only what stands to its left.
APPS = ("pricing", "metering", "billing", "project")
LABELS = {"tollgate_pricing": 0, "tollgate_metering": 1, "tollgate_billing": 2}
DATA_PLANE = (
    *("pricing.rating", "pricing.pricelist", "pricing.clock", "metering.middleware", "metering.record_usage"),
    *("metering.recorder", "metering.store.postgres", "metering.store.sqlite", "metering.store.memory"),
    *("billing.admission",),
)


def python_files(*folders: str) -> list[Path]:
    """The Python files under these folders of the checkout, without migrations."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [path for path in found if "migrations" not in path.parts]


def lines_with(pattern: str, paths: list[Path]) -> list[str]:
    """`file:line: text` for every line that the pattern is found in."""
    wanted = re.compile(pattern)
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        if wanted.search(line)
    ]


# Directions


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_foreign_keys_point_to_the_left() -> None:
    # import-linter cannot see a foreign key that is written as a string.
    wrong = [
        f"{model._meta.label}.{field.name} -> {field.related_model._meta.label}"
        for model in apps.get_models()
        for field in model._meta.get_fields()
        if field.concrete and field.is_relation and not isinstance(field.related_model, (str, type(None)))
        if rank(field.related_model._meta.app_label) > rank(model._meta.app_label)
    ]
    assert wrong == []


def test_migrations_depend_on_the_left() -> None:
    loader = MigrationLoader(connection=None)
    wrong = [
        f"{key} -> {needed}"
        for key, migration in loader.disk_migrations.items()
        for needed in [*migration.dependencies, *migration.run_before]
        if rank(needed[0]) > rank(key[0])
    ]
    assert wrong == []


def rank(label: str) -> int:
    """The place of an app in the row; Django's own apps stand to the left of all of ours."""
    return LABELS.get(label, -1)


def test_usage_names_a_customer_by_value() -> None:
    relations = [
        f"{model._meta.label}.{field.name}"
        for model in apps.get_app_config("tollgate_metering").get_models()
        for field in model._meta.get_fields()
        if field.is_relation
    ]
    assert relations == []


def test_the_data_plane_runs_where_django_is_not_installed() -> None:
    program = (
        "import sys, importlib\n"
        "for name in ('django', 'rest_framework', 'celery'): sys.modules[name] = None\n"
        f"for name in {DATA_PLANE!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# Names


def test_every_table_is_named_by_us() -> None:
    unnamed = [
        model._meta.label
        for label in LABELS
        for model in apps.get_app_config(label).get_models(include_auto_created=True)
        if "db_table" not in model._meta.original_attrs
    ]
    assert unnamed == []


def test_no_file_is_named_after_a_role_without_a_limit() -> None:
    drawers = {"utils.py", "util.py", "helpers.py", "services.py", "service.py", "common.py", "misc.py"}
    assert [path for path in python_files(*APPS, "tests", "benchmarks") if path.name in drawers] == []


@pytest.mark.parametrize("app", APPS)
def test_each_app_says_what_it_owns(app: str) -> None:
    said = ast.get_docstring(ast.parse((ROOT / app / "__init__.py").read_text())) or ""
    assert re.search(r"\bOwns:", said)
    assert re.search(r"\bDoes not own:", said, re.IGNORECASE)


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in python_files(*APPS)
        if path.read_text().strip() and ast.get_docstring(ast.parse(path.read_text())) is None
        if path.name != "__init__.py" or path.parent.name not in {"management", "commands"}
    ]
    assert silent == []


# Money


def test_no_float_comes_near_money() -> None:
    pattern = r"\bfloat\(|FloatField|\bREAL\b|double precision|::\s*float"
    assert lines_with(pattern, python_files("pricing", "metering", "billing")) == []


def test_only_one_function_rounds_what_is_kept() -> None:
    pattern = r"\.quantize\(|\bround\(|ROUND_HALF|\bROUND\("
    rounding = lines_with(pattern, python_files("pricing", "metering", "billing"))
    shown_only = ("pricing/money.py:", "billing/templatetags/")
    assert [line for line in rounding if not line.startswith(shown_only)] == []


# Size


def test_functions_are_short_enough_to_read_at_once() -> None:
    assert [text for length, text in functions(*APPS) if length > 70] == []


def functions(*folders: str) -> Iterator[tuple[int, str]]:
    """(lines from `def` to the last one, `file:line name`) of every function."""
    for path in python_files(*folders):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                yield length, f"{path.relative_to(ROOT)}:{node.lineno} {node.name} ({length} lines)"


def test_modules_own_one_thing() -> None:
    sizes = {path: len(path.read_text().splitlines()) for path in python_files(*APPS, "tests", "benchmarks")}
    assert [f"{path.relative_to(ROOT)} ({size} lines)" for path, size in sizes.items() if size > 600] == []


# Tests


def test_no_test_replaces_our_own_code() -> None:
    pattern = r"unittest\.mock|\bmock\.patch|monkeypatch\.setattr\(|\bmocker\b\."
    assert lines_with(pattern, python_files("tests")) == []


def test_nothing_is_left_for_later() -> None:
    pattern = r"\b(T[O]DO|F[I]XME|X[X]X|NotImplemented[E]rror)\b"
    assert lines_with(pattern, python_files(*APPS, "tests", "benchmarks")) == []


def test_no_test_is_skipped() -> None:
    assert (
        lines_with(r"pytest\.(s[k]ip|mark\.s[k]ip|mark\.x[f]ail|importors[k]ip)", python_files("tests")) == []
    )


# What is installed


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_requirement_is_pinned_with_hashes(name: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / name).read_text().replace("\\\n", " "))
    loose = [
        entry
        for entry in entries
        if entry.strip() and not re.match(r"(#|[\w.-]+(\[[\w, -]+\])?==\S+ .*--hash=sha256:)", entry)
    ]
    assert loose == []


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_what_is_asked_for_is_what_is_compiled(name: str) -> None:
    asked = re.findall(r"^([a-zA-Z][\w.-]*)", (ROOT / f"{name}.in").read_text(), re.MULTILINE)
    compiled = re.findall(
        r"^([a-z0-9][\w.-]*)(?:\[[\w, -]*\])?==", (ROOT / f"{name}.txt").read_text(), re.MULTILINE
    )
    assert sorted(set(asked) - set(compiled)) == []


# Documents


def documents() -> list[Path]:
    return [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_links_between_documents_lead_somewhere() -> None:
    broken = [
        f"{document.relative_to(ROOT)}: {target}"
        for document in documents()
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert broken == []


def test_files_that_documents_name_exist() -> None:
    name = re.compile(r"`((?:pricing|metering|billing|project|tests|benchmarks|docs)/[\w./-]+)`")
    missing = [
        f"{document.relative_to(ROOT)}: {path}"
        for document in documents()
        for path in name.findall(document.read_text())
        if not (ROOT / path).exists()
    ]
    assert missing == []


def test_make_targets_that_documents_name_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target for document in documents() for target in re.findall(r"`make ([a-z-]+)", document.read_text())
    }
    assert named - targets == set()


def test_the_example_of_the_environment_is_the_table_that_is_read() -> None:
    assert (ROOT / ".env.example").read_text() == environment.example(), "run: python -m project.environment"


def test_every_documented_variable_is_read() -> None:
    product = "".join(path.read_text() for path in python_files(*APPS) if path.name != "environment.py")
    assert [name for name in environment.VARIABLES if not re.search(rf"""["']{name}["']""", product)] == []
