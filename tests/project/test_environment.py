"""Variables of the environment: read by kind, refused by name and value."""

from pathlib import Path

import pytest

from project import environment
from project.environment import WrongSetting


def test_the_default_holds_where_a_variable_is_unset_or_empty() -> None:
    assert environment.number("PORT", {}) == environment.number("PORT", {"PORT": " "}) == 8005


def test_every_default_can_be_read() -> None:
    environment.check_all({})


@pytest.mark.parametrize(("written", "meant"), [("true", True), ("1", True), ("No", False), ("off", False)])
def test_a_flag_is_written_in_several_ways(written: str, meant: bool) -> None:
    assert environment.flag("DEBUG", {"DEBUG": written}) is meant


def test_a_list_has_commas() -> None:
    assert environment.listing("ALLOWED_HOSTS", {"ALLOWED_HOSTS": "a.example, b.example,,"}) == [
        "a.example",
        "b.example",
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "80a5"), ("PORT", "-1"), ("PORT", "65536"), ("PORT", "٨"), ("PORT", "1e3"), ("DEBUG", "maybe"),
        ("LOG_LEVEL", "loud"), ("LOG_LEVEL_BILLING", "loud"), ("REPORT_HOUR_UTC", "24"), ("USAGE_RETENTION_DAYS", "0"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused_with_its_name_and_itself(name: str, value: str) -> None:
    with pytest.raises(WrongSetting) as refused:
        environment.check_all({name: value})
    assert name in str(refused.value)
    assert value in str(refused.value)


@pytest.mark.parametrize("value", ["mysql://user:hush@host/db", "postgres://user:hush@host:port/db", "hush"])
def test_a_wrong_url_is_refused_without_repeating_what_may_be_a_password(value: str) -> None:
    with pytest.raises(WrongSetting, match="DATABASE_URL") as refused:
        environment.check_all({"DATABASE_URL": value})
    assert "user:hush" not in str(refused.value)


def test_a_secret_is_never_repeated() -> None:
    assert "hush" not in str(environment.wrong("SECRET_KEY", "hush", "is short"))


def test_a_secret_comes_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from the file\n")
    from_file = {"SECRET_KEY_FILE": str(tmp_path / "key")}
    assert environment.text("SECRET_KEY", from_file) == "from the file"
    assert environment.text("SECRET_KEY", from_file | {"SECRET_KEY": "said outright"}) == "said outright"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WrongSetting, match=r"SECRET_KEY_FILE=.*cannot be read"):
        environment.check_all({"SECRET_KEY_FILE": str(tmp_path / "missing")})


def test_an_older_name_is_read_too() -> None:
    assert environment.text("STRIPE_SECRET_KEY", {"STRIPE_API_KEY": "sk_test_1"}) == "sk_test_1"


def test_the_log_level_of_an_app_is_the_general_one_unless_it_has_its_own() -> None:
    assert environment.level("LOG_LEVEL_BILLING", {"LOG_LEVEL": "error"}) == "ERROR"
    assert (
        environment.level("LOG_LEVEL_BILLING", {"LOG_LEVEL": "error", "LOG_LEVEL_BILLING": "debug"})
        == "DEBUG"
    )
