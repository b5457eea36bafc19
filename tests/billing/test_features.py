"""The names of features."""

import pytest

from billing.features import FEATURES, canonical


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        ("api_calls", "api_calls"),
        ("api_requests", "api_calls"),
        ("API_REQUEST", "api_calls"),
        ("API_CALL", "api_calls"),
        ("OCR_SCAN", "ocr_scans"),
        ("ocr-scans", "ocr_scans"),
        ("WALLET_CHECK", "wallet_checks"),
        ("SCAN", "scans"),
        ("DOCUMENT", "documents"),
        ("Tokens", "tokens"),
    ],
)
def test_a_feature_has_one_name_however_it_is_spelt(spelling: str, name: str) -> None:
    assert canonical(spelling) == name


@pytest.mark.parametrize("name", ["render_minutes", "RenderMinutes", "scanners", "", "api", "s"])
def test_a_feature_of_the_hosts_own_keeps_its_name(name: str) -> None:
    assert canonical(name) == name


def test_every_feature_is_known_under_its_own_name() -> None:
    assert all(canonical(name) == name == feature.name for name, feature in FEATURES.items())
