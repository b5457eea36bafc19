"""Secrets: random, recognisable, kept as a digest only."""

import hashlib

from billing import keys


def test_a_secret_starts_with_its_kind_and_is_never_the_same() -> None:
    first, second = keys.new_secret(keys.API_KEY_START), keys.new_secret(keys.API_KEY_START)
    assert first.startswith("tg_live_")
    assert len(first) == len("tg_live_") + 32
    assert first != second


def test_the_digest_is_the_sha256_in_hex() -> None:
    assert keys.digest("tg_live_x") == hashlib.sha256(b"tg_live_x").hexdigest()
    assert keys.digest(b"tg_live_x") == keys.digest("tg_live_x")


def test_what_is_shown_again_is_the_kind_and_six_characters() -> None:
    assert keys.recognisable("tg_live_ab12cd" + "z" * 26) == "tg_live_ab12cd"
    assert keys.recognisable("tgo_ab12cd" + "z" * 26) == "tgo_ab12cd"
