"""The gateway's settings are read from the environment, and say what is wrong with it."""

import pytest

from project.gateway import GatewaySettings, InvalidSetting, Upstream


def test_without_variables_there_is_no_upstream() -> None:
    assert GatewaySettings.from_env({}) == GatewaySettings(openai=None, anthropic=None)
    assert GatewaySettings.from_env({"UPSTREAM_OPENAI_URL": "", "UPSTREAM_OPENAI_KEY": ""}).openai is None


def test_each_provider_has_its_own_upstream() -> None:
    found = GatewaySettings.from_env(
        {"UPSTREAM_OPENAI_URL": "https://api.openai.com/v1", "UPSTREAM_OPENAI_KEY": "sk-1",
         "UPSTREAM_ANTHROPIC_URL": "https://api.anthropic.com", "UPSTREAM_ANTHROPIC_KEY": "sk-2",
         "UPSTREAM_GOOGLE_URL": "https://generativelanguage.googleapis.com", "UPSTREAM_GOOGLE_KEY": "sk-3"}
    )  # fmt: skip
    assert found.openai == Upstream("openai", "https://api.openai.com/v1", "sk-1")
    assert found.anthropic == Upstream("anthropic", "https://api.anthropic.com", "sk-2")
    assert found.google == Upstream("google", "https://generativelanguage.googleapis.com", "sk-3")


@pytest.mark.parametrize("value", ["api.openai.com", "ftp://host", "https://", "https://host/v1?key=1"])
def test_a_wrong_address_is_named_with_its_variable(value: str) -> None:
    with pytest.raises(InvalidSetting, match="UPSTREAM_OPENAI_URL") as caught:
        GatewaySettings.from_env({"UPSTREAM_OPENAI_URL": value})
    assert value in str(caught.value)


def test_a_key_without_an_address_is_refused_and_not_shown() -> None:
    with pytest.raises(InvalidSetting, match="UPSTREAM_ANTHROPIC_URL") as caught:
        GatewaySettings.from_env({"UPSTREAM_ANTHROPIC_KEY": "sk-secret"})
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-\nx", "schlüssel"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(InvalidSetting, match="UPSTREAM_OPENAI_KEY"):
        GatewaySettings.from_env({"UPSTREAM_OPENAI_URL": "http://localhost", "UPSTREAM_OPENAI_KEY": key})


def test_the_key_never_shows_in_a_printed_setting() -> None:
    assert "sk-1" not in repr(GatewaySettings(openai=Upstream("openai", "http://localhost", "sk-1")))


@pytest.mark.parametrize(
    "base", ["http://host/openai", "http://host/openai/", "http://host/openai/v1", "http://host/openai/v1/"]
)
def test_the_address_is_taken_with_and_without_its_version(base: str) -> None:
    assert Upstream("openai", base).url_of("/v1/responses", b"a=1") == "http://host/openai/v1/responses?a=1"


@pytest.mark.parametrize("base", ["http://host", "http://host/v1beta/", "http://host/v1"])
@pytest.mark.parametrize("version", ["v1", "v1beta"])
def test_the_version_is_the_callers(base: str, version: str) -> None:
    path = f"/{version}/models/gemini-2.5-pro:generateContent"
    assert Upstream("google", base).url_of(path) == f"http://host{path}"


def test_what_a_model_is_called_stays_in_its_path() -> None:
    path = "/v1/models/x?fields=none&y#z%41 ü/../\udc80:generateContent"
    assert Upstream("google", "http://host").url_of(path) == (
        "http://host/v1/models/x%3Ffields=none&y%23z%2541%20%C3%BC/../%3F:generateContent"
    )


def test_each_provider_gets_its_key_as_it_wants_it() -> None:
    assert Upstream("openai", "http://host", "k").key_headers() == [(b"authorization", b"Bearer k")]
    assert Upstream("anthropic", "http://host", "k").key_headers() == [(b"x-api-key", b"k")]
    assert Upstream("google", "http://host", "k").key_headers() == [(b"x-goog-api-key", b"k")]
    assert Upstream("openai", "http://host").key_headers() == []
