"""The secrets that callers show: API keys and operator tokens. Pure.

A secret is shown once. What is kept is its SHA-256, and its first characters by which people recognise it. A slow hash would
protect a guessable password; these have 190 random bits, which nobody guesses.
"""

import hashlib
import secrets
import string

API_KEY_START = "tg_live_"
OPERATOR_TOKEN_START = "tgo_"  # noqa: S105  (the public part)
RANDOM_CHARACTERS = 32
SHOWN_CHARACTERS = 6
LENGTH_MAX = 128
_ALPHABET = string.ascii_letters + string.digits


def new_secret(start: str) -> str:
    """`start` and 32 random letters and digits."""
    return start + "".join(secrets.choice(_ALPHABET) for _ in range(RANDOM_CHARACTERS))


def digest(secret: str | bytes) -> str:
    """What is stored of a secret: its SHA-256 in lower-case hex."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


def recognisable(secret: str) -> str:
    """The part of a secret that may be shown again: its kind and six characters, `tg_live_ab12cd`."""
    kind, _separator, rest = secret.rpartition("_")
    return f"{kind}_{rest[:SHOWN_CHARACTERS]}"
